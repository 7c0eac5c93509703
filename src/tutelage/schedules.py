"""Pure schedules: fraction of training in [0, 1) -> multiplier of the peak value, or threshold."""

import math
from typing import Literal

Schedule = Literal["cosine", "fixmatch", "constant"]
Annealing = Literal["linear", "log", "exp"]


def learning_rate(fraction: float, schedule: Schedule, warmup: float = 0.0) -> float:
    """Multiplier of the peak learning rate, after a linear warm-up over `warmup` of the run.

    cosine: (1 + cos(pi t)) / 2. fixmatch: cos(7 pi t / 16), which ends at 0.195
    (Sohn et al. 2020, arXiv 2001.07685, section 2.4).
    """
    ramp = min(1.0, fraction / warmup) if warmup else 1.0
    if schedule == "cosine":
        return ramp * 0.5 * (1 + math.cos(math.pi * fraction))
    if schedule == "fixmatch":
        return ramp * math.cos(7 * math.pi * fraction / 16)
    return ramp


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
