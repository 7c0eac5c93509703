"""How far a model's confidence is from its share of right answers, and how good its probabilities.

Paper: Guo et al. 2017 (arXiv 1706.04599), equations 2 to 5: expected and maximum calibration error
of bins of equal width; Nguyen and O'Connor 2015 (arXiv 1508.05154), section 4: bins of equal mass
and the root mean square; Brier 1950. Deviation: an edge belongs to the bin above it, and 1 to the
last one; images of equal confidence are never divided between bins of equal mass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Dice, fold
from tutelage.evaluation.intervals import wilson

BINS = 15
DRAWS = 400  # simulated data sets
MOST_DRAWN = 20_000_000  # simulated answers in all
PORTION = 2_000_000  # random numbers in memory at once
ROWS = 4096  # images whose probabilities are in double precision at once
TINY = 1e-38  # the smallest probability whose logarithm is taken; float32 has none below

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: what is claimed, and what is right, bin by bin."""

    rule: str  # 'width' or 'mass'
    edges: tuple[float, ...]  # one more than bins
    count: tuple[int, ...]  # images
    confidence: tuple[float, ...]  # mean; of an empty bin its middle
    right: tuple[int, ...]  # images with a right answer

    @property
    def total(self) -> int:
        """Images in all bins."""
        return sum(self.count)

    @property
    def accuracy(self) -> tuple[float | None, ...]:
        """The share of right answers; None where a bin is empty."""
        pairs = zip(self.right, self.count, strict=True)
        return tuple(right / count if count else None for right, count in pairs)

    @property
    def intervals(self) -> tuple[tuple[float, float] | None, ...]:
        """Wilson's 95 % interval of each accuracy; None where a bin is empty."""
        pairs = zip(self.right, self.count, strict=True)
        return tuple(wilson(right, count) if count else None for right, count in pairs)

    @property
    def expected(self) -> float:
        """Expected calibration error: the mean gap, weighted by images."""
        return float(self._weights @ self._gaps)

    @property
    def largest(self) -> float:
        """Maximum calibration error: the largest gap of a bin."""
        return float(self._gaps.max(initial=0.0))

    @property
    def rms(self) -> float:
        """The root of the mean squared gap, weighted by images."""
        return float(np.sqrt(self._weights @ self._gaps**2))

    @property
    def _weights(self) -> Numbers:
        return np.array(self.count) / max(1, self.total)

    @property
    def _gaps(self) -> Numbers:
        count = np.array(self.count)
        gaps = np.abs(np.array(self.right) / np.maximum(count, 1) - np.array(self.confidence))
        return np.where(count > 0, gaps, 0.0)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **{
                name: value if name == "rule" else list(value) for name, value in vars(self).items()
            },
            "accuracy": list(self.accuracy),
            "interval": [None if one is None else list(one) for one in self.intervals],
        }


def width_bins(confidence: Tensor, right: Tensor, *, bins: int = BINS) -> Bins:
    """Bins of equal width over [0, 1], of confidences (N,) and right answers (N,) bool."""
    place = (confidence * bins).long().clamp(max=bins - 1)  # in its own precision: 0.9 is an edge
    edges = np.arange(bins + 1) / bins
    return _filled("width", edges, place.numpy(), confidence.double().numpy(), right.numpy())


def mass_bins(confidence: Tensor, right: Tensor) -> Bins:
    """At most 15 bins of about as many images each, in the order of confidence."""
    values = confidence.double().numpy()
    starts = np.sort(values)[np.arange(1, BINS) * len(values) // BINS] if len(values) else values
    inner = np.unique(starts)
    inner = inner[inner > values.min(initial=np.inf)]
    edges = np.concatenate([[values.min(initial=1.0)], inner, [values.max(initial=0.0)]])
    return _filled("mass", edges, np.searchsorted(inner, values, side="right"), values,
                   right.numpy())  # fmt: skip


def _filled(
    rule: str, edges: Numbers, place: NDArray[np.int64], values: Numbers, right: NDArray[np.bool_]
) -> Bins:
    """The bins, from each image's place."""
    bins = len(edges) - 1
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, values, bins)
    middle = (edges[:-1] + edges[1:]) / 2
    mean = np.where(count > 0, total / np.maximum(count, 1), middle)
    hits = np.bincount(place, right, bins).astype(np.int64)
    return Bins(
        rule, tuple(edges.tolist()), tuple(count.tolist()), tuple(mean.tolist()),
        tuple(hits.tolist()),
    )  # fmt: skip


def expected_error(confidence: Tensor, right: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error, bins of equal width, of confidences (N,) and right (N,) bool.

    It is above 0 for a perfect model, too, and the more so the fewer images: see `by_chance`.
    """
    return width_bins(confidence, right, bins=bins).expected


def by_chance(
    confidence: Tensor, make: Callable[[Tensor, Tensor], Bins] = width_bins
) -> tuple[float, float]:
    """The expected calibration error that a perfectly calibrated model would show on so many images
    with these confidences (N,): its mean, and the value that 95 % stay below.

    By simulation: each image is right with the probability that the model claims.
    """
    values = confidence.double().numpy()
    if not len(values):
        return 0.0, 0.0
    edges = np.array(make(confidence, confidence > 2).edges)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    claimed = np.add.reduceat(values[order], starts)
    rng = np.random.default_rng(fold(0, Dice.CALIBRATION, 0))
    draws = max(50, min(DRAWS, MOST_DRAWN // len(values)))
    found: list[float] = []
    while len(found) < draws:
        rows = min(draws - len(found), max(1, PORTION // len(values)))
        hits = rng.random((rows, len(values)), dtype=np.float32) < values[order]
        sums = np.add.reduceat(hits, starts, axis=1, dtype=np.float64)
        found += (np.abs(sums - claimed).sum(1) / len(values)).tolist()
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def log_losses(probs: Tensor, labels: Tensor) -> Tensor:
    """Each image's negative log-likelihood (N,) float64, of probs (N, K) and labels (N,)."""
    true = probs.gather(1, labels[:, None])[:, 0].double()
    return -true.clamp(min=TINY).log()


def brier_scores(probs: Tensor, labels: Tensor) -> Tensor:
    """Each image's Brier score (N,) float64: the squared distance of probs (N, K) from the truth,
    summed over classes, 0 to 2."""
    true = probs.gather(1, labels[:, None])[:, 0].double()
    squares = [some.double().square().sum(-1) for some in probs.split(ROWS)]  # small copies
    return torch.cat(squares) - 2 * true + 1
