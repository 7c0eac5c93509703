"""`tutelage compare`: several models on the same images, every pair of them, and their speed."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from tutelage.data.find import Given
from tutelage.evaluation.pairs import Pair, all_pairs
from tutelage.files import write_json
from tutelage.judging_settings import CompareSettings
from tutelage.pipelines.answers import Answers, all_answers
from tutelage.pipelines.speeds import FORMAT, check_backends, read_earlier, speeds
from tutelage.progress import Screen
from tutelage.reports.compare_page import write_compare_page
from tutelage.reports.compare_text import (
    accuracy_lines,
    pair_lines,
    robust_lines,
    speed_lines,
)
from tutelage.robustness.published_images import RELEASES
from tutelage.robustness.suite import RELATIVE
from tutelage.run import held
from tutelage.speed.machine import environment
from tutelage.speed.pareto import pareto_front
from tutelage.speed.timing import Protocol
from tutelage.values import digest

NOT_ONE_REFERENCE = (
    "what is relative to another model is left out, as that is not known to be the same for all: "
    "evaluate each with one --reference"
)
PUBLISHED = ("imagenet-c", "cifar-c", *RELEASES)  # the same images for a model of any image size


@dataclass(frozen=True)
class Comparison:
    """What `tutelage compare` found."""

    rows: tuple[Answers, ...]  # each model with its accuracy
    pairs: tuple[Pair, ...]
    robust: tuple[dict[str, Any], ...]  # numbers side by side, of each suite
    speed: tuple[dict[str, Any], ...]  # times of each backend
    content: dict[str, Any]  # all of it as compare.json has it
    page: Path | None  # compare.html, where --out was given


def compare(
    settings: CompareSettings, screen: Screen, *, given: Given | None = None,
    protocol: Protocol = Protocol(),  # noqa: B008  # a frozen value
) -> Comparison:  # fmt: skip
    """Models on the same labeled images; with --out, all of it as a page and as JSON.

    Raises UsageError where test sets or classes differ, or a backend can't be had here.
    """
    check_backends(settings.backends())
    out = settings.out
    with nullcontext() if out is None else held(out):
        earlier = read_earlier(out)
        rows = all_answers(settings, screen, given)
        pairs = all_pairs({one.name: one.right for one in rows}, seed=settings.seed)
        robust, notes = side_by_side(rows)
        content = _content(settings, rows, pairs, robust, notes) | {"speed": earlier}
        for line in (*accuracy_lines(content), *pair_lines(content), *robust_lines(content)):
            screen.result(line)
        taken: list[dict[str, Any]] = []
        for group in speeds(settings, rows, earlier, screen, protocol):
            taken.append(group | {"front": _front(group, rows)})
            left = [one for one in earlier if one["key"] not in {each["key"] for each in taken}]
            content["speed"] = taken + left  # what isn't asked for now, or not yet, stays
            if out is not None:
                write_json(out / "compare.json", content)
            for line in speed_lines(taken[-1]):
                screen.result(line)
        page = None
        if out is not None:
            content["speed"] = _current(content["speed"], rows)
            write_json(out / "compare.json", content)
            page = write_compare_page(out / "compare.html", content)
            screen.result(f"page: {page}")
    return Comparison(tuple(rows), pairs, tuple(robust), tuple(taken), content, page)


def _content(
    settings: CompareSettings, rows: Sequence[Answers], pairs: Sequence[Pair],
    robust: Sequence[dict[str, Any]], notes: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """compare.json, but for the speed."""
    return {
        "format": FORMAT,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command(settings),
        "environment": environment(settings.threads or torch.get_num_threads()),
        "test": {
            "data": settings.data,
            "images": len(rows[0].images),
            "classes": list(rows[0].classes),
            "digest": digest(list(map(list, rows[0].images))),
        },
        "models": [
            {
                "name": one.name, "path": str(one.path), "network": one.network,
                "img_size": one.img_size, "weights": one.weights,
                "accuracy": {
                    **vars(one.accuracy), "value": one.accuracy.value,
                    "low": one.accuracy.interval[0], "high": one.accuracy.interval[1],
                },
                "measures": one.measures,
            }
            for one in rows
        ],
        "pairs": [pair.plain() for pair in pairs],
        "robust": list(robust),
        "robust_notes": list(notes),
    }  # fmt: skip


def _command(settings: CompareSettings) -> str:
    """The command that does the same, whether it came from the shell or from Python."""
    words = ["tutelage", "compare", *map(str, settings.runs)]
    if settings.data is not None:
        words += ["--data", settings.data]
    if settings.latency:
        words += ["--latency", settings.latency]
        words += ["--threads", str(settings.threads or torch.get_num_threads())]
    return shlex.join([*words, "--device", settings.device, "--seed", str(settings.seed)])


def _front(group: Mapping[str, Any], rows: Sequence[Answers]) -> list[str]:
    """Names of the models that no other one beats in latency and accuracy at once."""
    share = {one.name: one.accuracy.value for one in rows}
    points = [
        (1 / row["latency"]["p50"] if row["latency"] else float("nan"), share[row["name"]])
        for row in group["rows"]
    ]
    on = pareto_front(points)
    return [row["name"] for row, front in zip(group["rows"], on, strict=True) if front]


def _current(groups: Sequence[dict[str, Any]], rows: Sequence[Answers]) -> list[dict[str, Any]]:
    """Times of these models, with the front by these accuracies; others are of no use any more."""
    names = [one.name for one in rows]
    weights = {one.name: one.weights for one in rows}
    return [
        group | {"front": _front(group, rows)}
        for group in groups
        if [row["name"] for row in group["rows"]] == names and group["weights"] == weights
    ]


def side_by_side(rows: Sequence[Answers]) -> tuple[list[dict[str, Any]], list[str]]:
    """The kept numbers of each robustness suite that all models have gone through alike, and what
    keeps others from being compared."""
    kept = [one.kept.read().get("robust", []) if one.kept is not None else [] for one in rows]
    suites = [{summary["suite"]: summary for summary in summaries} for summaries in kept]
    tables, notes = [], []
    for suite in dict.fromkeys(name for found in suites for name in found):
        summaries = [found.get(suite) for found in suites]
        why = _why_unlike(suite, rows, summaries)
        if why:
            notes.append(f"--robust {suite}: {why}")
            continue
        numbers = [found[suite]["numbers"] for found in suites]
        shared = [name for name in numbers[0] if all(name in other for other in numbers)]
        own = [name for name in shared if not name.startswith(RELATIVE)]
        if own != shared and not _same_reference([found[suite] for found in suites]):
            notes.append(f"--robust {suite}: {NOT_ONE_REFERENCE}")
            shared = own
        tables.append(
            {
                "suite": suite, "title": suites[0][suite]["title"],
                "models": [one.name for one in rows],
                "numbers": [[name, [each[name] for each in numbers]] for name in shared],
            }
        )  # fmt: skip
    return tables, notes


def _same_reference(summaries: Sequence[dict[str, Any]]) -> bool:
    """Whether one and the same model stood beside all of them."""
    marks = {its.get("reference", "") for its in summaries}
    return len(marks) == 1 and marks != {""}


def _why_unlike(
    suite: str, rows: Sequence[Answers], summaries: Sequence[dict[str, Any] | None]
) -> str:
    """Why these models' summaries of a suite can't be compared; "" where they can."""
    without = [one.name for one, its in zip(rows, summaries, strict=True) if its is None]
    if without:
        return f"not kept for {', '.join(without)}, on these images"
    asked = {None if its is None else its.get("asked") for its in summaries}
    if None in asked or len(asked) > 1:
        return "kept with other settings, or of other files"
    sizes = sorted({one.img_size for one in rows})
    if len(sizes) > 1 and suite not in PUBLISHED:  # what is done to an image goes by its size
        return f"kept at different image sizes ({', '.join(map(str, sizes))} px)"
    return ""
