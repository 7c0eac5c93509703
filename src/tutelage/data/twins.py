"""Images that are there twice, as they are or nearly, and where that flatters or misleads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.facts import Part
from tutelage.data.issues import Issue
from tutelage.data.near import BITS, near_pairs
from tutelage.data.source import Images

FAR = 255  # bits: no near image was found
ADVICE = {
    "near duplicate": "a second view of the same adds little",
    "may be mislabeled": "one of the two labels may be wrong: look at both",
    "looks like test": "accuracy on test flatters: take one of the two out",
    "looks like val": "accuracy on val flatters: take one of the two out",
}


@dataclass(frozen=True)
class Pair:
    """Two images that look alike."""

    kind: str
    part: str
    image: tuple[Images, int]
    other_part: str
    other: tuple[Images, int]
    bits: int  # of 64 that differ


def repeated(parts: Mapping[str, Part]) -> list[Issue]:
    """Copies within each part, and labeled images in the pool; none of them does harm."""
    issues = []
    for name, part in parts.items():
        for rows in part.copies().values():
            if len(rows) > 1:
                detail = f"is there {len(rows)} times, also as {part.images.where(rows[1])}"
                issues.append(Issue("note", "copies", name, part.images.where(rows[0]), detail))
    if "pool" in parts:
        pool = parts["pool"]
        same = pool.also_in(parts["labeled"])[0]
        if same:
            detail = f"{len(same):,} of {len(pool.images):,} pool images are labeled ones, too"
            issues.append(Issue("note", "also labeled", "pool", pool.images.source.address, detail))
    return issues


def look_alikes(parts: Mapping[str, Part]) -> tuple[list[Issue], list[Pair]]:
    """Near duplicates within the labels, and of validation and test images anywhere else."""
    pairs = _within(parts["labeled"])
    for judge in ("test", "val"):
        for name in ("labeled", "val", "pool"):
            before = judge == "test" or name != "val"
            if judge in parts and name in parts and name != judge and before:
                pairs += _across(parts, name, judge)
    issues = [
        Issue("note", pair.kind, pair.part, pair.image[0].where(pair.image[1]), _words(pair))
        for pair in pairs
    ]
    return issues, pairs


def _words(pair: Pair) -> str:
    images, row = pair.other
    labels = []
    for some, one in (pair.image, pair.other):
        if some.labels is not None and pair.kind == "may be mislabeled":
            labels.append(some.classes[some.labels[one]])
    said = f" ({labels[1]}; this one: {labels[0]})" if labels else ""
    where = f"looks like {images.where(row)}{said}"
    return f"{where}, {pair.bits} of {BITS} bits apart: {ADVICE[pair.kind]}"


def _hashes(part: Part) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows that have a look of their own, the first of each content, and their hashes."""
    rows = [rows[0] for rows in part.copies().values() if not part.facts[rows[0]].flat]
    looks = np.array([part.facts[row].look for row in rows], np.uint64)
    return np.array(rows, np.int64), looks


def _within(part: Part) -> list[Pair]:
    """The nearest earlier image of each labeled one, of its class, and of another."""
    rows, hashes = _hashes(part)
    labels = np.array(part.images.labels or (), np.int64)[rows]
    nearest = {kind: _Nearest(len(rows)) for kind in ("near duplicate", "may be mislabeled")}
    for first, second, bits in near_pairs(hashes):
        same = labels[first] == labels[second]
        nearest["near duplicate"].add(second[same], first[same], bits[same])
        nearest["may be mislabeled"].add(second[~same], first[~same], bits[~same])
    return [
        Pair(kind, "labeled", (part.images, int(rows[row])), "labeled",
             (part.images, int(rows[other])), bits)
        for kind, found in nearest.items() for row, other, bits in found.pairs()
    ]  # fmt: skip


def _across(parts: Mapping[str, Part], name: str, judge: str) -> list[Pair]:
    """The nearest judged image of each image of another part."""
    part, judged = parts[name], parts[judge]
    (rows, hashes), (places, looks) = _hashes(part), _hashes(judged)
    nearest = _Nearest(len(rows))
    for first, second, bits in near_pairs(looks, hashes):
        nearest.add(second, first, bits)
    return [
        Pair(f"looks like {judge}", name, (part.images, int(rows[row])), judge,
             (judged.images, int(places[other])), bits)
        for row, other, bits in nearest.pairs()
    ]  # fmt: skip


class _Nearest:
    """The nearest other image of each, as pairs come in; memory doesn't grow with them."""

    def __init__(self, rows: int) -> None:
        """None is known yet."""
        self.bits = np.full(rows, FAR, np.uint8)
        self.other = np.zeros(rows, np.int64)

    def add(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], bits: NDArray[np.uint8]
    ) -> None:
        """Take in pairs; of equally near ones, the lower row."""
        order = np.lexsort((-others, -bits.astype(np.int64)))  # the best is written last
        rows, others, bits = rows[order], others[order], bits[order]
        closer = bits < self.bits[rows]
        closer |= (bits == self.bits[rows]) & (others < self.other[rows])
        self.bits[rows[closer]], self.other[rows[closer]] = bits[closer], others[closer]

    def pairs(self) -> list[tuple[int, int, int]]:
        """Row, other row and bits that differ, for each that has one."""
        return [
            (row, int(self.other[row]), int(self.bits[row]))
            for row in np.flatnonzero(self.bits < FAR).tolist()
        ]
