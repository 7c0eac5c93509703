"""What a check has found, as a table for the terminal: kinds by parts, worst first."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.data.issues import Issue, Severity
from tutelage.reports.figures import short

PARTS = ("labeled", "val", "test", "pool")
ORDER: tuple[Severity, ...] = ("fatal", "dropped", "note")
STYLES = {"fatal": "bold red", "dropped": "yellow", "note": ""}
EXAMPLE = 26  # characters


@dataclass(frozen=True)
class Kind:
    """All findings of a kind."""

    severity: Severity
    kind: str
    counts: dict[str, int]  # by part
    example: Issue


def kinds(issues: Sequence[Issue]) -> list[Kind]:
    """The findings by kind: fatal ones first, and of equal severity the most frequent."""
    found: dict[tuple[Severity, str], Kind] = {}
    for issue in issues:
        key = (issue.severity, issue.kind)
        one = found.setdefault(key, Kind(issue.severity, issue.kind, {}, issue))
        one.counts[issue.part] = one.counts.get(issue.part, 0) + 1
    return sorted(
        found.values(), key=lambda one: (ORDER.index(one.severity), -sum(one.counts.values()))
    )


def show(issues: Sequence[Issue], parts: Sequence[str], console: Console | None = None) -> None:
    """Print the table on standard output; it fits into 80 columns and needs no color."""
    console = console or Console(file=sys.stdout, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "found", *parts):
        table.add_column(name, justify="right" if name in parts else "left", no_wrap=bool(name))
    table.add_column("for example", no_wrap=True, overflow="ellipsis")
    for one in kinds(issues):
        style = STYLES[one.severity]
        counts = [f"{one.counts[part]:,}" if part in one.counts else "" for part in parts]
        row = [one.severity, one.kind, *counts, example_of(one.example)]
        table.add_row(*(Text(cell, style=style if i < 2 else "") for i, cell in enumerate(row)))
    console.print(table)


def example_of(issue: Issue) -> str:
    """The end of an example's path, as short as the column."""
    return short("/".join(PurePosixPath(issue.path).parts[-2:]), EXAMPLE)
