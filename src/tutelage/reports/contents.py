"""What a run folder holds for the report, finished or not: whatever is not there is empty."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.data import pool
from tutelage.data.find import Given, open_source
from tutelage.data.issues import Issue
from tutelage.data.pool import PseudoLabels
from tutelage.data.source import Source
from tutelage.errors import UsageError
from tutelage.files import as_written, read_json, read_parquet
from tutelage.progress import read_metrics
from tutelage.reports.robust_cards import EvaluationCard, cards
from tutelage.run import read_run
from tutelage.values import flat, load_yaml

JUDGES = {"test": "test", "val": "validation"}
CAUSES = {"selftrain": "the unlabeled images", "distill": "the teacher's answers"}  # of a verdict


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything that the page shows, as it lies in the folder."""

    name: str  # of the folder
    content: dict[str, Any]  # of run.json
    settings: dict[str, Any]  # dotted key -> value
    classes: tuple[str, ...]
    metrics: dict[str, list[dict[str, Any]]]  # round -> lines of metrics.jsonl
    labels: dict[str, PseudoLabels]  # student round -> what it learned from
    pool: Source | None  # None where there is none, or it can't be opened now
    evaluations: tuple[EvaluationCard, ...]  # what `tutelage evaluate` kept
    answers: tuple[tuple[str, str], ...]  # (true, answered) class of each judging image, last round
    issues: tuple[Issue, ...]
    starts: tuple[dict[str, Any], ...]  # of environment.json

    def notes(self, stage: str) -> dict[str, Any]:
        """What a stage left, empty where it is not done."""
        found: dict[str, Any] = self.content["stages"].get(stage, {})
        return found if found.get("state") == "done" else {}

    @property
    def judge(self) -> str | None:
        """The part that judged, 'test' or 'val'; None where none did."""
        return self.notes("evaluate").get("judge")

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Each judged round's row of run.json."""
        return self.notes("evaluate").get("rounds", []) if self.judge else []


def gather(run: Path, given: Given | None = None) -> Contents:
    """Everything there is in a run folder; raises UsageError where it is none."""
    content = read_run(run)
    with as_written(run):
        return _gathered(run, content, given)


def _gathered(run: Path, content: dict[str, Any], given: Given | None) -> Contents:
    """The same, with what run.json says."""
    config, sources = run / "config.yaml", _json(run / "data" / "sources.json", {})
    settings = load_yaml(config) if config.exists() else content["settings"]
    return Contents(
        name=run.resolve().name,
        content=content,
        settings=flat(settings),
        classes=tuple(_json(run / "data" / "classes.json", [])),
        metrics=dict(_metrics(run / "rounds")),
        labels=dict(_labels(run / "labels")),
        pool=_opened(sources["pool"], given) if "pool" in sources else None,
        evaluations=tuple(cards(run)),
        answers=_answers(run, content),
        issues=_issues(run),
        starts=tuple(_json(run / "environment.json", [])),
    )


def _opened(address: str, given: Given | None) -> Source | None:
    """The source at an address, if it is there and can be reached now."""
    try:
        return open_source(address, given)
    except (UsageError, OSError):
        return None


def _json(path: Path, otherwise: Any) -> Any:
    """The value in a file that may not be there yet."""
    return read_json(path) if path.exists() else otherwise


def _metrics(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each begun round with its logged lines."""
    for path in sorted(folder.glob("*/metrics.jsonl")):
        lines = [line for line in read_metrics(path) if "loss" in line]
        if lines:
            yield path.parent.name, lines


def _labels(folder: Path) -> Iterator[tuple[str, PseudoLabels]]:
    """Each student round's selected labels."""
    for path in sorted(folder.glob("*.parquet")):
        table = pool.load(path)
        if len(table) and table.copies is not None:
            yield path.stem, table


def _answers(run: Path, content: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """True class and answer of the last judged round on each judging image."""
    outcome = content["stages"].get("evaluate", {})
    if outcome.get("state") != "done" or not outcome["rounds"]:
        return ()
    last = run / "rounds" / outcome["rounds"][-1]["name"]
    path = last / f"predictions-{outcome['judge']}.parquet"
    if not path.exists():
        return ()
    table = read_parquet(path, ["label", "predicted"])
    return tuple(zip(table["label"].to_pylist(), table["predicted"].to_pylist(), strict=True))


def _issues(run: Path) -> tuple[Issue, ...]:
    """The rows of issues.csv; where the data stopped the run, it lies in the run folder itself."""
    for path in (run / "data" / "issues.csv", run / "issues.csv"):
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                return tuple(Issue(**row) for row in csv.DictReader(file))  # type: ignore[arg-type]  # text of our own writer
    return ()
