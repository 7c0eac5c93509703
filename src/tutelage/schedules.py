"""Pure schedules: fraction of training in [0, 1) -> multiplier of the peak value, or threshold."""

import math
from typing import Literal

from tutelage.settings import Scaling, Schedule

Annealing = Literal["linear", "log", "exp"]

STAIR = 2.4 / 350  # of the run, for each stair of the waterfall
PEAK = 0.3  # of the run, where one-cycle turns
FIRST, LAST = 1 / 25, 1 / 25 / 1e4  # of the peak, where one-cycle begins and ends
HIGH, LOW = 0.95, 0.85  # momentum of one-cycle, at both ends and at the peak


def learning_rate(
    fraction: float, schedule: Schedule, warmup: float = 0.0, *, end: float = 0.0,
    milestones: tuple[float, ...] = (),
) -> float:  # fmt: skip
    """Multiplier of the peak learning rate, after a linear warm-up over `warmup` of the run.

    `end` is the share of the peak that stands for the shape's zero. One-cycle warms up by itself.
    """
    shape = _shape(fraction, schedule, milestones)
    ramp = min(1.0, fraction / warmup) if warmup and schedule != "one-cycle" else 1.0
    return ramp * (end + (1 - end) * shape)


def _shape(fraction: float, schedule: Schedule, milestones: tuple[float, ...]) -> float:
    """The schedule between 0 and 1, without warm-up.

    cosine: (1 + cos(pi t)) / 2. fixmatch: cos(7 pi t / 16), which ends at 0.195
    (Sohn et al. 2020, arXiv 2001.07685, section 2.4). step: 0.1 to the number of milestones
    passed. waterfall: 0.97^floor(350 t / 2.4), EfficientNetV2's 0.97 every 2.4 of 350 epochs
    (Tan and Le 2021, arXiv 2104.00298), with as many stairs in a run of any length; it ends at
    0.0121.
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * fraction))
    if schedule == "fixmatch":
        return math.cos(7 * math.pi * fraction / 16)
    if schedule == "step":
        return 0.1 ** sum(fraction >= milestone for milestone in milestones)
    if schedule == "waterfall":
        return 0.97 ** math.floor(fraction / STAIR)
    return _cycle(fraction, FIRST, 1.0, LAST) if schedule == "one-cycle" else 1.0


def momentum(fraction: float, schedule: Schedule, usual: float) -> float:
    """The momentum: as usual, but mirrored to the learning rate in one-cycle, whose usual value
    counts only where it is 0, for none."""
    if schedule == "one-cycle" and usual:
        return _cycle(fraction, HIGH, LOW, HIGH)
    return usual


def _cycle(fraction: float, first: float, middle: float, last: float) -> float:
    """Half a cosine from first to middle at `PEAK`, and another one to last.

    Smith and Topin 2017 (arXiv 1708.07120), in the form and with the defaults of torch's
    OneCycleLR.
    """
    if fraction < PEAK:
        return _half_cosine(fraction / PEAK, first, middle)
    return _half_cosine((fraction - PEAK) / (1 - PEAK), middle, last)


def _half_cosine(at: float, start: float, end: float) -> float:
    """From start at 0 to end at 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * at))


def rate_for(batch: int, base: int, rule: Scaling) -> float:
    """Multiplier of a learning rate meant for `base` labeled images an update, for `batch` of them.

    linear: batch / base (Goyal et al. 2017, arXiv 1706.02677). sqrt: its root. none: 1.
    """
    if rule == "none":
        return 1.0
    return batch / base if rule == "linear" else math.sqrt(batch / base)


def linear_ramp(at: float, *, start: float, end: float) -> float:
    """0 before `start`, 1 from `end` on and a straight line between, in any unit of time.

    alpha(t) / alpha_f of Pseudo-Label (Lee 2013, section 2), with T1 and T2.
    """
    if at < start:
        return 0.0
    return 1.0 if at >= end else (at - start) / (end - start)


def sigmoid_ramp(at: float, *, end: float) -> float:
    """exp(-5 (1 - t / end)^2) up to `end` and 1 from there (Mean Teacher, arXiv 1703.01780)."""
    return 1.0 if at >= end else math.exp(-5 * (1 - at / end) ** 2)


def signal_annealing(fraction: float, num_classes: int, shape: Annealing) -> float:
    """UDA's threshold eta of training signal annealing, from 1 / K to 1 (arXiv 1904.12848).

    linear: t; log: 1 - exp(-5t); exp: exp(5(t - 1)).
    """
    shares = {
        "linear": fraction,
        "log": 1 - math.exp(-5 * fraction),
        "exp": math.exp(5 * (fraction - 1)),
    }
    return shares[shape] * (1 - 1 / num_classes) + 1 / num_classes
