"""Figures of a search's page: accuracy over cost, and what the sampler learned."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from tutelage.reports.figures import BLUE, GRAY, INK, ORANGE, svg
from tutelage.reports.search_answer import (
    Content,
    accuracy_of,
    best_of,
    by_reward,
    called,
    finalists,
    limit_of,
)

MOST_INTERVALS = 30  # of networks of the last rung, above which only the front's are drawn
MOST_NAMES = 8  # of that rung, above which only the front's are named
NAME_WIDE, NAME_HIGH = 0.15, 0.06  # shares of the figure that a name takes
WINDOW = 8  # suggestions of which the mean is drawn, where there are twice as many
MANY = 100  # suggestions above which their dots are small
DASHED = (0, (3, 2))


def cost_of(content: Content, result: Content) -> float | None:
    """Milliseconds of a step, or of an answer where that is limited."""
    limited = content["latency_limit"] is not None
    seconds = result["latency"] if limited else result["step_seconds"]
    return None if seconds is None else 1000 * seconds


def costs(content: Content) -> Markup:
    """Accuracy of every result over its cost, rung by rung; the last with intervals and front."""
    reached = len(best_of(content)["results"])
    limit = content["latency_limit"]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for rung in range(reached):
            _rung(axes, content, rung, reached)
        _front(axes, content)
        if limit is not None:
            label = f"limit {limit_of(content)}"
            axes.axvline(1000 * limit, color=INK, linewidth=1, linestyle=DASHED, label=label)
        _scale(axes)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        what = "one answer" if limit is not None else "a training step"
        axes.set_xlabel(f"milliseconds of {what}")
        axes.set_ylabel("accuracy, %")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.4)

    spoken = ", ".join(
        f"{called(one)} {accuracy_of(one['results'][-1]).value:.1%}"
        for one in finalists(content)[:MOST_NAMES]
    )
    return svg("search costs", f"Accuracy over cost, the best first: {spoken}", draw, 3.1)


def _rung(axes: Axes, content: Content, rung: int, reached: int) -> None:
    """All results of a rung as dots, paler for the shorter trainings."""
    found = [
        (cost, 100 * accuracy_of(one["results"][rung]).value)
        for one in content["trials"]
        if len(one["results"]) > rung
        for cost in [cost_of(content, one["results"][rung])]
        if cost is not None
    ]
    if not found:
        return
    last = rung == reached - 1
    axes.plot(
        *zip(*found, strict=True), "o", color=BLUE if last or rung else GRAY,
        markersize=5.5 if last else 3.5, alpha=1 if last or not rung else 0.5,
        markeredgewidth=0, zorder=3 if last else 2,
        label=f"{content['rungs'][rung]['steps']:,} steps",
    )  # fmt: skip


def _front(axes: Axes, content: Content) -> None:
    """Intervals, names, the front's line and the best one's ring, of the last rung."""
    points = [
        (one, cost, accuracy_of(one["results"][-1]))
        for one in finalists(content)
        for cost in [cost_of(content, one["results"][-1])]
        if cost is not None
    ]
    front = sorted((x, 100 * a.value) for one, x, a in points if one["number"] in content["front"])
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=BLUE, linewidth=1, drawstyle="steps-post")
    few, marked = len(points) <= MOST_NAMES, {*content["front"], content["best"]}
    _names(axes, [
        (f"#{one['number']}", x, 100 * accuracy.value)
        for one, x, accuracy in points if few or one["number"] in marked
    ])  # fmt: skip
    for one, x, accuracy in points:
        low, high = accuracy.interval
        if len(points) <= MOST_INTERVALS or one["number"] in marked:
            axes.vlines(x, 100 * low, 100 * high, color=BLUE, linewidth=1, zorder=2)
        if one["number"] == content["best"]:
            axes.plot(
                x, 100 * accuracy.value, "o", markersize=9, markerfacecolor="none",
                markeredgecolor=ORANGE, markeredgewidth=1.6, zorder=4, label="best",
            )  # fmt: skip


def _names(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Names beside their points, towards the middle, but for those that would lie on another."""
    if not points:
        return
    places = np.array([(np.log(x), y) for _, x, y in points])
    width, height = axes.dataLim.width, axes.dataLim.height
    middle, wide = places[:, 0].mean(), np.log1p(width / axes.dataLim.x0)
    taken: list[tuple[float, float]] = []
    for (name, x, y), (place, _) in zip(points, places, strict=True):
        left = place > middle
        here = (place - (NAME_WIDE * wide if left else 0), y)
        if any(
            abs(here[0] - a) < NAME_WIDE * wide and abs(y - b) < NAME_HIGH * height
            for a, b in taken
        ):
            continue
        taken.append(here)
        axes.annotate(
            name, (x, y), (-7 if left else 7, 3), textcoords="offset points",
            ha="right" if left else "left", color=INK,
        )  # fmt: skip


