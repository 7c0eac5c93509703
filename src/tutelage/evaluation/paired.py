"""Two models on the same images: the difference, its interval, and what it means."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from tutelage.core import Dice, fold
from tutelage.evaluation.intervals import Z

RESAMPLES = 20_000
POWER = 0.841621  # standard normal quantile of 0.8: the chance to see the difference
WORTH = 0.01  # the difference that a user would care about, where none was seen: 1 point


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Accuracy of `after` minus accuracy of `before`, on the same images."""

    total: int  # images
    gained: int  # right only after
    lost: int  # right only before
    low: float  # bootstrap interval of the difference: 95 %, where nothing else was asked for
    high: float
    p_value: float  # McNemar's exact test

    @property
    def difference(self) -> float:
        """After minus before, as a share."""
        return (self.gained - self.lost) / self.total

    @property
    def points(self) -> str:
        """The difference in points with its interval, as in '-2.1 (-2.9 to -1.3)'."""
        middle, low, high = (100 * one for one in (self.difference, self.low, self.high))
        return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"

    @property
    def outcome(self) -> Literal["help", "hurt", "open"]:
        """Decided only where the interval leaves out 0 and McNemar's test agrees."""
        if self.p_value < 0.05 and self.low > 0:
            return "help"
        if self.p_value < 0.05 and self.high < 0:
            return "hurt"
        return "open"

    @property
    def images_to_decide(self) -> int:
        """Images to judge on at which a difference of this size, or of 1 point, shows 4 times in 5.

        Normal approximation of the paired test: (z_0.975 + z_0.8)^2 (d - delta^2) / delta^2, with
        d the share of images on which the two differ and delta the difference in accuracy.
        """
        return self.images_needed(Z)

    def images_needed(self, z: float) -> int:
        """As `images_to_decide`, for an interval of z standard errors to each side."""
        spread = max(self.gained + self.lost, 1) / self.total
        difference = max(abs(self.difference), WORTH)
        variance = max(spread - difference**2, 0)
        return max(self.total + 1, math.ceil((z + POWER) ** 2 * variance / difference**2))


def compare(
    before: Tensor, after: Tensor, *, seed: int = 0, alpha: float = 0.05,
    resamples: int = RESAMPLES,
) -> Paired:  # fmt: skip
    """Compare two models by which images (N,) bool each gets right, at 1 - alpha.

    The paired bootstrap (Efron 1979) resamples images. As an image's difference is 1, 0 or -1,
    a resample is one multinomial draw. McNemar's exact test (1947) looks at the images on which
    the two disagree.
    """
    if before.shape != after.shape or not len(before):
        raise ValueError(f"need the same images, got {tuple(before.shape)}, {tuple(after.shape)}")
    total = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    rng = np.random.default_rng(fold(seed, Dice.BOOTSTRAP, 0))
    shares = [gained / total, lost / total, 1 - (gained + lost) / total]
    draws = rng.multinomial(total, shares, size=resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / total, [alpha / 2, 1 - alpha / 2])
    return Paired(
        total=total, gained=gained, lost=lost, low=float(low), high=float(high),
        p_value=mcnemar(gained, lost),
    )  # fmt: skip


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that gains and losses are equally likely."""
    n, k = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))


def sentence(paired: Paired, images: str, cause: str = "the unlabeled images") -> str:
    """The verdict in words; `images` says which images judged, as in '360 test images', and
    `cause` what the second model had and the first had not."""
    points, low, high = (
        f"{100 * value:+.1f}" for value in (paired.difference, paired.low, paired.high)
    )
    span = f"{points} points ({low} to {high}, 95 % interval, {images})"
    if paired.outcome == "open" and (paired.low > 0 or paired.high < 0):
        span += f", and McNemar's exact test is not sure either way (p = {paired.p_value:.2f})"
    if paired.outcome == "help":
        return f"{cause} help: {span}"
    if paired.outcome == "hurt":
        return f"{cause} hurt: {span}"
    needed = f"{paired.images_to_decide:,}"
    if abs(paired.difference) >= WORTH:
        return f"no gain shown: {span}; about {needed} labeled test images would decide it"
    return f"no gain shown: {span}; about {needed} labeled test images would show a gain of 1 point"
