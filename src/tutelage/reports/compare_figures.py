"""Figures of a comparison's page: differences with their intervals, and accuracy over latency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, ScalarFormatter

from tutelage.reports.cells import short
from tutelage.reports.figures import BLUE, GRAY, INK, accuracies, svg


def accuracy(models: Sequence[Mapping[str, Any]], images: int) -> Markup:
    """Each model's accuracy with its own interval."""
    shares = np.array(
        [[one["accuracy"][key] for key in ("low", "value", "high")] for one in models]
    )
    return accuracies([one["name"] for one in models], shares, f"{images:,} test images")


def differences(pairs: Sequence[Mapping[str, Any]]) -> Markup:
    """Each pair's difference with its corrected interval, the better model first; 0 is dashed."""
    shown = [turned(pair) for pair in pairs]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, one in enumerate(shown):
            color = GRAY if one["outcome"] == "open" else BLUE
            axes.hlines(row, 100 * one["low"], 100 * one["high"], color=color, linewidth=2)
            axes.plot(100 * one["difference"], row, "o", color=color, markersize=6)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        names = [f"{short(one['second'], 14)} - {short(one['first'], 14)}" for one in shown]
        axes.set_yticks(range(len(shown)), names, color=INK)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("difference in accuracy, points")

    spoken = "; ".join(pair["sentence"] for pair in pairs)
    return svg("differences", spoken, draw, 0.6 + 0.26 * len(shown))


def turned(pair: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pair seen from the model that is better, or equal."""
    if pair["difference"] >= 0:
        return pair
    outcome = {"worse": "better", "better": "worse", "open": "open"}[pair["outcome"]]
    return {
        **pair, "first": pair["second"], "second": pair["first"], "low": -pair["high"],
        "high": -pair["low"], "difference": -pair["difference"], "outcome": outcome,
        "gained": pair["lost"], "lost": pair["gained"],
    }  # fmt: skip


def pareto(group: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy over the latency of one image; models that another one beats in both are gray."""
    by_name = {one["name"]: one["accuracy"] for one in models}
    points = [
        (row["name"], 1000 * row["latency"]["p50"], by_name[row["name"]])
        for row in group["rows"]
        if row["latency"] is not None
    ]
    if not points:
        return Markup()
    times = [x for _, x, _ in points]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        front = sorted((x, a["value"]) for name, x, a in points if name in group["front"])
        axes.plot(
            [x for x, _ in front], [100 * y for _, y in front], color=BLUE, linewidth=1,
            drawstyle="steps-post", zorder=2,
        )  # fmt: skip
        for name, x, a in points:
            color = BLUE if name in group["front"] else GRAY
            axes.vlines(x, 100 * a["low"], 100 * a["high"], color=color, linewidth=1.2)
            axes.plot(x, 100 * a["value"], "o", color=color, markersize=6, zorder=3)
            left = x * x > min(times) * max(times)  # names stand towards the middle
            axes.annotate(
                short(name), (x, 100 * a["value"]), (-6 if left else 6, 4),
                textcoords="offset points", ha="right" if left else "left",
                color=INK if name in group["front"] else GRAY,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(min(times) / 1.5, max(times) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("milliseconds for one image, median")
        axes.set_ylabel("accuracy, %")

    spoken = ", ".join(f"{name} {x:.3g} ms {a['value']:.1%}" for name, x, a in points)
    return svg(f"pareto {group['backend']}", f"Accuracy over latency: {spoken}", draw, 2.6)
