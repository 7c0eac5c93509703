"""The report's cards of evaluations: what a model did on other images, and under trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.kept import all_kept
from tutelage.reports.figures import BLUE, svg


@dataclass(frozen=True)
class Cell:
    """One value of a table; a share is shaded by its size."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Trouble:
    """What one robustness suite came to."""

    title: str
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]  # the first cell names the row
    figure: Markup


@dataclass(frozen=True)
class EvaluationCard:
    """One evaluation that is kept beside the run."""

    name: str
    data: str
    size: int  # pixels
    right: Accuracy
    troubles: tuple[Trouble, ...]


def cards(run: Path) -> list[EvaluationCard]:
    """A card for each finished evaluation of a run."""
    return [_card(kept.path.name, kept.read()) for kept in all_kept(run)]


def _card(name: str, about: dict[str, Any]) -> EvaluationCard:
    return EvaluationCard(
        name=name,
        data=about["data"],
        size=about["img_size"],
        right=Accuracy(**about["accuracy"]),
        troubles=tuple(_trouble(name, summary) for summary in about["robust"]),
    )


def _trouble(name: str, summary: dict[str, Any]) -> Trouble:
    """A suite's summary, as evaluation.json has it."""
    drawn = Markup() if summary["curve"] is None else curve(name, summary)
    return Trouble(
        title=summary["title"],
        lines=tuple(summary["lines"]),
        notes=tuple(summary["notes"]),
        columns=tuple(summary["columns"]),
        rows=tuple(tuple(map(_cell, row)) for row in summary["rows"]),
        figure=drawn,
    )


def _cell(value: str | float) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    return Cell(f"{100 * value:.1f}\u00a0%", min(max(value, 0.0), 1.0))


def curve(name: str, summary: dict[str, Any]) -> Markup:
    """A suite's line over numbers, with its interval."""
    found = summary["curve"]
    x, y = np.array(found["x"], float), np.array(found["y"], float)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if found["low"]:
            low, high = np.array(found["low"], float), np.array(found["high"], float)
            axes.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(x, y, "o-", color=BLUE, markersize=4, clip_on=False)
        axes.set_ylim(0, 1)
        axes.set_xlim(0, None)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel(found["xlabel"])
        axes.set_ylabel(found["ylabel"])

    return svg(
        f"curve {name} {summary['suite']}",
        _spoken(summary["title"], found["x"], found["y"]),
        draw,
        2.3,
    )


def _spoken(title: str, x: Sequence[float], y: Sequence[float]) -> str:
    points = ", ".join(f"{a:g}: {b:.1%}" for a, b in zip(x, y, strict=True))
    return f"{title}: {points}"
