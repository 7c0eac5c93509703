"""RUN/report/index.html of a search: one self-contained page, from what search.json holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import UsageError
from tutelage.files import read_json
from tutelage.progress import duration
from tutelage.reports import search_answer as answer
from tutelage.reports import search_figures as figures
from tutelage.reports.cells import amount, milliseconds
from tutelage.reports.html import render, write_page
from tutelage.reports.search_answer import Content, accuracy_of
from tutelage.reports.search_table import heads, result_cells, with_latency
from tutelage.values import percent

FORMAT = 1  # of search.json
NAMES = 28  # signs of a network's name beside its number
MARKS = {"help": "▲", "open": "●", "none": "✓"}


def write_search_page(folder: Path, content: Content) -> Path:
    """Write the page into a run's folder, and return its path; the same search gives the same
    bytes."""
    page = render("search.html.j2", _contents(folder.resolve().name, content))
    return write_page(folder / "report" / "index.html", page)


def report_search(run: Path, state: str) -> Path:
    """Write a finished search's page again.

    Raises UsageError where the search is not finished, or another version has written it.
    """
    file = run / "search.json"
    if not file.exists():
        raise UsageError(
            f"{run} is a search that has not come to its end ({state}), so that there is nothing "
            "to show yet: the same `tutelage search` command goes on, and writes the page"
        )
    content = read_json(file)
    if content.get("format") != FORMAT:
        raise UsageError(
            f"{file} has format {content.get('format')}, and this version reads {FORMAT}: use the "
            "version of tutelage that has written it"
        )
    return write_search_page(run, content)


def _contents(name: str, content: Content) -> dict[str, Any]:
    """Everything that the template shows."""
    best = answer.best_of(content)
    shape = {"reward": answer.by_reward(content), "latency": with_latency(content)}
    outcome = answer.outcome(content)
    rewards, again, _ = figures.suggestions(content)
    return {
        "name": name,
        "content": content,
        "best": best,
        "reference": answer.reference_of(content),
        "outcome": outcome,
        "mark": MARKS[outcome],
        "headline": answer.headline(content),
        "details": answer.sentences(content),
        "facts": _facts(content, shape),
        "commands": answer.commands(content),
        "heads": heads(**shape),
        "finalists": [
            (one, answer.label(one, NAMES), result_cells(one["results"][-1], **shape))
            for one in answer.finalists(content)
        ],
        "pairs": answer.rivals(content),
        "costs_figure": figures.costs(content),
        "layers": list(_layers(best["network"], content["img_size"], content["classes"])),
        "learning_figure": figures.learning(content),
        "halves": figures.halves([value for _, value in rewards]) if len(rewards) > 1 else (),
        "again": len(again),
        "tried": answer.tried(content),
        "trials": [_row(one, shape) for one in content["trials"]],
        "reasons": answer.reasons(content),
        "setting": _setting(content),
    }


def _facts(content: Content, shape: dict[str, bool]) -> list[tuple[str, str]]:
    """The best network's numbers."""
    result = answer.best_of(content)["results"][-1]
    low, high = accuracy_of(result).interval
    right = f"{percent(accuracy_of(result).value)} ({100 * low:.1f} to {100 * high:.1f})"
    found = [("accuracy, validation", right)]
    if content["test"] is not None:
        value = content["test"]["right"] / content["test"]["total"]
        found.append(("accuracy, test", percent(value)))
    if shape["reward"]:
        found.append(("reward", f"{result['reward']:.3f}"))
    found.append(("training step", f"{milliseconds(result['step_seconds'])} ms"))
    found.append(("weights", amount(result["parameters"]).strip()))
    if result["latency"] is not None:
        found.append(("one answer", f"{milliseconds(result['latency'])} ms"))
    return found


def _layers(network: str, size: int, classes: int) -> Iterator[tuple[str, list[str]]]:
    """Each stage of an EfficientNet: operation, then layers, kernel, expansion, width, stride, se
    and pixels of a side; nothing for other networks."""
    arch = answer.architecture(network)
    if arch is None:
        return
    side = -(-size // 2)
    yield "convolution", ["1", "3", "", str(arch.stem), "2", "", str(side)]
    for stage in arch.stages:
        side = -(-side // stage.stride)
        name = {"mbconv": "MBConv", "fused": "Fused-MBConv"}[stage.operation]
        yield (
            "convolution" if stage.one_convolution else name,
            [
                str(stage.layers), str(stage.kernel), f"{stage.expansion:g}", str(stage.width),
                str(stage.stride), f"{stage.se:g}" if stage.se else "", str(side),
            ],
        )  # fmt: skip
    yield "convolution", ["1", "1", "", str(arch.head), "1", "", str(side)]
    yield "mean, linear", ["1", "", "", f"{classes:,}", "", "", "1"]


def _row(trial: Content, shape: dict[str, bool]) -> dict[str, Any]:
    """A trial with its accuracy at each rung, its last numbers, and what became of it."""
    results = trial["results"]
    cells = result_cells(results[-1], **shape) if results else []
    end = ""
    if trial["same_as"] is not None:
        end = f"the same as #{trial['same_as']}"
    elif trial["infeasible"]:
        end = f"{answer.UNUSABLE}: {' '.join(trial['infeasible'].split())}"
    return {
        "number": trial["number"],
        "network": trial["network"],
        "accuracies": " → ".join(f"{100 * accuracy_of(one).value:.1f}" for one in results),
        "cells": cells[2:],
        "time": duration(sum(one["seconds"] for one in results)) if results else "",
        "end": end,
    }


def _setting(content: Content) -> list[tuple[str, str]]:
    """What was asked for, and where."""
    weights = content["weights"]
    formula = f"accuracy · time^{weights['time']:g} · weights^{weights['params']:g}"
    return [
        ("space", content["space"]),
        ("sampler", content["sampler"]),
        ("reward", formula if answer.by_reward(content) else "accuracy alone"),
        ("reference", content["reference"]),
        ("latency limit", "none" if content["latency_limit"] is None else answer.limit_of(content)),
        ("method", content["method"]),
        ("image size", f"{content['img_size']} px"),
        ("classes", f"{content['classes']:,}"),
        ("validation images", f"{content['val_images']:,}"),
        ("device", f"{content['device']}, {content['processor']}"),
        ("threads", str(content["threads"])),
    ]
