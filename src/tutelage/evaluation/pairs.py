"""Several models on the same images: every pair compared, corrected for how many pairs there are.

Intervals hold together, all of them at once in 95 % of cases, by Bonferroni's correction of the
paired bootstrap (Dunn 1961). McNemar's p-values are corrected by Holm's step-down procedure
(Holm 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import NormalDist
from typing import Any, Literal

from torch import Tensor

from tutelage.evaluation.paired import RESAMPLES, WORTH, Paired, compare

ALPHA = 0.05  # of all pairs together
MOST = 20  # times the resamples of one pair, which keeps 190 pairs to a quarter of a minute


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Accuracy of `second` minus accuracy of `first`, as one of several pairs."""

    first: str
    second: str
    paired: Paired  # whose interval is the corrected one, and whose p-value is not
    p_holm: float  # McNemar's p-value after Holm's correction
    num_pairs: int

    @property
    def outcome(self) -> Literal["better", "worse", "open"]:
        """What `second` is beside `first`; decided only where interval and test agree."""
        if self.p_holm < ALPHA and self.paired.low > 0:
            return "better"
        if self.p_holm < ALPHA and self.paired.high < 0:
            return "worse"
        return "open"

    @property
    def images_to_decide(self) -> int:
        """Images at which a difference of this size, or of 1 point, shows 4 times in 5 in the
        corrected interval."""
        return self.paired.images_needed(_z(self.num_pairs))

    def sentence(self) -> str:
        """The outcome in words, the better model first."""
        if self.paired.gained < self.paired.lost:
            return self.turned().sentence()
        paired = self.paired
        points, low, high = (
            f"{100 * value:+.1f}" for value in (paired.difference, paired.low, paired.high)
        )
        sure = (
            "95 % interval"
            if self.num_pairs == 1
            else f"95 % for all {self.num_pairs} pairs together"
        )
        if self.outcome != "open":
            return (
                f"{self.second} is better than {self.first}: {points} points "
                f"({low} to {high}; {sure})"
            )
        span = f"{self.second} against {self.first} {points} points ({low} to {high}; {sure})"
        if paired.low > 0:
            span += f", and McNemar's exact test is not sure (p = {self.p_holm:.2f})"
        needed = f"about {self.images_to_decide:,} images would"
        if paired.difference >= WORTH:
            return f"no difference shown: {span}; {needed} decide it"
        return f"no difference shown: {span}; {needed} show a difference of 1 point"

    def turned(self) -> "Pair":
        """The same, seen from the other model."""
        return replace(self, first=self.second, second=self.first, paired=_turned(self.paired))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "first": self.first, "second": self.second, "difference": self.paired.difference,
            **asdict(self.paired), "p_holm": self.p_holm, "outcome": self.outcome,
            "images_to_decide": self.images_to_decide, "sentence": self.sentence(),
        }  # fmt: skip


def all_pairs(right: Mapping[str, Tensor], *, seed: int = 0) -> tuple[Pair, ...]:
    """Every pair of models by which images (N,) bool each gets right, in the order given.

    Another order of the models turns signs and nothing else. As the tails get thinner with more
    pairs, there are as many more resamples: each tail holds 500, or 50 for 20 models.
    """
    return _pairs(list(combinations(right, 2)), right, seed=seed)


def pairs_with(one: str, right: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    """One model beside each other one, corrected for as many pairs as these are."""
    return _pairs([(other, one) for other in right if other != one], right, seed=0)


def _pairs(
    names: Sequence[tuple[str, str]], right: Mapping[str, Tensor], *, seed: int
) -> tuple[Pair, ...]:
    """These pairs, corrected for how many they are."""
    found = [_compared(right[a], right[b], seed=seed, num_pairs=len(names)) for a, b in names]
    p_values = holm([paired.p_value for paired in found])
    return tuple(
        Pair(first=a, second=b, paired=paired, p_holm=p, num_pairs=len(names))
        for (a, b), paired, p in zip(names, found, p_values, strict=True)
    )


def _compared(first: Tensor, second: Tensor, *, seed: int, num_pairs: int) -> Paired:
    """The comparison at the corrected level, drawn from the worse model to the better one."""
    turn = int(first.sum()) > int(second.sum())
    one, other = (second, first) if turn else (first, second)
    resamples = RESAMPLES * min(num_pairs, MOST)
    found = compare(one, other, seed=seed, alpha=ALPHA / num_pairs, resamples=resamples)
    if found.gained == found.lost:  # whose distribution is symmetric, and whose draws are not
        half = (found.high - found.low) / 2
        found = replace(found, low=0 - half, high=half)
    return _turned(found) if turn else found


def _turned(paired: Paired) -> Paired:
    """The same, seen from the other model."""
    return replace(
        paired, gained=paired.lost, lost=paired.gained, low=0 - paired.high, high=0 - paired.low
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction: the smallest times n, the next times n - 1, …

    A larger one never falls below a smaller one, and none exceeds 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = least
    return found


def _z(num_pairs: int) -> float:
    """Standard errors to each side of the corrected interval."""
    return NormalDist().inv_cdf(1 - ALPHA / num_pairs / 2)
