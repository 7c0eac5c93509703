"""The page of `python -m benchmarks.bench`: a table a group, ratios on a logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paired import OTHERS, SPREAD, Row
from tutelage.reports.html import filled

WIDTH, MOST = 180, 6.0  # pixels of the axis; doublings to each side of 1
FEW = 5  # rows of a group, for a mean


def place(ratio: float) -> float:
    """Pixels from the left for a ratio."""
    doublings = min(MOST, max(-MOST, math.log2(ratio)))
    return round((doublings + MOST) / (2 * MOST) * WIDTH, 1)


def mean_ratio(rows: Sequence[Row]) -> float | None:
    """The geometric mean of a group's ratios, where there are enough of them to one peer."""
    if len(rows) < FEW or len({row["peer"] for row in rows}) > 1:
        return None
    return math.exp(math.fsum(math.log(row["ratio"]) for row in rows) / len(rows))


def goal_missed(row: Row) -> bool:
    """Whether a ratio is above what it should be at most."""
    return row["goal"] is not None and row["ratio"] > row["goal"]


def why_unreliable(row: Row) -> str:
    """What speaks against a row, in words."""
    reasons = []
    if row["others"] > OTHERS:
        reasons.append(f"other work kept {row['others']:.0%} of the cores busy")
    if row["high"] - row["low"] > SPREAD * row["ratio"]:
        reasons.append("its turns differ much")
    return " and ".join(reasons)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, as docs/performance.md has them."""
    lines = [
        "| group | work | beside | ours | theirs | ours / theirs | quartiles |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        mark = "" if row["reliable"] else " ?"
        lines.append(
            f"| {row['group']} | {row['what']}, {row['unit']} | {row['peer']} | {row['ours']:.3g} "
            f"| {row['theirs']:.3g} | {row['ratio']:.3f}{mark} "
            f"| {row['low']:.3f} to {row['high']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def page(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """All of it as HTML."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        shown = {name: place(row[name]) for name in ("low", "ratio", "high")}
        more = {"at": shown, "why": why_unreliable(row), "missed": goal_missed(row)}
        groups.setdefault(row["group"], []).append(row | more)
    contents = {
        "about": about, "groups": groups, "middle": place(1), "width": WIDTH,
        "means": {name: mean_ratio(some) for name, some in groups.items()},
    }  # fmt: skip
    template = Path(__file__).with_name("bench.html.j2").read_text(encoding="utf-8")
    return filled(template, contents)
