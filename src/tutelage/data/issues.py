"""What is wrong with the data, as rows that a person can work through."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from tutelage.errors import DataProblem
from tutelage.files import write_text

MOST_LINES = 20  # on the terminal, of images left out one by one

Severity = Literal["fatal", "dropped", "note"]


@dataclass(frozen=True)
class Issue:
    """One finding: fatal stops, dropped leaves the image out, note is good to know."""

    severity: Severity
    kind: str
    part: str  # labeled, val, test or pool
    path: str
    detail: str


def write_issues(path: Path, issues: Sequence[Issue]) -> None:
    """issues.csv: a header and a row for each issue, the fatal ones first."""
    order = {"fatal": 0, "dropped": 1, "note": 2}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Issue)])
    writer.writerows(astuple(i) for i in sorted(issues, key=lambda i: order[i.severity]))
    write_text(path, text.getvalue(), shared=True)  # by checks in one folder


def in_words(issues: Sequence[Issue]) -> list[str]:
    """A line for each image that is left out, of many the first, and for each note."""
    dropped = [issue for issue in issues if issue.severity == "dropped"]
    lines = [f"left out {issue.path}: {issue.detail}" for issue in dropped[:MOST_LINES]]
    if len(dropped) > MOST_LINES:
        lines.append(f"left out {len(dropped) - MOST_LINES:,} more; tutelage check lists them all")
    notes = [issue for issue in issues if issue.severity == "note"][:MOST_LINES]
    whose = ["" if issue.path in issue.detail else f"{issue.path}: " for issue in notes]
    lines += [f"note: {w}{issue.detail}" for w, issue in zip(whose, notes, strict=True)]
    return [line.replace("\n", "\\n") for line in lines]  # of a name: it would look like two


def stop_if_fatal(issues: Sequence[Issue], where: Path | None) -> None:
    """Raises DataProblem with the fatal issues, after writing all of them to issues.csv there."""
    fatal = [issue for issue in issues if issue.severity == "fatal"]
    if not fatal:
        return
    lines = [f"  {issue.part}: {issue.detail}" for issue in fatal[:10]]
    if len(fatal) > len(lines):
        lines.append(f"  and {len(fatal) - len(lines)} more")
    if where is not None:
        write_issues(where / "issues.csv", issues)
        lines.append(f"all in {where / 'issues.csv'}")
    number = f"{len(fatal)} problem" + "s" * (len(fatal) != 1)
    raise DataProblem(f"{number} with the data; nothing was computed\n" + "\n".join(lines))