def _scale(axes: Axes) -> None:
    """A logarithmic axis of times with a few plain numbers on it."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = low / 1.1, high * 1.1
    axes.set_xlim(low, high)
    wide = high / low > 8
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)) if wide else MaxNLocator(5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def learning(content: Content) -> Markup:
    """Reward after the first rung over the suggestions, and the best so far; empty for one alone,
    and for chance, which learns nothing.

    All suggestions have trained equally long there. One that was made before has its value again.
    """
    rewards, again, bad = suggestions(content)
    numbers = [number for number, _ in rewards]
    values = [value for _, value in rewards]
    if len(values) < 2 or content["sampler"] == "random":
        return Markup()

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for chosen, fill, label in ((False, GRAY, "network"), (True, "none", "suggested again")):
            its = [point for point in rewards if (point[0] in again) == chosen]
            if its:
                axes.plot(
                    *zip(*its, strict=True), "o", color=GRAY, markerfacecolor=fill, label=label,
                    markersize=4 if len(values) <= MANY else 2.5, zorder=2,
                )  # fmt: skip
        if bad:
            axes.plot(
                bad, [0.02] * len(bad), "x", color=ORANGE, markersize=4, label="unusable",
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip
        axes.plot(
            numbers, np.maximum.accumulate(values), color=BLUE, drawstyle="steps-post", zorder=3,
            label="best so far",
        )  # fmt: skip
        if len(values) >= 2 * WINDOW:
            means = np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
            label = f"mean of the last {WINDOW}"
            axes.plot(
                numbers[WINDOW - 1 :], means, color=ORANGE, linewidth=1, label=label, zorder=3
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_xlabel("suggestion")
        steps = content["rungs"][0]["steps"]
        axes.set_ylabel(f"{'reward' if by_reward(content) else 'accuracy'} after {steps:,} steps")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.4)

    first, second = halves(values)
    spoken = (
        f"Rewards of {len(values):,} suggestions: mean {first:.3f} of the first half, {second:.3f} "
        f"of the second, best {max(values):.3f}"
    )
    return svg("search learning", spoken, draw, 2.6)


def suggestions(content: Content) -> tuple[list[tuple[int, float]], set[int], list[int]]:
    """Number and first reward of suggestions that have one; those made before; those of no use."""
    by_number = {one["number"]: one for one in content["trials"]}
    rewards, again, bad = [], set(), []
    for number, one in sorted(by_number.items()):
        first = one if one["same_as"] is None else by_number[one["same_as"]]
        if first is not one:
            again.add(number)
        if first["results"]:
            rewards.append((number, float(first["results"][0]["reward"])))
        elif first["infeasible"]:
            bad.append(number)
    return rewards, again, bad


def halves(values: Sequence[float]) -> tuple[float, float]:
    """Means of the earlier and of the later half of two or more."""
    half = len(values) // 2
    return float(np.mean(values[:half])), float(np.mean(values[half:]))
