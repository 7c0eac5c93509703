"""The rules of selection on arrays: which images are sure enough, and how often each is taken.

Paper: Xie et al. 2020 (arXiv 1911.04252), section 3.1, and its reference code for `histogram`.
Deviation of `histogram`: its draws are a function of seed and image, so that neither parts nor
order matter; confidences are cut into hundredths in single precision, so that 0.29 is in bin 29.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tutelage.core import Dice, fold
from tutelage.settings import Select

Array: TypeAlias = NDArray[Any]
Answers: TypeAlias = Mapping[str, Array]  # columns id, label, confidence, energy, as far as read
T = TypeVar("T")

KEPT, SURPLUS = "kept", "class is full"
UNSURE, TOO_SURE = "below the threshold", "above the ceiling"
OUTSIDE, UNREADABLE = "out of distribution", "unreadable"
REASONS = (KEPT, SURPLUS, UNSURE, TOO_SURE, OUTSIDE, UNREADABLE)  # rows hold their place here

BINS = 101  # of a hundredth, as in the reference code
NOWHERE = -1  # a code that no image has


class Pool(Protocol):
    """A teacher's answers, to be gone through as often as needed."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def num_rows(self) -> int:
        """Number of images."""

    @property
    def id_bits(self) -> int:
        """All ids are below two to this power."""

    def scan(self, columns: tuple[str, ...], visit: Callable[[Answers], T]) -> Iterator[T]:
        """What `visit` makes of each portion, in order; it may be called by several threads."""


@dataclass(frozen=True)
class Key:
    """A place in an order: rows up to it have smaller codes, or equal ones and ids up to its."""

    codes: Array  # (G,) int64, of each group
    ids: Array  # (G,) int64

    def reached(self, groups: Array, codes: Array, ids: Array) -> Array:
        """Which rows (n,) come before it, or are it."""
        last = self.codes[groups]
        taken = codes < last
        ties = np.flatnonzero(codes == last)
        taken[ties] = ids[ties] <= self.ids[groups[ties]]
        return taken


def descending(values: Array, top: float) -> Array:
    """Codes (n,) int64 of float32 values: the larger the value, the smaller; `top` has 0."""
    return _monotone(np.float32(top)) - _monotone(values)


def code_bits(top: float, bottom: float) -> int:
    """Bits that the codes of values between them need."""
    return int(_monotone(np.float32(top)) - _monotone(np.float32(bottom))).bit_length()


def _monotone(values: Any) -> Any:
    """Whole numbers in the order of float32 values, without gaps; 0.0 and -0.0 are one."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def confidence_of(codes: Array, top: float) -> Array:
    """The values (n,) float32 at or above 0 that have these codes."""
    return (_monotone(np.float32(top)) - codes).astype(np.int32).view(np.float32)


def energy_codes(energy: Array) -> Array:
    """Codes (n,) of energies, highest first; what is no number comes last."""
    return descending(np.where(np.isnan(energy), np.float32(-np.inf), energy), np.inf)


def first_reasons(answers: Answers, rule: Select, floor: Key | None) -> Array:
    """Why images can't be kept (n,) uint8, KEPT where they could be."""
    confidence, labels = answers["confidence"], answers["label"]
    reasons = np.zeros(len(labels), np.uint8)
    reasons[confidence > rule.ceiling] = REASONS.index(TOO_SURE)
    reasons[~(confidence > rule.threshold)] = REASONS.index(UNSURE)
    if floor is not None:
        groups = np.zeros(len(labels), np.int64)
        near = floor.reached(groups, energy_codes(answers["energy"]), answers["id"])
        reasons[~near] = REASONS.index(OUTSIDE)
    reasons[labels < 0] = REASONS.index(UNREADABLE)
    return reasons


def bins_of(confidence: Array) -> Array:
    """The hundredth (n,) that each confidence lies in, 0 to 100."""
    hundredths = (confidence * np.float32(100)).astype(np.int64)
    return np.minimum(hundredths, BINS - 1)


def quota_of(counts: Array, rule: Select) -> int:
    """Images wanted of a class, out of those that could be kept of each (K,)."""
    if rule.per_class != "auto":
        return rule.per_class
    return int(counts.sum()) // max(1, int((counts > 0).sum()))


def cyclic_copies(images: int, quota: int) -> tuple[int, int]:
    """How often each of `images` is taken, and how many once more, surest first: `quota` in all."""
    return divmod(quota, images) if images else (0, 0)


def boundary_bin(counts: Array, quota: int) -> int:
    """The highest bin from which on upwards there are `quota` images of (101,), else the lowest."""
    enough = np.flatnonzero(counts[::-1].cumsum() >= quota)
    return BINS - 1 - int(enough[0]) if len(enough) else 0


@dataclass(frozen=True)
class Plan:
    """How often each image is taken, as a function of its answers alone."""

    rule: Select
    counts: Array  # (K,) int64, images of a class that could be kept
    quota: int  # images wanted of each class; 0 without balance
    each: Array  # (K,) int64, copies of every image that is taken
    more: Key  # exact: images up to it are taken once more
    lowest: Array  # (K,) int64, histogram: the bin from which on images are taken
    chance: Array  # (K,) int64, histogram: of one copy more, times 2**63
    salt: int = 0  # of the draws
    floor: Key | None = None  # the last energy that is in distribution

    @property
    def columns(self) -> tuple[str, ...]:
        """What `apply` reads."""
        return ("id", "label", "confidence", *(("energy",) if self.floor is not None else ()))

    def apply(self, answers: Answers) -> tuple[Array, Array]:
        """Copies (n,) int32, and the place of the reason in REASONS (n,) uint8."""
        reasons = first_reasons(answers, self.rule, self.floor)
        rows = np.flatnonzero(reasons == REASONS.index(KEPT))
        labels, ids = answers["label"][rows], answers["id"][rows]
        confidence = answers["confidence"][rows]
        taken = self.each[labels]
        if self.rule.mode == "histogram":
            taken += draws(ids, self.salt) < self.chance[labels]
            taken[bins_of(confidence) < self.lowest[labels]] = 0
        else:
            taken += self.more.reached(labels, descending(confidence, self.rule.ceiling), ids)
        copies = np.zeros(len(reasons), np.int32)
        copies[rows] = np.minimum(taken, self.rule.max_copies)
        reasons[rows[taken == 0]] = REASONS.index(SURPLUS)
        return copies, reasons


def salt_of(seed: int) -> int:
    """What makes the draws of one seed other than those of another."""
    return fold(seed, Dice.SELECT, 0)


def draws(ids: Array, salt: int) -> Array:
    """A draw (n,) int64 in [0, 2**63) for each id: SplitMix64 (Steele et al. 2014) of both."""
    state = ids.astype(np.uint64) + np.uint64(salt) * np.uint64(2) + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
