"""What two ways to the same result cost, measured in turns, as a ratio with its spread.

A case is one such comparison. Its sides are run in turn, first the one and then the other and the
next time the other way round, after a turn that only warms up; the ratio is taken within each
turn, so that whatever slows the machine for a while meets both sides. A ratio below 1 says that
ours costs less.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.journal import Row
from tutelage.speed.machine import Load

SPREAD = 0.3  # quartiles that are further apart, as a share of the ratio, tell little
OTHERS = 0.2  # nor do times while other work kept more of the cores that may be used busy


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison: the same work by us and by somebody else."""

    what: str
    peer: str  # who else
    ours: Callable[[], float]  # does the work and returns what it cost, in units
    theirs: Callable[[], float]
    unit: str
    turns: int = 9
    goal: float | None = None  # the ratio, at most


def measured(case: Case) -> Row:
    """Medians of both sides, and median and quartiles of the turns' ratios."""
    sides = {"ours": case.ours, "theirs": case.theirs}
    for side in sides.values():
        side()
    load, start = Load(), time.monotonic()
    costs: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(case.turns):
        for name in sorted(sides, reverse=bool(turn % 2)):
            costs[name].append(sides[name]())
    ratios = [one / other for one, other in zip(*costs.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    others = load.others() / len(load.cores)
    return {
        "what": case.what, "peer": case.peer, "unit": case.unit, "goal": case.goal,
        **{name: statistics.median(seen) for name, seen in costs.items()},
        "ratio": middle, "low": low, "high": high, "turns": case.turns,
        "seconds": round(time.monotonic() - start, 1), "others": round(others, 3),
        "reliable": high - low <= SPREAD * middle and others <= OTHERS,
    }  # fmt: skip


def wall(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def processor(work: Callable[[], object]) -> float:
    """Seconds that all threads of this process work at it, whatever else the machine does."""
    start = time.process_time()
    work()
    return time.process_time() - start
