"""Pure schedules: fraction of training in [0, 1) -> multiplier of the peak value."""

import math
from typing import Literal

Schedule = Literal["cosine", "fixmatch", "constant"]


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
