"""Everything that tutelage does often, beside what one would use instead: costs, as ratios.

python -m benchmarks.bench [--only loop views …] [--turns 3] [--out bench-out/bench]

Each group of cases has a file of its own, which says what is compared, and runs in a process of its
own, with one thread unless a case says otherwise. OUT/bench.json, bench.html and bench.md, the
table of docs/performance.md, are written after each case. A row that is marked as unreliable was
disturbed by other work, or its turns differ too much; nothing is left out. Takes about a quarter
of an hour.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.bench_page import goal_missed, mean_ratio, page, table
from benchmarks.paired import Row, measured
from tutelage.files import write_text
from tutelage.speed.machine import environment

GROUPS = {
    "the same": "noise",
    "start": "start",
    "training loop": "loop",
    "input": "input",
    "views": "views",
    "corruptions": "corruptions",
    "labeling": "label",
    "selection": "select",
    "evaluation": "evaluating",
    "looking at data": "check",
    "shards": "shards",
    "heap": "heap",
    "weak view": "weak_view",
    "memory": "memory",
}


def run_group(module: str, turns: int | None, pipe: Connection) -> None:
    """In a process of its own: send each row as soon as it is there."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of peers
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),  # what a verb says to a person
    ):
        os.environ["TUTELAGE_CACHE"] = str(Path(folder) / "facts")
        for case in importlib.import_module(f"benchmarks.{module}").cases(Path(folder)):
            pipe.send(measured(case if turns is None else replace(case, turns=turns)))


def rows_of(group: str, turns: int | None) -> Iterator[Row]:
    """The rows of a group as they come; raises RuntimeError where its process fails."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_group, args=(GROUPS[group], turns, theirs))
    process.start()
    theirs.close()
    try:
        while True:
            yield {"group": group} | ours.recv()
    except EOFError:
        process.join()
    if process.exitcode:
        raise RuntimeError(f"the cases of {group!r} failed: see above")


def commit() -> str:
    """What is measured, where this is a repository."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write(out: Path, about: Row, rows: list[Row]) -> None:
    """All three files, whole."""
    result = {"about": about, "rows": rows}
    write_text(out / "bench.json", json.dumps(result, indent=1) + "\n", shared=True)
    write_text(out / "bench.html", page(about, rows), shared=True)
    write_text(out / "bench.md", table(rows), shared=True)


def in_words(row: Row) -> str:
    """A row for a terminal."""
    mark = "" if row["reliable"] else ", not reliable"
    goal = f", above its goal of {row['goal']}" if goal_missed(row) else ""
    return (
        f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}{mark}{goal}) {row['what']}: "
        f"{row['ours']:.3g} {row['unit']}, {row['peer']} {row['theirs']:.3g}"
    )


def main() -> None:
    """Measure the groups that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--turns", type=int, help="of each case, for a quick look")
    parser.add_argument("--out", type=Path, default=Path("bench-out/bench"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    about = {
        "commit": commit(),
        "time": datetime.now().astimezone().isoformat(timespec="minutes"),
        "machine": environment(1),
    }
    print("ours / theirs (quartiles); below 1 ours costs less")
    for group in given.only:
        before = len(rows)
        print(f"\n{group}", flush=True)
        for row in rows_of(group, given.turns):
            rows.append(row)
            write(given.out, about, rows)
            print(in_words(row), flush=True)
        if (mean := mean_ratio(rows[before:])) is not None:
            print(f"{mean:.3f} is their geometric mean")
    print(f"\n{given.out / 'bench.html'}")


if __name__ == "__main__":
    main()
