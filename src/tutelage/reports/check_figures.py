"""Figures of a check's page: how many images a class has, and how large the images are."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from tutelage.data.facts import Part
from tutelage.reports.cells import short
from tutelage.reports.figures import BLUE, GRAY, INK, MAX_NAMED, ORANGE, svg

COLORS = {"pool": GRAY, "labeled": BLUE, "val": ORANGE, "test": ORANGE}  # the last is on top
MOST_SIZES = 400  # dots of a part


def class_sizes(classes: Sequence[str], counts: Sequence[int]) -> Markup:
    """Usable labeled images of each class; unnamed, by size, where there are many classes."""
    values = np.array(counts)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if len(classes) > MAX_NAMED:
            axes.stairs(np.sort(values)[::-1], color=BLUE, fill=True)
            axes.set_xlabel("classes, the largest first")
            axes.set_ylabel("labeled images")
            axes.set_xlim(0, len(classes))
            axes.set_ylim(0, None)
            return
        rows = np.arange(len(classes))
        axes.barh(rows, values, height=0.6, color=BLUE)
        axes.set_yticks(rows, [short(name) for name in classes], color=INK)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("labeled images")

    spoken = f"Labeled images a class: {min(counts):,} to {max(counts):,}"
    height = 2.4 if len(classes) > MAX_NAMED else 0.6 + 0.17 * len(classes)
    return svg("class sizes", spoken, draw, height)


def image_sizes(parts: Mapping[str, Part]) -> Markup:
    """A dot for each size that images have, larger where more have it."""
    sizes = {name: Counter((f.width, f.height) for f in part.facts) for name, part in parts.items()}
    every = [size for counted in sizes.values() for size in counted]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name in (name for name in COLORS if sizes.get(name)):
            common = sizes[name].most_common(MOST_SIZES)
            edge = {max(sizes[name]), min(sizes[name]), max(sizes[name], key=lambda s: s[1])}
            some = dict(common) | {size: sizes[name][size] for size in edge}
            points = np.array(list(some))
            area = 8 + 60 * np.array(list(some.values())) / sum(sizes[name].values())
            marker = "^" if name == "val" else "o"
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=area,
                color=COLORS[name],
                marker=marker,
                alpha=0.7,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter("")
        axes.set_xlabel("width, pixels")
        axes.set_ylabel("height, pixels")
        axes.margins(0.15)
        figure.legend(loc="outside upper left", ncols=4, handletextpad=0.2)

    low, high = min(map(min, every)), max(map(max, every))
    return svg("image sizes", f"Sides of the images: {low:,} to {high:,} pixels", draw, 2.9)
