"""ImageNet's classes by whatever a model or a folder calls them, out of timm's tables."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

NUM_CLASSES = 1000
MASKED = ("a", "r")  # released with images of 200 of the classes


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 classes in order, as n01440764."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


@cache
def _descriptions() -> tuple[tuple[str, ...], ...]:
    """Their names, as 'tench, Tinca tinca', and the same with their definitions."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return tuple(tuple(info.label_descriptions(detailed=detailed)) for detailed in (False, True))


@cache
def classes_of(release: str) -> tuple[str, ...]:
    """The 200 synsets of ImageNet-A or ImageNet-R, in order."""
    text = (files("timm.data") / "_info" / f"imagenet_{release}_indices.txt").read_text()
    return tuple(synsets()[int(line)] for line in text.split())


def places(classes: Sequence[str]) -> dict[str, int]:
    """Synset -> place among these classes, for those that are ImageNet's.

    They may be synsets, or timm's names with or without definitions; or numbers as text where they
    are all 1,000.
    """
    found = list(_named(classes))
    return {name: place for place, name in enumerate(found) if name}


def _named(classes: Sequence[str]) -> Sequence[str]:
    """The synset of each class; "" for what is none."""
    if tuple(classes) in _descriptions():  # by place: two are called crane
        return synsets()
    if len(classes) == NUM_CLASSES and are_numbers(classes):
        return [synsets()[int(name)] for name in classes]
    known: dict[str, str] = {name: name for name in synsets()}
    for names in _descriptions():
        once = {name for name, count in Counter(names).items() if count == 1}
        both = zip(names, synsets(), strict=True)
        known |= {name: synset for name, synset in both if name in once}
    return [known.get(name, "") for name in classes]


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether the names are different numbers of ImageNet's classes."""
    if not all(name.isascii() and name.isdigit() for name in classes):
        return False
    numbers = {int(name) for name in classes}
    return len(numbers) == len(classes) > 0 and max(numbers) < NUM_CLASSES


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are the 1,000 classes, in any order."""
    return len(classes) == NUM_CLASSES == len(places(classes))
