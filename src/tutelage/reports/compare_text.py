"""A comparison's tables for the terminal: contents of compare.json in, lines out."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.evaluation.intervals import Accuracy
from tutelage.reports.cells import amount, milliseconds, short, table
from tutelage.values import percent

MOST_MEASURES = 3  # columns beside the accuracy that a terminal has room for


def accuracy_lines(content: Mapping[str, Any]) -> list[str]:
    """Each model's accuracy with its interval, and its other measures."""
    test, models = content["test"], content["models"]
    where = f" of {test['data']}" if test["data"] else ""
    names = shared_measures(models)[:MOST_MEASURES]
    rows = [["", "accuracy", "95 % interval", *map(words, names)]]
    for one in models:
        right = Accuracy(one["accuracy"]["right"], one["accuracy"]["total"])
        low, high = right.interval
        rows.append(
            [one["name"], percent(right.value), f"{100 * low:.1f} to {100 * high:.1f}",
             *(shown(name, one["measures"][name]) for name in names)]
        )  # fmt: skip
    return [f"{test['images']:,} test images{where}, {len(test['classes'])} classes", *table(rows)]


def pair_lines(content: Mapping[str, Any]) -> list[str]:
    """A sentence a pair."""
    return [pair["sentence"] for pair in content["pairs"]]


def robust_lines(content: Mapping[str, Any]) -> list[str]:
    """The numbers of each suite side by side, and what is missing."""
    lines = []
    for suite in content["robust"]:
        rows = [["", *(short(name) for name in suite["models"])]]
        rows += [
            [words(name), *(shown(name, value) for value in values)]
            for name, values in suite["numbers"]
        ]
        lines += [f"{suite['title']}:", *table(rows)]
    return lines + [f"note: {note}" for note in content["robust_notes"]]


def speed_lines(group: Mapping[str, Any]) -> list[str]:
    """One backend's table, then what to know of its rows."""
    rows = [["", "ms p50", "p95", "images/s", "at", "weights", "MACs", "memory"]]
    notes = []
    for row in group["rows"]:
        mark = ("*" if row["name"] in group["front"] else " ") + ("?" if doubted(row) else " ")
        rows.append([f"{mark} {short(row['name'])}", *speed_cells(row)])
        notes += [f"{row['name']}: {note}" for note in speed_notes(row)]
    head = (
        f"speed on {group['backend']} ({group['device']}), {threads(group)}, "
        f"{group['precision']}; *: no other is as fast and as accurate"
        f"{'; ?: unreliable' if any(map(doubted, group['rows'])) else ''}"
    )
    return [head, *table(rows), *(f"  {note}" for note in notes)]


def threads(group: Mapping[str, Any]) -> str:
    """How many threads."""
    return f"{group['threads']} thread{'' if group['threads'] == 1 else 's'}"


def speed_cells(row: Mapping[str, Any]) -> list[str]:
    """A row's numbers as they are shown: times, images a second, costs."""
    late, rate = row["latency"], row["images_per_second"]
    times = ["-", "-"] if late is None else [milliseconds(late["p50"]), milliseconds(late["p95"])]
    return [
        *times,
        "-" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}",
        "-" if row["batch"] is None else str(row["batch"]),
        amount(row["parameters"]), amount(row["macs"]), f"{amount(row['memory_bytes'])}B",
    ]  # fmt: skip


def doubted(row: Mapping[str, Any]) -> bool:
    """Whether a row's times are not to be relied on."""
    return bool(row["unreliable"])


def speed_notes(row: Mapping[str, Any]) -> list[str]:
    """Why a row has no times, or why they are not to be relied on."""
    if row["failure"]:
        return [f"no times: {row['failure']}"]
    notes = [f"unreliable: {'; '.join(row['unreliable'])}"] if row["unreliable"] else []
    if row["throughput_failure"]:
        notes.append(f"no images/s: {row['throughput_failure']}")
    if row["search"] and "memory" in row["search"]["stopped"]:
        notes.append(row["search"]["stopped"])
    return notes


def shared_measures(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the measures that all models have."""
    return [name for name in models[0]["measures"] if all(name in m["measures"] for m in models)]


def shown(name: str, value: float) -> str:
    """A number under its name, as `tutelage evaluate` writes it."""
    in_percent = name == "balanced" or name.endswith("calibration_error")
    return percent(value) if in_percent else f"{value:.3f}"


def words(name: str) -> str:
    """The name of a number as words."""
    return name.replace("_", " ").replace(".", " ")
