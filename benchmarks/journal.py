"""Rows that a benchmark keeps as soon as they are there, and the machine that they come from."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from tutelage.speed.machine import processor

Row = dict[str, Any]


def complete(
    folder: Path, wanted: Iterable[Row], run: Callable[[Row], Row], *, threads: int = 0
) -> list[Row]:
    """All rows in FOLDER/rows.jsonl, after those that are wanted and missing were run.

    A wanted row is what tells it from others, such as its method and seed; `run` makes the rest.
    """
    if threads:
        torch.set_num_threads(threads)
    file = folder / "rows.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for row in wanted:
        if any(row.items() <= done.items() for done in rows):
            continue
        rows.append(row | run(row))
        with file.open("a") as lines:
            lines.write(json.dumps(rows[-1]) + "\n")
    return rows


def machine() -> str:
    """Processor, cores and versions, for the line under a table."""
    return (
        f"{processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
