"""compare.html: one self-contained page that shows a comparison, from what compare.json holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.reports import compare_figures as figures
from tutelage.reports.cells import amount, fact_rows
from tutelage.reports.compare_text import (
    shared_measures,
    shown,
    speed_cells,
    speed_notes,
    threads,
    words,
)
from tutelage.reports.html import render, write_page


def write_compare_page(path: Path, content: Mapping[str, Any]) -> Path:
    """Write the page, and return its path; the same comparison gives the same bytes."""
    words_and_cells = {"words": words, "shown": shown, "amount": amount, "threads": threads}
    page = render("compare.html.j2", words_and_cells | _contents(content))
    return write_page(path, page)


def _contents(content: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows."""
    models = sorted(content["models"], key=lambda one: -one["accuracy"]["value"])
    outcome, headline = _headline(content, models)
    return {
        "content": content,
        "models": models,
        "outcome": outcome,
        "headline": headline,
        "measures": shared_measures(models),
        "accuracy_figure": figures.accuracy(models, content["test"]["images"]),
        "pairs": [figures.turned(pair) for pair in content["pairs"]],
        "pairs_figure": figures.differences(content["pairs"]),
        "speeds": [
            {
                "group": group,
                "rows": [(row, speed_cells(row), speed_notes(row)) for row in group["rows"]],
                "figure": figures.pareto(group, content["models"]),
            }
            for group in content["speed"]
        ],
        "environment": fact_rows(content["environment"]),
    }


def _headline(content: Mapping[str, Any], models: list[Any]) -> tuple[str, str]:
    """The outcome in one sentence: the pair's, or of several how the most accurate one stands."""
    if len(models) == 2:
        (pair,) = content["pairs"]
        return "help" if pair["outcome"] != "open" else "open", pair["sentence"]
    best = models[0]["name"]
    mine = [
        figures.turned(pair) for pair in content["pairs"] if best in (pair["first"], pair["second"])
    ]
    beaten = sum(pair["outcome"] == "better" for pair in mine)
    if beaten == len(mine):
        return "help", f"{best} is better than each of the {len(mine)} others"
    if beaten:
        return "open", f"{best} is better than {beaten} of the {len(mine)} others; no model leads"
    return "open", f"no model leads: {best} has the most right answers, which may be chance"
