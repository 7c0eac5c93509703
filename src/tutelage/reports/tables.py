"""The report's words and tables: contents of a run folder in, rows for the page out."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data.pool import PseudoLabels
from tutelage.evaluation.intervals import Accuracy
from tutelage.progress import duration
from tutelage.reports.contents import JUDGES, Contents
from tutelage.reports.figures import MAX_NAMED

MARKS = {"help": ("▲", "it helps"), "hurt": ("▼", "it hurts"), "open": ("●", "it is open")}
MOST_PAIRS = 25  # rows of the table of confused classes
MOST_CLASSES = 50  # rows of the table of class balance


@dataclass(frozen=True)
class Headline:
    """What the page says first."""

    outcome: str  # help, open, hurt; 'none' where no two networks were compared
    mark: str  # a sign that does without color
    spoken: str
    sentence: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """Which classes were taken for which: a matrix for few classes, the worst pairs for many."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]  # (K, K), row: true class; empty for many classes
    totals: tuple[int, ...]  # judging images of each class
    pairs: tuple[tuple[str, str, int, int], ...]  # true, answered, images, images of the true one


@dataclass(frozen=True)
class StageTime:
    """The time that a stage took."""

    name: str
    state: str
    seconds: float
    words: str
    share: float  # of the longest stage


def headline(contents: Contents) -> Headline:
    """The verdict; else the accuracy; else why there is neither yet."""
    outcome = contents.notes("evaluate")
    if not outcome:
        return Headline("none", "…", "not finished", *_unfinished(contents.content))
    judge = contents.judge
    if judge is None:
        return Headline(
            "none", "-", "no verdict", "no images to judge on",
            ("give --test or --val to learn the accuracy",),
        )  # fmt: skip
    verdict = outcome["verdict"]
    if verdict is None:
        right = Accuracy(**contents.rounds[-1][judge])
        sentence = f"accuracy on the {JUDGES[judge]} images: {right}"
        return Headline("none", "✓", "accuracy", sentence, _aside(contents))
    mark, spoken = MARKS[verdict["outcome"]]
    rounds = contents.rounds
    return Headline(
        verdict["outcome"], mark, spoken, verdict["sentence"],
        (
            f"{verdict.get('round', rounds[-1]['name'])} against {rounds[0]['name']}, which "
            "learned from the labels alone, on the same images",
            f"{verdict['gained']:,} images gained (right only after), "
            f"{verdict['lost']:,} lost (right only before)",
            f"McNemar's exact test: p = {verdict['p_value']:.2g}",
            *_aside(contents),
        ),
    )  # fmt: skip


def _aside(contents: Contents) -> tuple[str, ...]:
    """Why the guard ended the run, or what became of the fix for larger images, where either is."""
    notes, fix = contents.notes("guard"), contents.notes("fix")
    if not notes:
        return (fix["sentence"],) if fix else ()
    return (f"gave up on {notes['round']}: {notes['reason']}", f"{notes['kept']} is kept")


def _unfinished(content: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Where the run stands, as a sentence, and what to do."""
    stage = content["stage"] or "the start"
    if content["state"] == "failed":
        return f"not finished: failed in {stage}", (content.get("error", ""),)
    if content["state"] == "interrupted":
        return f"not finished: stopped in {stage}", ("the same command goes on",)
    return f"not finished: at {stage} when this page was written", (
        "if it was stopped, the same command goes on",
    )


def accuracy_rows(contents: Contents) -> list[dict[str, Any]]:
    """Each judged round with its accuracy, interval, and the other part's accuracy."""
    judge = contents.judge
    if judge is None:
        return []
    other = "val" if judge == "test" else "test"
    rows = []
    for row in contents.rounds:
        right = Accuracy(**row[judge])
        low, high = right.interval
        beside = str(Accuracy(**row[other])) if other in row else ""
        rows.append(row | {"right": right, "low": low, "high": high, "beside": beside})
    return rows


def confusion(contents: Contents) -> Confusion | None:
    """The last round's answers against the truth; None where nothing was judged."""
    if not contents.answers:
        return None
    classes, counts = contents.classes, Counter(contents.answers)
    totals = Counter(true for true, _ in contents.answers)
    matrix: tuple[tuple[int, ...], ...] = ()
    if len(classes) <= MAX_NAMED:
        matrix = tuple(tuple(counts[true, said] for said in classes) for true in classes)
    wrong = sorted((-n, true, said) for (true, said), n in counts.items() if true != said)
    pairs = tuple((true, said, -n, totals[true]) for n, true, said in wrong[:MOST_PAIRS])
    return Confusion(classes, matrix, tuple(totals[name] for name in classes), pairs)


def class_counts(table: PseudoLabels) -> tuple[Tensor, Tensor]:
    """Images of each class (K,) as the teacher labeled them, and as used, with copies."""
    assert table.copies is not None, "only selected tables are shown"
    before = torch.bincount(table.labels, minlength=len(table.classes))
    after = torch.zeros_like(before).index_add_(0, table.labels, table.copies)
    return before, after


def balance_rows(table: PseudoLabels) -> list[tuple[str, int, int, int]]:
    """Class, images as labeled, images kept, and images as used; the most frequent classes."""
    assert table.copies is not None, "only selected tables are shown"
    before, after = class_counts(table)
    kept = torch.bincount(table.labels[table.rows()], minlength=len(table.classes))
    order = list(range(len(table.classes)))
    if len(table.classes) > MOST_CLASSES:
        order = before.argsort(descending=True, stable=True).tolist()[:MOST_CLASSES]
    return [(table.classes[i], int(before[i]), int(kept[i]), int(after[i])) for i in order]


def reason_rows(table: PseudoLabels) -> list[tuple[str, int, float]]:
    """What became of the pool's images: reason, images, share."""
    counts = Counter(table.reasons)
    return [(str(reason), n, n / len(table)) for reason, n in counts.most_common()]


def issue_rows(contents: Contents) -> list[tuple[str, str, str, int]]:
    """Severity, part, kind and number of each kind of issue, in the order of issues.csv."""
    counts = Counter((issue.severity, issue.part, issue.kind) for issue in contents.issues)
    return [(*key, n) for key, n in counts.items()]


def setting_rows(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Each setting as one would write it in YAML."""
    return [(key, _yaml(value)) for key, value in settings.items()]


def _yaml(value: Any) -> str:
    """A plain value in YAML's words."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def stage_rows(content: dict[str, Any]) -> list[StageTime]:
    """The time of each stage but the report itself, which has none while it is written."""
    stages = {name: notes for name, notes in content["stages"].items() if name != "report"}
    longest = max([notes.get("seconds", 0.0) for notes in stages.values()] + [0.01])
    return [
        StageTime(name, notes["state"], seconds, _words(seconds), seconds / longest)
        for name, notes in stages.items()
        for seconds in [notes.get("seconds", 0.0)]
    ]


def _words(seconds: float) -> str:
    """Short times with a digit more."""
    return f"{seconds:.2f}s" if seconds < 10 else duration(seconds)


def total_words(stages: Sequence[StageTime]) -> str:
    """The time of all stages together."""
    return _words(sum(stage.seconds for stage in stages))
