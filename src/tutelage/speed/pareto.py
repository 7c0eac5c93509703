"""Which models no other one beats in speed and accuracy at once."""

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """For each (speed, accuracy), more being better in both, whether it is on the front.

    A point is on it where its accuracy is strictly higher than that of any faster one. Of points of
    one speed the most accurate counts; equal points are on it together; NaN is never on it.
    """
    best: dict[float, float] = {}  # accuracy by speed
    for speed, accuracy in points:
        if not math.isnan(speed) and not math.isnan(accuracy):
            best[speed] = max(accuracy, best.get(speed, -math.inf))
    front, highest = set(), -math.inf
    for speed in sorted(best, reverse=True):
        if best[speed] > highest:
            front.add((speed, best[speed]))
            highest = best[speed]
    return tuple(point in front for point in map(tuple, points))
