"""Look at every image before training: what can't be read, what is there twice, what is missing."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import torch

from tutelage.core import Dice, generator
from tutelage.data.decode import read
from tutelage.data.find import Address, Given
from tutelage.data.issues import Issue
from tutelage.data.parts import list_parts
from tutelage.data.pixels import THREADS
from tutelage.data.source import Images, Raw
from tutelage.errors import UsageError
from tutelage.values import nearest

BAD_SHARE = 0.01  # more unreadable images than this are no accident

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Facts:
    """What reading an image told; `problem` is empty where it could be read."""

    content: str  # hash of size and pixels, so that copies in other files are found
    width: int
    height: int
    problem: str = ""


@dataclass
class Part:
    """The labeled, validation, test or pool images, with what is known of each."""

    images: Images
    facts: list[Facts] = field(default_factory=list)

    def keep(self, rows: Sequence[int]) -> "Part":
        """These rows alone."""
        return Part(self.images.keep(rows), [self.facts[row] for row in rows])

    def copies(self) -> dict[str, list[int]]:
        """Content hash -> the rows that have it."""
        rows: dict[str, list[int]] = {}
        for row, fact in enumerate(self.facts):
            rows.setdefault(fact.content, []).append(row)
        return rows


@dataclass
class Survey:
    """All images that can be used, and all that was found on the way."""

    parts: dict[str, Part]  # labeled, and where given: val, test, pool
    issues: list[Issue]


def survey(
    data: Address,
    *,
    val: Address | None = None,
    test: Address | None = None,
    pool: Address | None = None,
    given: Given | None = None,
    advance: Callable[[str, int], Advance] = lambda name, total: lambda done: None,
) -> Survey:
    """List and read all images, and leave out what can't be trained or judged on.

    `advance(name, total)` gives a function that hears how many more images are read. Fatal
    issues are in the result for the caller to raise; where there is no source at an address it
    raises UsageError itself.
    """
    images, issues = list_parts(data, val=val, test=test, pool=pool, given=given)
    for name in ("val", "test"):
        if name in images and "labeled" in images:
            labeled = images["labeled"]
            images[name], found = class_numbers(
                images[name], labeled.classes, labeled.source.address, name
            )
            issues += found
    parts = {name: Part(one) for name, one in images.items()}
    if any(issue.severity == "fatal" for issue in issues):
        return Survey(parts, issues)
    for name, part in parts.items():
        part.facts = examine(part.images, advance(name, len(part.images)))
        parts[name], found = readable(part, name)
        issues += found
    for judge in ("test", "val"):
        if judge in parts:
            issues += _unseen(parts, judge)
    issues += _contradictions(parts)
    issues += _emptied(parts)
    return Survey(parts, issues)


def examine(images: Images, advance: Advance = lambda done: None) -> list[Facts]:
    """Read every image whole, by a few threads."""

    def look(row: int) -> Facts:
        try:
            return _examined(images.read(row))
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
            return Facts("", 0, 0, f"{type(error).__name__}: {error}")

    facts = []
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as threads:
        warnings.simplefilter("ignore")  # here, as the filters are one for all threads
        for fact in threads.map(look, range(len(images))):
            facts.append(fact)
            advance(1)
    return facts


def _examined(raw: Raw) -> Facts:
    """Decode one image; raises whatever a decoder raises."""
    image = read(raw)
    pixels = blake2b(image.tobytes(), digest_size=16)
    pixels.update(f"{image.width}x{image.height}".encode())
    return Facts(pixels.hexdigest(), image.width, image.height)


def class_numbers(
    images: Images, classes: tuple[str, ...], owner: str, part: str
) -> tuple[Images, list[Issue]]:
    """The same images numbered as in `classes`; a class that isn't among them is fatal."""
    issues = []
    for extra in [c for c in images.classes if c not in classes]:
        issues.append(
            Issue("fatal", "unknown class", part, images.source.address,
                  f"class {extra!r} of {images.source.address} is not among the classes of {owner}"
                  f"{nearest(extra, classes)}: rename it, or train with images of it")
        )  # fmt: skip
    for missing in [c for c in classes if c not in images.classes]:
        issues.append(
            Issue("note", "class not judged", part, images.source.address,
                  f"{images.source.address} has no images of class {missing!r}")
        )  # fmt: skip
    if any(issue.severity == "fatal" for issue in issues):
        return images, issues
    number = {name: i for i, name in enumerate(classes)}
    labels = tuple(number[images.classes[label]] for label in images.labels or ())
    return replace(images, labels=labels, classes=classes), issues


