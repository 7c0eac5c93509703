"""When to answer "unknown": the confidence from which on answers keep to a stated error rate.

Paper: Geifman and El-Yaniv 2017 (arXiv 1705.08500), algorithm 1: a binary search over thresholds,
each tested by the exact binomial bound at delta divided by the number of steps. Deviations: at most
1,000 thresholds are searched; none that so few images reach that not even all right answers among
them would do; and the widest that passed is taken, not the last that was tried.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.errors import UsageError
from tutelage.evaluation.intervals import wilson

MOST = 1_000  # thresholds of a curve
DELTA = 0.05  # the chance that the promise is broken
FINEST = 0.001  # to which the lowest rate is said


@dataclass(frozen=True)
class Curve:
    """How many judged images are answered from each threshold on, and how many of them wrongly."""

    total: int  # images
    thresholds: tuple[float, ...]  # confidences, the highest first; answered is what reaches it
    accepted: tuple[int, ...]
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class Threshold:
    """A confidence from which on to answer, and what it promises."""

    confidence: float
    bound: float  # the error rate among answers stays below, with 95 % confidence
    answered: float  # share of images that are expected to be answered
    low: float  # its 95 % interval
    high: float


def reject_curve(confidence: Tensor, right: Tensor) -> Curve:
    """The curve of confidences (N,) and right answers (N,) bool; evenly thinned to 1,000."""
    values = confidence.double().numpy()
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    wrong = np.cumsum(~right.numpy()[order])
    last = np.flatnonzero(np.diff(ordered, append=-1.0))  # of the images of equal confidence
    if len(last) > MOST:
        last = last[np.unique(np.linspace(0, len(last) - 1, MOST).round().astype(np.int64))]
    return Curve(
        len(values), tuple(ordered[last].tolist()), tuple((last + 1).tolist()),
        tuple(wrong[last].tolist()),
    )  # fmt: skip


def find_threshold(curve: Curve, rate: float) -> Threshold | None:
    """The widest threshold found whose answers are wrong at most at this rate, with confidence
    1 - DELTA over the drawing of the judged images; None where none can be shown."""
    best: Threshold | None = None
    for place, bound, passed in _search(curve, rate):
        if passed:
            best = _threshold(curve, place, bound)
    return best


def threshold_for(curve: Curve, rate: float) -> Threshold:
    """`find_threshold`; raises UsageError, with the lowest rate that can be shown and the images
    that this one would take, where there is none."""
    found = find_threshold(curve, rate)
    if found is not None:
        return found
    lowest, needed = lowest_rate(curve), images_needed(curve, rate)
    can = "they show no rate at all"
    if lowest is not None:
        can = f"the least that they show is {_percent(lowest)}"
    many = "more" if needed is None else f"about {needed:,}"
    would = "might" if needed is None else "would"
    more = (
        f"; {many} labeled images that training has not seen {would} show it: "
        "`tutelage calibrate` takes them"
    )
    raise UsageError(
        f"{curve.total:,} images are too few, or answered too badly, to show that at most "
        f"{_percent(rate)} of the answers are wrong: {can}{more}"
    )


def lowest_rate(curve: Curve) -> float | None:
    """The lowest rate, in steps of 0.1 %, that a threshold can be found for; None: none below 1."""
    low, high = 0, round(1 / FINEST)
    while high - low > 1:
        middle = (low + high) // 2
        if find_threshold(curve, middle * FINEST) is None:
            low = middle
        else:
            high = middle
    return high * FINEST if high * FINEST < 1 else None


def images_needed(curve: Curve, rate: float) -> int | None:
    """About how many images like these would show the rate; None where no threshold has it."""
    per_step = DELTA / _steps(curve)
    best: int | None = None
    for place in range(0, len(curve.thresholds), max(1, len(curve.thresholds) // 50)):
        accepted, wrong = curve.accepted[place], curve.wrong[place]
        share = wrong / accepted if wrong else min(0.5 / (accepted + 1), rate / 2)
        if share < rate:
            images = _enough(share, rate, per_step)
            total = math.ceil(images * curve.total / accepted)
            best = total if best is None else min(best, total)
    if best is None:
        return None
    digits = 10 ** max(0, len(str(best)) - 2)
    return max(-(-best // digits) * digits, math.ceil(1.1 * curve.total))


def _enough(share: float, rate: float, delta: float) -> int:
    """Answers of which so many wrong ones leave the bound below the rate."""
    images = 8
    while bound_of(round(share * images), images, delta) > rate and images < 10**7:
        images = math.ceil(1.1 * images)
    return images


def _steps(curve: Curve) -> int:
    """Thresholds that a search may try."""
    return max(1, math.ceil(math.log2(max(2, len(curve.thresholds)))) + 1)


def _search(curve: Curve, rate: float) -> Iterator[tuple[int, float, bool]]:
    """Each threshold that is tried: its place, its bound, and whether that is low enough."""
    per_step = DELTA / _steps(curve)
    # with no wrong answer the bound is 1 - delta^(1 / n): fewer images can't show the rate
    least = math.log(per_step) / math.log1p(-rate) if rate < 1 else 0
    low, high = bisect_left(curve.accepted, least), len(curve.thresholds) - 1
    while low <= high:
        place = (low + high) // 2
        bound = bound_of(curve.wrong[place], curve.accepted[place], per_step)
        yield place, bound, bound <= rate
        low, high = (place + 1, high) if bound <= rate else (low, place - 1)


def _threshold(curve: Curve, place: int, bound: float) -> Threshold:
    accepted = curve.accepted[place]
    low, high = wilson(accepted, curve.total)
    return Threshold(curve.thresholds[place], bound, accepted / curve.total, low, high)


def bound_of(wrong: int, total: int, delta: float) -> float:
    """The error rate at which so few wrong answers of `total` have probability delta (Clopper and
    Pearson 1934, one-sided)."""
    if wrong >= total:
        return 1.0
    counts = _log_choose(total, wrong)
    number = np.arange(wrong + 1)
    low, high = wrong / total, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        logs = counts + number * math.log(rate) + (total - number) * math.log1p(-rate)
        top = float(logs.max())
        tail = top + math.log(float(np.exp(logs - top).sum()))
        low, high = (rate, high) if tail > math.log(delta) else (low, rate)
    return high


def _log_choose(total: int, wrong: int) -> NDArray[np.float64]:
    """Logarithms of the numbers of ways to be wrong 0 to `wrong` times."""
    number = np.arange(1, wrong + 1)
    steps = np.log(total - number + 1) - np.log(number)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
