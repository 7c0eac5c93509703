"""Figures and tables of how good a model's answers are: reliability, and class by class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tutelage.evaluation.intervals import Accuracy
from tutelage.reports.figures import BLUE, GRAY, svg

MOST_CLASSES = 50  # rows of the table of classes


@dataclass(frozen=True)
class ClassRow:
    """A class's answers."""

    name: str
    right: Accuracy
    low: float  # Wilson's 95 % interval
    high: float
    mistaken: str  # for which class most often; empty where it never is


@dataclass(frozen=True)
class Reliability:
    """What is said of a model's confidences on some images."""

    figure: Markup
    error: float  # expected calibration error
    chance: float  # that a calibrated model would show
    most: float  # below which that is in 95 % of cases
    bins: int
    images: int
    temperature: float | None
    before: float | None  # the error without the temperature


def reliability(name: str, calibration: Mapping[str, Any]) -> Markup:
    """Share of right answers over confidence, with Wilson's intervals, and below it the images.

    `calibration` is one of `Confidence.plain()`, of bins of equal width or equal mass.
    """
    bins = calibration["bins"]
    count = np.array(bins["count"])
    there = np.flatnonzero(count)
    confidence = np.array(bins["confidence"])[there]
    share = np.array([bins["accuracy"][k] for k in there], np.float64)
    span = np.array([bins["interval"][k] for k in there], np.float64).reshape(-1, 2)
    percent = PercentFormatter(1, decimals=0, symbol=" %")

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, sharex=True, height_ratios=[4, 1])
        above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=(0, (3, 2)))
        above.vlines(confidence, *span.T, color=BLUE, linewidth=1.6)
        above.plot(confidence, share, "o", color=BLUE, markersize=4, clip_on=False)
        above.set_ylim(-0.02, 1.02)
        above.yaxis.set_major_formatter(percent)
        above.set_ylabel("right answers")
        below.stairs(count, bins["edges"], fill=True, color=GRAY)
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        below.set_ylabel("images")
        below.set_xlim(0, 1)
        below.xaxis.set_major_formatter(percent)
        below.set_xlabel("confidence")

    spoken = (
        f"Reliability of {name}: calibration error {calibration['ece']:.1%} on "
        f"{calibration['images']:,} images; points on the diagonal are as often right as they claim"
    )
    return svg(f"reliability {name}", spoken, draw, 3.4)


def reliability_of(name: str, judgement: Mapping[str, Any]) -> Reliability | None:
    """What a `Judgement.plain()` says of confidences; None where it says nothing."""
    if "calibration" not in judgement:
        return None
    found = judgement["calibration"]["width"]
    before = judgement["before_temperature"]
    return Reliability(
        figure=reliability(name, found),
        error=found["ece"],
        chance=found["ece_by_chance"],
        most=found["ece_by_chance_95"],
        bins=len(found["bins"]["count"]),
        images=found["images"],
        temperature=judgement["temperature"],
        before=None if before is None else before["ece"],
    )


def class_rows(answers: Sequence[tuple[str, str]]) -> list[ClassRow]:
    """Each class's accuracy, worst first, from (true, answered) pairs; the 50 worst of many."""
    total = Counter(true for true, _ in answers)
    right = Counter(true for true, said in answers if true == said)
    wrong: dict[str, Counter[str]] = {name: Counter() for name in total}
    for true, said in answers:
        if true != said:
            wrong[true][said] += 1
    rows = []
    for name in sorted(total, key=lambda name: (right[name] / total[name], name))[:MOST_CLASSES]:
        found = Accuracy(right[name], total[name])
        mistaken = wrong[name].most_common(1)
        rows.append(ClassRow(name, found, *found.interval, mistaken[0][0] if mistaken else ""))
    return rows
