"""Figures of the report: numbers in, SVG for the page out.

The SVG has no colors of its own: each color below stands for one of the page's, so that a figure
is readable on light and on dark. Text stays text, in the page's font.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from tutelage.reports.cells import short

INK, MUTED, GRID = "#000001", "#000002", "#000003"
BLUE, GRAY, ORANGE = "#000004", "#000005", "#000006"
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", BLUE: "--blue", GRAY: "--gray",
    ORANGE: "--orange",
}  # fmt: skip

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $x$
    "text.color": INK,
    "font.size": 8,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.3,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
}
WIDTH = 3.7  # inches: 266 units of the SVG, so that 8 points are readable on a phone
MAX_NAMED = 25  # classes that a figure or a matrix can name
BINS = np.linspace(0, 1, 41)


def accuracies(names: Sequence[str], shares: NDArray[np.float64], images: str) -> Markup:
    """A dot and its interval for each round, from (low, share, high) rows (R, 3)."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = np.arange(len(names))
        low, share, high = 100 * shares.T
        axes.axvline(share[0], color=GRAY, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
        axes.hlines(rows, low, high, color=BLUE, linewidth=2)
        axes.plot(share, rows, "o", color=BLUE, markersize=6)
        for row in rows:
            axes.annotate(
                f"{share[row]:.1f}", (share[row], row), (0, 6), textcoords="offset points",
                ha="center",
            )  # fmt: skip
        axes.set_yticks(rows, [short(name) for name in names], color=INK)
        axes.set_ylim(len(names) - 0.5, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"right answers on the {images}, %")

    spoken = ", ".join(f"{n} {s:.1%}" for n, s in zip(names, shares[:, 1], strict=True))
    return svg("accuracy", f"Accuracy with 95 % intervals: {spoken}", draw, 0.7 + 0.42 * len(names))


def learning(
    name: str, lines: Sequence[Mapping[str, float]], *, top: float, bottom: float
) -> Markup:
    """Loss, its parts, and below it validation accuracy where there is any, over the steps.

    All rounds get the same `top` of the loss and the same `bottom` of the accuracy.
    """
    exams = [line for line in lines if "val_accuracy" in line]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(
            2 if exams else 1, sharex=True, squeeze=False, height_ratios=[3, 2] if exams else [1]
        )
        _losses(grid[0, 0], lines, top)
        if exams:
            steps, shares = zip(*((e["step"], e["val_accuracy"]) for e in exams), strict=True)
            grid[1, 0].plot(steps, shares, "o-", color=BLUE, markersize=3, clip_on=False)
            grid[1, 0].set_ylim(bottom, 1.02)
            grid[1, 0].yaxis.set_major_locator(MaxNLocator(3))
            grid[1, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            grid[1, 0].set_title("validation accuracy", color=MUTED)
        grid[-1, 0].set_xlim(0, lines[-1].get("total", lines[-1]["step"]))
        grid[-1, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        grid[-1, 0].set_xlabel("step")

    spoken = f"Learning curve of {name}: loss {lines[-1]['loss']:.3f} at step {lines[-1]['step']}"
    if exams:
        spoken += f", validation accuracy {exams[-1]['val_accuracy']:.1%}"
    return svg(f"learning {name}", spoken, draw, 3.0 if exams else 2.1)


def _losses(axes: Axes, lines: Sequence[Mapping[str, float]], top: float) -> None:
    """The loss, and for a student the two losses that it is made of."""
    kinds = [("loss", "loss", BLUE, 1.3)]
    if "pseudo" in lines[-1] and "labels" in lines[-1]:
        kinds[0] = ("loss", "both", BLUE, 1.3)
        kinds += [("labels", "labels", ORANGE, 0.9), ("pseudo", "pool", GRAY, 0.9)]
    for key, label, color, width in kinds:
        points = [(line["step"], line[key]) for line in lines if key in line]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=width, label=label)
    axes.set_ylim(0, top)
    axes.set_title("loss", color=MUTED)
    if len(kinds) > 1:
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 0.97), borderpad=0)


