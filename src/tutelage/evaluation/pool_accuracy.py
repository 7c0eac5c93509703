"""How many of a pool's labels are right, without truth, from a few judged images like it.

Paper: Angelopoulos et al. 2023 (arXiv 2301.09633), the mean: the average of the calibrated
confidences over the pool, plus the average of (right - confidence) over the judged images.
Deviation: what is asked about is this very pool, so the second sampling error is that of its
residuals; and the interval is that of Agresti and Coull 1998: two right and two wrong images more,
so that it has a width also where all of a few images are right.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.evaluation.calibration import Bins
from tutelage.evaluation.intervals import Z

CONFIDENCE_BINS = 10
SMALLEST = 3e-8  # half of the smallest number of float16, which is stored as 0

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """The share of right labels among some of a pool's images."""

    images: int
    value: float
    low: float  # 95 % interval
    high: float
    judged: int  # images with known truth that it rests on

    def __str__(self) -> str:
        """As in '83 % (79 to 87 %)'."""
        return f"{100 * self.value:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f} %)"


@dataclass(frozen=True)
class Answered:
    """A teacher's answers on some images."""

    labels: Tensor  # (N,) the surest class
    surest: Tensor  # (N,) its probability as the network has it
    confidence: Tensor  # (N,) float64, calibrated


@dataclass(frozen=True)
class Quality:
    """Estimated accuracy of a pool's labels: of all, of those kept, by class, by confidence."""

    temperature: float
    overall: Estimate
    kept: Estimate
    per_class: tuple[tuple[str, Estimate], ...]  # by the class that they are labeled as
    per_bin: tuple[tuple[float, float, Estimate], ...]  # by calibrated confidence, from and to

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "temperature": self.temperature,
            "overall": vars(self.overall),
            "kept": vars(self.kept),
            "per_class": [{"class": name} | vars(found) for name, found in self.per_class],
            "per_bin": [
                {"from": low, "to": high} | vars(found) for low, high, found in self.per_bin
            ],
        }

    def line(self) -> str:
        """For the terminal."""
        kept = self.kept
        return (
            f"about {100 * kept.value:.0f} % of the {kept.images:,} kept labels are right "
            f"({100 * kept.low:.0f} to {100 * kept.high:.0f} %), judged from "
            f"{self.overall.judged:,} validation images, if the pool is like them"
        )


def stored_top(probs: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (N, K) as a label table keeps them: top classes (N, k), their probabilities
    in half precision, and that of the surest in full (N,)."""
    best = probs.topk(min(top, probs.shape[-1]), -1)
    return best.indices, best.values.half().float(), best.values[:, 0]


def tempered_top(
    top_probs: Tensor, surest: Tensor, num_classes: int, temperature: float
) -> Tensor:  # fmt: skip
    """The surest class's probability (N,) float64 at a temperature, from top probabilities (N, k)
    in half precision and the surest in full (N,); the rest spreads over the other classes."""
    first, others = surest.double(), top_probs[:, 1:].double()
    unnamed = num_classes - top_probs.shape[1]
    logs = [first.clamp(min=SMALLEST).log()[:, None], others.clamp(min=SMALLEST).log()]
    if unnamed > 0:
        rest = (1 - first - others.sum(-1)).clamp(min=unnamed * SMALLEST) / unnamed
        logs.append(rest.log()[:, None])
    scaled = torch.cat(logs, 1) / temperature
    if unnamed > 0:
        scaled[:, -1] += math.log(unnamed)
    return scaled.softmax(-1)[:, 0]


def share_right(pool: Tensor, judged: Tensor, right: Tensor) -> Estimate:
    """The share of right labels of pool images with calibrated confidences (N,), from judged images
    like them with confidences (M,), some of which are right (M,) bool."""
    residuals = (right.double() - judged.double()).numpy()
    mean = float(pool.double().mean()) if len(pool) else 0.0
    return _estimate(mean, len(pool), residuals, np.ones(len(residuals)))


def share_right_from_bins(mean: float, images: int, bins: Bins) -> Estimate:
    """The same from the mean confidence of a pool of so many images, where of the judged images
    only a reliability diagram is known."""
    count, right = np.array(bins.count, np.float64), np.array(bins.right, np.float64)
    confidence = np.array(bins.confidence)
    values = np.concatenate([1 - confidence, -confidence])
    return _estimate(mean, images, values, np.concatenate([right, count - right]))


def _estimate(mean: float, images: int, residuals: Numbers, weights: Numbers) -> Estimate:
    """Mean confidence plus mean residual, of residuals that stand for `weights` images each."""
    judged = float(weights.sum())
    shift = float(weights @ residuals) / judged if judged else 0.0
    more = np.concatenate([residuals, [1 - mean, -mean]])
    counts = np.concatenate([weights, [2.0, 2.0]])
    middle = float(counts @ more) / (judged + 4)
    variance = float(counts @ (more - middle) ** 2) / (judged + 4)
    half = Z * math.sqrt(variance * (1 / (judged + 4) + 1 / max(1, images)))
    value = min(1.0, max(0.0, mean + shift))
    low, high = max(0.0, mean + middle - half), min(1.0, mean + middle + half)
    return Estimate(images, value, min(low, value), max(high, value), round(judged))


def quality(
    pool: Answered, kept: Tensor, judged: Answered, truth: Tensor, *, classes: tuple[str, ...],
    temperature: float, ceiling: float = 1.0,
) -> Quality:  # fmt: skip
    """The accuracy of a pool's labels, of which some are kept (N,) bool, from judged images with
    the true classes (M,); `ceiling` is the raw confidence up to which any are kept."""
    right = judged.labels == truth
    alike = _kept_alike(pool, kept, judged, len(classes), ceiling)

    def among(some: Tensor, like: Tensor) -> Estimate:
        return share_right(pool.confidence[some], judged.confidence[like], right[like])

    everywhere = torch.ones(len(pool.labels), dtype=torch.bool)
    per_class = tuple(
        (name, among(pool.labels == k, judged.labels == k))
        for k, name in enumerate(classes)
        if (pool.labels == k).any()
    )
    place, its = _places(pool.confidence), _places(judged.confidence)
    per_bin = tuple(
        (k / CONFIDENCE_BINS, (k + 1) / CONFIDENCE_BINS, among(place == k, its == k))
        for k in range(CONFIDENCE_BINS)
        if (place == k).any()
    )
    return Quality(
        temperature, among(everywhere, torch.ones_like(right)), among(kept, alike), per_class,
        per_bin,
    )  # fmt: skip


def _places(confidence: Tensor) -> Tensor:
    """The bin of each confidence (N,)."""
    return (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)


def _kept_alike(
    pool: Answered, kept: Tensor, judged: Answered, num_classes: int, ceiling: float
) -> Tensor:
    """The judged images (M,) bool that would have been kept: as sure, by the network's own
    probability, as the least sure image that was kept of their class. No cut by energy."""
    least = torch.full((num_classes,), math.inf)
    least.scatter_reduce_(0, pool.labels[kept], pool.surest[kept].float(), "amin")
    return (judged.surest.float() >= least[judged.labels]) & (judged.surest <= ceiling)
