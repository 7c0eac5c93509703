"""What a check has found, as a table for the terminal: kinds by parts, worst first."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.data.decode import SUFFIXES
from tutelage.data.issues import Issue, Severity
from tutelage.data.split import TOO_FEW
from tutelage.reports.cells import short
from tutelage.values import visible

PARTS = ("labeled", "val", "test", "pool")
ORDER: tuple[Severity, ...] = ("fatal", "dropped", "note")
STYLES = {"fatal": "bold red", "dropped": "yellow", "note": ""}
LEAST, MOST = 12, 60  # characters of the example


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


def parts_of(issues: Sequence[Issue]) -> list[str]:
    """The parts that something was found in, in the usual order."""
    found = {issue.part for issue in issues}
    return [part for part in PARTS if part in found]


def ready(issues: Sequence[Issue]) -> str:
    """What can be done where nothing is fatal."""
    few = any(issue.kind == TOO_FEW for issue in issues)
    return "ready to train with --val, or with --val-fraction 0" if few else "ready to train"


def show(issues: Sequence[Issue], console: Console | None = None) -> None:
    """Print the table on standard output; it fits into 80 columns and needs no color.

    What fits into no cell goes on below; what is fatal is cut, as the error says it in full.
    """
    parts = parts_of(issues)
    console = console or Console(file=sys.stdout, highlight=False)
    header = ["", "found", *parts]
    rows = [
        [one.severity, one.kind, *(f"{one.counts[p]:,}" if p in one.counts else "" for p in parts)]
        for one in kinds(issues)
    ]
    widths = [max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)]
    room = min(MOST, max(LEAST, console.width - sum(widths)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in parts else "left", no_wrap=True)
    table.add_column("for example", overflow="fold")
    for one, row in zip(kinds(issues), rows, strict=True):
        cells = [Text(cell, style=STYLES[one.severity]) for cell in row[:2]]
        table.add_row(*cells, *map(Text, row[2:]), Text(example_of(one.example, room)))
    console.print(table)


def example_of(issue: Issue, room: int) -> str:
    """The end of an image's path, or what is said of a whole part, in so many characters."""
    path = PurePosixPath(issue.path)
    if path.suffix.lower() in SUFFIXES:
        return short("/".join(path.parts[-2:]), room)
    words = visible(" ".join(issue.detail.split()))
    return f"{words[: room - 1]}…" if issue.severity == "fatal" and len(words) > room else words
