"""One self-contained HTML page of a run: no script, nothing from the net, light and dark."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tutelage.data.find import Given
from tutelage.data.pool import PseudoLabels
from tutelage.evaluation.pool_accuracy import Estimate
from tutelage.files import as_written
from tutelage.reports import figures, figures_judgement, tables
from tutelage.reports.cells import fact_rows
from tutelage.reports.contents import JUDGES, Contents, gather
from tutelage.reports.html import render, write_page
from tutelage.reports.thumbnails import strips
from tutelage.run import read_run

MOST_ISSUES = 20  # rows of issues.csv on the page


@dataclass(frozen=True)
class Labeling:
    """What one student was taught with."""

    name: str
    teacher: str
    images: int
    kept: int
    used: int  # with copies
    confidence: float  # mean
    reasons: list[tuple[str, int, float]]
    balance: list[tuple[str, int, int, int]]
    classes: int
    figures: tuple[Markup, ...]
    right: str  # the estimated share of right labels among those kept; empty where there is none


def write_report(run: Path, given: Given | None = None) -> Path:
    """Write RUN/report/index.html, for a finished run or any other, and return its path.

    The same run gives the same bytes. Raises UsageError where the folder is no run, or a search
    that is not finished.
    """
    content = read_run(run)
    if content["verb"] == "search":
        from tutelage.reports.search_page import report_search  # which loads timm

        with as_written(run / "search.json"):
            return report_search(run, content["state"])
    contents = gather(run, given)
    with as_written(run):
        page = render("page.html.j2", _parts(contents))
    return write_page(run / "report" / "index.html", page)


def _parts(contents: Contents) -> Mapping[str, Any]:
    """Everything that the template shows; what the run does not have is empty."""
    stages = tables.stage_rows(contents.content)
    shown = list(contents.labels.items())[-1:]
    start = contents.starts[-1] if contents.starts else {}
    return {
        "name": contents.name,
        "verb": contents.content["verb"],
        "headline": tables.headline(contents),
        "judge": JUDGES[contents.judge] if contents.judge else "",
        "rounds": tables.accuracy_rows(contents),
        "accuracy_figure": _accuracy(contents),
        "class_rows": figures_judgement.class_rows(contents.answers),
        "reliability": _reliability(contents),
        "learning": _learning(contents),
        "labelings": [_labeling(contents, *item) for item in contents.labels.items()],
        "confusion": tables.confusion(contents),
        "evaluations": contents.evaluations,
        "gallery": [(name, strips(table, contents.pool)) for name, table in shown],
        "settings": tables.setting_rows(contents.settings),
        "images": contents.notes("check").get("images", {}),
        "check": contents.notes("check"),
        "classes": contents.classes,
        "issue_kinds": tables.issue_rows(contents),
        "issues": contents.issues[:MOST_ISSUES],
        "num_issues": len(contents.issues),
        "start": start,
        "facts": fact_rows({k: v for k, v in start.items() if k not in ("time", "command")}),
        "num_starts": len(contents.starts),
        "stages": stages,
        "total": tables.total_words(stages),
    }


def _accuracy(contents: Contents) -> Markup:
    """The figure of all judged rounds, empty where there are none."""
    rows = tables.accuracy_rows(contents)
    if contents.judge is None or not rows:
        return Markup()
    shares = np.array([[row["low"], row["right"].value, row["high"]] for row in rows])
    images = f"{rows[0]['right'].total:,} {JUDGES[contents.judge]} images"
    return figures.accuracies([row["name"] for row in rows], shares, images)


def _reliability(contents: Contents) -> figures_judgement.Reliability | None:
    """The confidences of the last judged round; None where nothing was judged."""
    if contents.judge is None or not contents.rounds:
        return None
    last = contents.rounds[-1]
    found = last.get("calibration", {}).get(contents.judge, {})
    return figures_judgement.reliability_of(last["name"], found)


def _learning(contents: Contents) -> list[tuple[str, Markup]]:
    """Each begun round with its learning curves, all on the same scales."""
    lines = [line for rows in contents.metrics.values() for line in rows]
    if not lines:
        return []
    top = 1.05 * max(line["loss"] for line in lines)
    bottom = min([line["val_accuracy"] for line in lines if "val_accuracy" in line] + [0.9]) - 0.05
    return [
        (name, figures.learning(name, rows, top=top, bottom=max(0.0, bottom)))
        for name, rows in contents.metrics.items()
    ]


def _labeling(contents: Contents, name: str, table: PseudoLabels) -> Labeling:
    """A student's labels in numbers and figures."""
    assert table.copies is not None, "only selected tables are gathered"
    before, after = tables.class_counts(table)
    kept = table.copies > 0
    threshold = contents.settings.get("select.threshold")
    notes = contents.notes(name.replace("student", "labels"))
    return Labeling(
        name=name,
        teacher=notes.get("teacher", ""),
        images=len(table),
        kept=int(kept.sum()),
        used=int(table.copies.sum()),
        confidence=float(table.confidence.double().mean()),
        reasons=tables.reason_rows(table),
        balance=tables.balance_rows(table),
        classes=len(table.classes),
        figures=(
            figures.confidences(name, table.confidence.double().numpy(), kept.numpy(), threshold),
            figures.balance(name, table.classes, before.numpy(), after.numpy()),
        ),
        right=str(Estimate(**notes["accuracy"]["kept"])) if "accuracy" in notes else "",
    )
