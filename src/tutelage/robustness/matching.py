"""The classes of published images and those of the model: which is which.

Answers are limited to the classes that a release has before anything is read out of them, as
Hendrycks et al. 2021 (arXiv 1907.07174) do: a model is not asked to choose among classes that the
images can't be of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import UsageError
from tutelage.robustness import imagenet
from tutelage.values import nearest

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Match:
    """Where the published classes are among the model's."""

    places: tuple[int, ...]  # of each published class; -1: the model has no such class
    asked: tuple[int, ...]  # the model's classes that answers are limited to, in order
    num_classes: int  # of the model
    notes: tuple[str, ...] = ()

    @property
    def masks(self) -> bool:
        """Whether there are classes that answers leave out."""
        return len(self.asked) < self.num_classes

    def labels(self, published: Tensor) -> Tensor:
        """Published class numbers (N,) as the model's; -1 for those that it has not."""
        return torch.tensor(self.places, dtype=torch.int64)[published]

    def limited(self, logits: Tensor) -> Tensor:
        """Logits (B, K) with those of other classes at minus infinity."""
        if not self.masks:
            return logits
        asked = torch.tensor(self.asked, device=logits.device)
        room = torch.full_like(logits, -torch.inf)
        room[:, asked] = logits[:, asked]
        return room


def matched(
    published: Sequence[str], classes: Sequence[str], *, address: str, release: str = "",
    expected: str = "",
) -> Match:  # fmt: skip
    """By name, or by synset where the two sides call ImageNet's classes differently.

    `release` a or r limits answers to that release's 200 classes. Raises UsageError where fewer
    than two classes are the model's, or where they are not that release's.
    """
    own = {name: place for place, name in enumerate(classes)}
    synset = _synsets(published)
    if release in imagenet.MASKED:
        _check_release(synset, release, address)
    by_synset = imagenet.places(classes) if any(synset) else {}
    places = tuple(
        own.get(name, by_synset.get(one, -1)) for name, one in zip(published, synset, strict=True)
    )
    asked = {place for place in places if place >= 0}
    if release in imagenet.MASKED and any(synset):
        asked |= {by_synset[one] for one in imagenet.classes_of(release) if one in by_synset}
    if len(asked) < 2 or not any(place >= 0 for place in places):
        raise UsageError(_no_match(published, classes, address, expected))
    return Match(
        places, tuple(sorted(asked)), len(classes), _notes(published, places, asked, classes)
    )


def by_name_or_number(
    published: Sequence[str], classes: Sequence[str], *, address: str, same: Mapping[str, str]
) -> Match:
    """By name, in any case and by other words for it (`same`: word -> published name); where no
    name is known and there are as many classes, by number, with a note.

    Raises UsageError where neither fits.
    """
    plain = [_plain(name) for name in classes]
    own = {same.get(name, name): place for place, name in enumerate(plain)}
    places = tuple(own.get(name, -1) for name in published)
    asked = {place for place in places if place >= 0}
    if len(asked) >= 2:
        notes = _notes(published, places, asked, classes)
        return Match(places, tuple(sorted(asked)), len(classes), notes)
    if asked or len(classes) != len(published):
        raise UsageError(_no_match(published, classes, address, ""))
    order = tuple(range(len(classes)))
    note = (
        f"no class of the model is called as one of {address}, so class {classes[0]!r} is taken "
        f"for {published[0]!r}, and so on by number to {classes[-1]!r} for {published[-1]!r}"
    )
    if all(name.isdigit() for name in plain) and {int(name) for name in plain} == set(order):
        number = {int(name): place for place, name in enumerate(plain)}
        return Match(tuple(number[one] for one in order), order, len(classes), (note,))
    return Match(order, order, len(classes), (note,))


def _plain(name: str) -> str:
    """A name as the releases write it."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _synsets(published: Sequence[str]) -> list[str]:
    """The synset of each published class; "" for what is none."""
    if imagenet.are_numbers(published):
        return [imagenet.synsets()[int(name)] for name in published]
    known = frozenset(imagenet.synsets())
    return [name if name in known else "" for name in published]


def _check_release(synset: Sequence[str], release: str, address: str) -> None:
    """Raises UsageError for ImageNet's classes that the release has not."""
    odd = sorted({one for one in synset if one} - set(imagenet.classes_of(release)))
    if odd:
        raise UsageError(
            f"{address} has {len(odd)} classes that ImageNet-{release.upper()} has not "
            f"({_some(odd)}): give the folder with its 200 classes, or name the release that it is"
        )


def _no_match(
    published: Sequence[str], classes: Sequence[str], address: str, expected: str
) -> str:  # fmt: skip
    """Why no classes are the same."""
    near = nearest(published[0], classes) if published else ""
    text = (
        f"{address} has the classes {_some(published)}, of which the model, with "
        f"{_some(classes)}, has fewer than two{near}"
    )
    return f"{text}: expected {expected}" if expected else f"{text}: name its classes as the model"


def _notes(
    published: Sequence[str], places: Sequence[int], asked: set[int], classes: Sequence[str]
) -> tuple[str, ...]:
    """What is left out on either side."""
    notes = []
    if len(asked) < len(classes):
        notes.append(
            f"answers are limited to the {len(asked):,} classes that the images can be of, of the "
            f"model's {len(classes):,}"
        )
    unknown = [name for name, place in zip(published, places, strict=True) if place < 0]
    if unknown:
        notes.append(
            f"{len(unknown):,} of its {len(published):,} classes are none of the model's, and "
            f"their images are left out: {_some(unknown)}"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    """The first names."""
    return ", ".join(names[:SHOWN]) + ", …" * (len(names) > SHOWN)