def readable(part: Part, name: str) -> tuple[Part, list[Issue]]:
    """Drop what can't be read; fatal above 1 %."""
    bad = [row for row, fact in enumerate(part.facts) if fact.problem]
    if not bad:
        return part, []
    many = len(bad) > BAD_SHARE * len(part.images)
    issues = [
        Issue("dropped", "unreadable", name, part.images.where(row), part.facts[row].problem)
        for row in bad
    ]
    kept = part.keep([row for row, fact in enumerate(part.facts) if not fact.problem])
    if many:
        first = part.images.where(bad[0])
        issues.append(
            Issue("fatal", "many unreadable", name, part.images.source.address,
                  f"{len(bad)} of {len(part.images)} images can't be read, which is above "
                  f"{BAD_SHARE:.0%}; the first is {first}: mend or remove them")
        )  # fmt: skip
    return kept, issues


def _unseen(parts: dict[str, Part], judge: str) -> list[Issue]:
    """Take what is judged on out of what is trained on; equal pixels are the same image."""
    judged = parts[judge].copies()
    issues = []
    for name in ("labeled", "val", "pool"):
        if name not in parts or name == judge:
            continue
        part = parts[name]
        twins = [row for row, fact in enumerate(part.facts) if fact.content in judged]
        issues += [
            Issue("dropped", f"also in {judge}", name, part.images.where(row),
                  f"the same pixels are among the {judge} images")
            for row in twins
        ]  # fmt: skip
        out = set(twins)
        parts[name] = part.keep([row for row in range(len(part.images)) if row not in out])
    return issues


def _contradictions(parts: dict[str, Part]) -> list[Issue]:
    """Leave out labeled images whose pixels stand under two classes; note other copies."""
    part = parts["labeled"]
    labels, names = part.images.labels or (), part.images.classes
    issues, out = [], set()
    for rows in part.copies().values():
        classes = sorted({names[labels[row]] for row in rows})
        if len(classes) > 1:
            out |= set(rows)
            issues += [
                Issue("dropped", "two classes", "labeled", part.images.where(row),
                      f"the same pixels are labeled {' and '.join(classes)}")
                for row in rows
            ]  # fmt: skip
        elif len(rows) > 1:
            place = part.images.where(rows[0])
            issues.append(Issue("note", "copies", "labeled", place, f"is there {len(rows)} times"))
    parts["labeled"] = part.keep([row for row in range(len(part.images)) if row not in out])
    return issues


def _emptied(parts: dict[str, Part]) -> list[Issue]:
    """Fatal where a part, or a class to train on, has lost its last image."""
    lost = [
        (name, part.images.source.address) for name, part in parts.items() if not part.images.names
    ]
    labeled = parts["labeled"].images
    if labeled.names:
        classes = zip(labeled.classes, labeled.counts(), strict=True)
        address = labeled.source.address
        lost += [("labeled", f"class {n} of {address}") for n, count in classes if not count]
    return [
        Issue("fatal", "no images left", name, place,
              f"no image in {place} can be used: each is unreadable or also judged on; add others")
        for name, place in lost
    ]  # fmt: skip


def split(part: Part, fraction: float, *, seed: int) -> tuple[list[int], list[int], list[Issue]]:
    """Rows to train on and rows to validate on: that share of each class, at least one each.

    Copies of an image, which are all of one class, stay together.
    """
    labels, copies = part.images.labels or (), part.copies().values()
    issues, train, val = [], [], []
    for number, name in enumerate(part.images.classes):
        groups = [rows for rows in copies if labels[rows[0]] == number]
        if len(groups) < 2:
            issues.append(
                Issue("fatal", "too few labels", "labeled", part.images.source.address,
                      f"class {name!r} has {len(groups)} usable images, and splitting off a "
                      "validation part needs 2: add some, give --val, or set --val-fraction 0")
            )  # fmt: skip
            continue
        order = [groups[i] for i in _shuffled(len(groups), seed, number)]
        cut = min(len(groups) - 1, max(1, round(fraction * len(groups))))
        val += [row for group in order[:cut] for row in group]
        train += [row for group in order[cut:] for row in group]
    return sorted(train), sorted(val), issues


def _shuffled(length: int, seed: int, number: int) -> list[int]:
    order: list[int] = torch.randperm(
        length, generator=generator(seed, Dice.SPLIT, number)
    ).tolist()
    return order


def common_side(facts: Sequence[Facts]) -> int:
    """Median shorter side in pixels."""
    sides = sorted(min(fact.width, fact.height) for fact in facts)
    if not sides:
        raise UsageError("no image can be read")
    return sides[len(sides) // 2]
