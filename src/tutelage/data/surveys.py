"""What is odd about a part as a whole: few images of a class, sizes, colors, blank images."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.data.facts import Facts, Part
from tutelage.data.issues import Issue
from tutelage.errors import UsageError

FEW = 5  # usable images of a class, below which it is said
UNEVEN = 10  # largest class over the smallest, above which it is said
SMALL = 0.25  # of the part's common side: an image below has lost most of its detail
MIXED = 8  # 95th over 5th percentile of the shorter sides, above which it is said
LONG = 4  # longer side over the shorter, above which the center square shows little
RARE = 0.1  # share of images, below which a color mode is odd


def surveys(part: Part, name: str) -> list[Issue]:
    """Notes on one part's usable images."""
    if not part.facts:
        return []
    found = [*_classes(part, name)] if name == "labeled" else []
    return [*found, *_sizes(part, name), *_colors(part, name)]


def common_side(facts: Sequence[Facts]) -> int:
    """Median shorter side in pixels."""
    sides = sorted(min(fact.width, fact.height) for fact in facts)
    if not sides:
        raise UsageError("no image can be read: `tutelage check` says why, image by image")
    return sides[len(sides) // 2]


def _classes(part: Part, name: str) -> Iterator[Issue]:
    """Classes with few images, and classes of very different size."""
    place, classes, counts = part.images.source.address, part.images.classes, part.images.counts()
    for one, count in zip(classes, counts, strict=True):
        if 0 < count < FEW:
            images = "image" if count == 1 else "images"
            detail = f"class {one!r} has only {count} usable {images}: add some if you can"
            yield Issue("note", "tiny class", name, place, detail)
    least, most = min(counts), max(counts)
    if least and most > UNEVEN * least:
        large, small = classes[counts.index(most)], classes[counts.index(least)]
        detail = (
            f"class {large!r} has {most:,} images and {small!r} {least:,}, {most / least:.0f} "
            "times fewer: rare classes will be learned less well, so look at accuracy by class"
        )
        yield Issue("note", "imbalance", name, place, detail)


def _sizes(part: Part, name: str) -> Iterator[Issue]:
    """Images far smaller than most, very long ones, and parts of very mixed sizes."""
    sides = _numbers(part, lambda fact: min(fact.width, fact.height))
    longer = _numbers(part, lambda fact: max(fact.width, fact.height))
    usual = common_side(part.facts)
    small, long = sides < SMALL * usual, longer > LONG * sides
    for row in np.flatnonzero(small & ~long).tolist():
        yield _about(part, row, name, "very small", f"where {usual} pixels are usual")
    for row in np.flatnonzero(long).tolist():
        why = "is very long: it is judged by its center square alone"
        yield _about(part, row, name, "very long", why)
    low, high = np.quantile(sides, [0.05, 0.95])
    if high > MIXED * low:
        detail = f"shorter sides are from {low:.0f} to {high:.0f} pixels, but for a tenth"
        yield Issue("note", "mixed sizes", name, part.images.source.address, detail)


def _about(part: Part, row: int, name: str, kind: str, why: str) -> Issue:
    fact = part.facts[row]
    detail = f"{fact.width} x {fact.height} pixels {why}"
    return Issue("note", kind, name, part.images.where(row), detail)


def _colors(part: Part, name: str) -> Iterator[Issue]:
    """One-color images, animations, the few gray among color or color among gray, odd modes."""
    gray = _numbers(part, lambda fact: fact.gray)
    odd = [(gray == 1, "gray among color")] if gray.mean() < RARE else []
    if gray.mean() > 1 - RARE:
        odd = [(gray == 0, "color among gray")]
    for rows, kind in odd:
        share = f"{rows.sum():,} of {len(rows):,} images are"
        for row in np.flatnonzero(rows).tolist():
            detail = f"{share} {kind}: a class must not be told by that alone"
            yield Issue("note", kind, name, part.images.where(row), detail)
    for row, fact in enumerate(part.facts):
        place = part.images.where(row)
        if fact.flat:
            yield Issue("note", "one color", name, place, "all pixels are alike: nothing to see")
        if fact.animated:
            yield Issue("note", "animated", name, place, "has several frames: the first is used")
        if fact.mode not in ("RGB", "L", "P", "RGBA", "1", "LA"):
            detail = f"the file's colors are {fact.mode}, turned into RGB for training"
            yield Issue("note", "color mode", name, place, detail)


def _numbers(part: Part, of: Callable[[Facts], int]) -> NDArray[np.int64]:
    return np.array([of(fact) for fact in part.facts], np.int64)
