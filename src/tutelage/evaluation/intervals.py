"""How sure an accuracy is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.values import percent

Z = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers with its 95 % interval."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927)."""
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        """As in '83.1 % (81.4 to 84.7, 2,000 images)'."""
        low, high = self.interval
        images = "1 image" if self.total == 1 else f"{self.total:,} images"
        return f"{percent(self.value)} ({percent(low)} to {percent(high)}, {images})"


def wilson(right: float, total: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson 1927): always inside [0, 1]."""
    share, scale = right / total, 1 + Z * Z / total
    middle = (share + Z * Z / (2 * total)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def wilson_of_shares(mean: float, variance: float, total: int) -> tuple[float, float]:
    """The 95 % interval of the mean of shares, one an image, of their mean and variance.

    Wilson's, for as many yes-or-no images as would vary as much (Dean and Pagano 2015), fewer by
    what few images know of their variance (Korn and Graubard 1998): it holds up where nearly all
    shares are 0, which resampled images don't.
    """
    if variance <= 0:
        return wilson(mean * total, total)
    worth = total * mean * (1 - mean) / variance * (Z / student(total - 1)) ** 2
    return wilson(mean * worth, worth)


def student(freedom: int) -> float:
    """The quantile of 0.975 of Student's t, by four terms of Fisher and Cornish: from 3 degrees of
    freedom on to 1 %."""
    powers = [Z**power for power in (1, 3, 5, 7)]
    terms = ((1, 1, 0, 0, 4), (3, 16, 5, 0, 96), (-15, 17, 19, 3, 384))
    more = [
        math.fsum(f * p for f, p in zip(factors, powers, strict=True)) / (over * freedom**order)
        for order, (*factors, over) in enumerate(terms, 1)
    ]
    return Z + math.fsum(more)


def share_of_classes(per_class: Sequence[Accuracy]) -> tuple[float, float, float]:
    """The mean of the classes' accuracies, each class counting alike, and its 95 % interval.

    Zou and Donner 2008 (Statistics in Medicine 27), equation 2: limits of a sum from those of its
    terms, here Wilson's; unlike a normal interval it has a width also where a class is all right.
    """
    values = [found.value for found in per_class]
    mean = math.fsum(values) / len(values)
    pairs = [(value, found.interval) for value, found in zip(values, per_class, strict=True)]
    below = math.sqrt(math.fsum((value - low) ** 2 for value, (low, _) in pairs)) / len(pairs)
    above = math.sqrt(math.fsum((high - value) ** 2 for value, (_, high) in pairs)) / len(pairs)
    return mean, max(0.0, mean - below), min(1.0, mean + above)