def confidences(
    name: str, confidence: NDArray[np.float64], kept: NDArray[np.bool_], threshold: float | None
) -> Markup:
    """How sure the teacher was of each pool image (N,), and which were kept (N,)."""
    used = np.histogram(confidence[kept], BINS)[0]
    left = np.histogram(confidence[~kept], BINS)[0]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.stairs(used, BINS, fill=True, color=BLUE, label="kept")
        axes.stairs(used + left, BINS, baseline=used, fill=True, color=GRAY, label="left out")
        if threshold is not None:
            axes.axvline(
                threshold, color=ORANGE, linestyle=(0, (4, 2)), label=f"threshold {threshold:g}"
            )
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("teacher's confidence")
        axes.set_ylabel("pool images")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.4)

    spoken = f"Confidence of the labels for {name}: {kept.sum():,} kept, {(~kept).sum():,} left out"
    return svg(f"confidence {name}", spoken, draw, 2.3)


def balance(
    name: str, classes: Sequence[str], before: NDArray[np.int64], after: NDArray[np.int64]
) -> Markup:
    """Images of each class (K,) as labeled, and as used with copies; unnamed for many classes."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if len(classes) > MAX_NAMED:
            order = np.argsort(-before, kind="stable")
            axes.stairs(before[order], color=GRAY, linewidth=1.3, label="as labeled")
            axes.stairs(after[order], color=BLUE, linewidth=1.3, label="as used, with copies")
            axes.set_xlabel("classes, the most frequent first")
            axes.set_ylabel("pool images")
            axes.set_xlim(0, len(classes))
            axes.set_ylim(0, None)
        else:
            rows = np.arange(len(classes))
            axes.hlines(rows, before, after, color=GRID, linewidth=2.5)
            for values, color, label in (
                (before, GRAY, "as labeled"),
                (after, BLUE, "as used, with copies"),
            ):
                axes.plot(values, rows, "o", color=color, markersize=5, label=label, clip_on=False)
            axes.set_yticks(rows, [short(name) for name in classes], color=INK)
            axes.set_ylim(len(classes) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.set_xlim(0, 1.05 * max(before.max(), after.max(), 1))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.set_xlabel("pool images")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.4)

    spoken = (
        f"Class balance for {name}: {before.min():,} to {before.max():,} images a class as "
        f"labeled, {after.min():,} to {after.max():,} as used"
    )
    height = 2.6 if len(classes) > MAX_NAMED else 0.8 + 0.17 * len(classes)
    return svg(f"balance {name}", spoken, draw, height)


def svg(name: str, spoken: str, draw: Callable[[Figure], None], height: float) -> Markup:
    """What `draw` puts on a figure of that height in inches, ready to stand in a page.

    `name` is the figure's alone, and keeps its ids apart from those of other figures; `spoken` is
    what a screen reader says. A user's own matplotlibrc is not looked at.
    """
    file = io.StringIO()
    style: Any = STYLE | {"svg.hashsalt": f"tutelage {name}"}
    with matplotlib.rc_context(), warnings.catch_warnings():
        # the browser draws the text, with fonts that know more characters than matplotlib's
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure((WIDTH, height), layout="constrained")
        draw(figure)
        about = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=about)
    return Markup(_inline(file.getvalue(), spoken))


def _inline(svg: str, spoken: str) -> str:
    """An SVG file as an element of a page: no prolog, no foreign addresses, the page's colors."""
    head, body = svg[svg.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None, "matplotlib writes it"
    body = re.sub(r"<metadata>.*?</metadata>|<style\b.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"\n\s*", "\n", body).replace("<use xlink:href=", "<use href=")
    body = re.sub("#00000[1-6](?=[;\"'])", lambda match: f"var({VARIABLES[match[0]]})", body)
    return f'<svg {box[0]} role="img"><title>{escape(spoken)}</title>{body.strip()}'
