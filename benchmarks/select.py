"""Time and memory of `tutelage select`, beside a bare scan of the two columns and DuckDB.

python -m benchmarks.select --out /tmp/select [--rows 10000000] [--part-rows 1000000] [--duckdb]

Makes labels of so many rows in OUT (a part that is there is not made again): classes of very
different size, confidences that crowd below 1, half of the parts in half precision, so that there
are many ties, and the other columns of label parts. Then, each in a process of its own with its
wall time and its peak of memory: a bare scan (label and confidence, read once), selection exact,
by histogram, and with a cut by energy; with --duckdb also its window function over the same files,
which gives the same copies, at 2 GB. The selection is checked on some classes by sorting them. The
peak includes 0.5 GB of imports, which is the bare scan's, more or less.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.journal import Row, complete, machine
from benchmarks.paired import Case, wall
from tutelage.files import write_json, write_with
from tutelage.labeling.label_columns import open_labels
from tutelage.labeling.select_parts import select_parts
from tutelage.progress import Screen
from tutelage.settings import Select

TOP = 10
CHECKED = 5  # classes


def make_part(folder: Path, number: int, rows: int, classes: int) -> None:
    """A part of the labels, unless it is there."""
    path = folder / f"part-{number:05d}.parquet"
    if path.exists():
        return
    random = np.random.default_rng(number)
    sizes = 1 / np.arange(1, classes + 1) ** 0.7
    labels = random.choice(classes, rows, p=sizes / sizes.sum()).astype(np.int32)
    confidence = (1 - random.random(rows, np.float32) ** 2 * np.float32(0.95)).astype(np.float32)
    if number % 2:
        confidence = confidence.astype(np.float16).astype(np.float32)
    unreadable = random.random(rows) < 1e-4
    labels[unreadable], confidence[unreadable] = -1, 0
    energy = random.normal(10, 3, rows).astype(np.float32)
    energy[unreadable] = np.nan
    top = np.tile(np.arange(TOP, dtype=np.int32), rows)
    probs = np.tile(np.linspace(0.5, 0.01, TOP).astype(np.float16), rows)
    shard = f"shard-{number:05d}.tar"
    columns = {
        "id": (number << 32) + np.arange(rows, dtype=np.int64),
        "path": pa.array([f"{shard}/{row:08d}.jpg" for row in range(rows)]),
        "label": labels, "confidence": confidence, "energy": energy,
        "classes": pa.FixedSizeListArray.from_arrays(pa.array(top), TOP),
        "probs": pa.FixedSizeListArray.from_arrays(pa.array(probs), TOP),
    }  # fmt: skip
    names = json.dumps([f"class {i}" for i in range(classes)])
    table = pa.table(columns).replace_schema_metadata(
        {"teacher": "benchmark", "classes": names, "shard": shard}
    )
    write_with(path, lambda part: pq.write_table(table, part, compression="zstd"))


def make_labels(folder: Path, rows: int, part_rows: int, classes: int) -> None:
    """All parts; rows that a part lacks are in the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, rows, part_rows)
    with Screen().bar("make labels", rows, unit="rows") as bar:
        for number, start in enumerate(starts):
            size = min(part_rows, rows - start)
            make_part(folder, number, size, classes)
            bar.advance(size)
    write_json(folder / "labels.json", {"count": rows})


def scan(labels: Path, out: Path) -> None:
    """Read label and confidence once, by as many threads."""
    files = open_labels(labels)
    for _ in files.scan(("label", "confidence"), lambda answers: None):
        pass


def by_rule(rule: Select) -> Callable[[Path, Path], None]:
    """A selection, in a fresh folder."""

    def run(labels: Path, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        select_parts(labels, out, rule, screen=Screen())

    return run


def by_duckdb(rule: Select) -> Callable[[Path, Path], None]:
    """The same by a window function: rank in each class, and copies from it, to one file."""

    def run(labels: Path, out: Path) -> None:
        import duckdb

        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        threads = len(os.sched_getaffinity(0))
        connection = duckdb.connect(config={
            "threads": threads, "memory_limit": "2GB", "temp_directory": str(out / "spill"),
            "preserve_insertion_order": False,
        })  # fmt: skip
        connection.execute(f"""
            COPY (
              WITH ranked AS (
                SELECT id, confidence > {rule.threshold}::FLOAT AND label >= 0 AS sure,
                  row_number() OVER w AS rank, count(*) OVER (PARTITION BY label,
                  confidence > {rule.threshold}::FLOAT AND label >= 0) AS n
                FROM '{labels}/*.parquet'
                WINDOW w AS (PARTITION BY label, confidence > {rule.threshold}::FLOAT AND label >= 0
                  ORDER BY confidence DESC, id)
              )
              SELECT id, CASE WHEN sure THEN least({rule.max_copies},
                {rule.per_class} // n + (rank <= {rule.per_class} % n)::INT) ELSE 0 END AS copies
              FROM ranked
            ) TO '{out}/all.parquet' (FORMAT parquet)""")

    return run


def apart(work: Callable[[], Any]) -> Any:
    """What the work returns in a process of its own, so that memory is its own alone."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(work()))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise SystemExit("a measured process died: see above") from None
    finally:
        process.join()


def measured(work: Callable[[Path, Path], None], labels: Path, out: Path) -> Row:
    """Seconds and peak memory of the work, of all its threads."""
    start = time.monotonic()
    work(labels, out)
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(usage.ru_maxrss / 1e6, 3),
    }


def wrong_rows(labels: Path, out: Path, rule: Select, classes: int) -> int:
    """Rows of some classes whose copies are not those of sorting the class."""
    some = np.unique(np.linspace(0, classes - 1, CHECKED).astype(int))
    found = []
    for path in sorted(labels.glob("part-*.parquet")):
        table = pq.read_table(path, columns=["id", "label", "confidence"])
        copies = pq.read_table(out / path.name, columns=["id", "copies"])
        assert copies["id"].equals(table["id"]), path
        rows = np.isin(table["label"].to_numpy(), some)
        columns = (table["label"], table["confidence"], table["id"], copies["copies"])
        found.append([column.to_numpy()[rows] for column in columns])
    label, confidence, ids, copies = map(np.concatenate, zip(*found, strict=True))
    wrong = 0
    for number in some:
        rows = np.flatnonzero((label == number) & (confidence > np.float32(rule.threshold)))
        rows = rows[np.lexsort((ids[rows], -confidence[rows]))]
        assert rule.per_class != "auto"
        each, more = divmod(rule.per_class, max(1, len(rows)))
        expected = np.minimum(each + (np.arange(len(rows)) < more), rule.max_copies)
        wrong += int((copies[rows] != expected).sum())
        wrong += int(np.count_nonzero(copies[label == number]) != np.count_nonzero(expected))
    return wrong


def cases(folder: Path) -> Iterator[Case]:
    """Three million labels in three parts."""
    labels, rule = folder / "labels", Select(per_class=1300)
    make_labels(labels, 3_000_000, 1_000_000, 1000)
    for peer, side in (("a bare scan of two columns", scan), ("DuckDB", by_duckdb(rule))):
        yield Case(
            what="selection out of 3 million labels, exact", peer=peer, unit="s",
            ours=lambda: wall(lambda: by_rule(rule)(labels, folder / "ours")),
            theirs=lambda side=side: wall(lambda: side(labels, folder / "theirs")),  # type: ignore[misc]
        )  # fmt: skip


def main() -> None:
    """Make, measure, check, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("/tmp/benchmark-select"))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--part-rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, help="default: 0.433 of the rows a class")
    parser.add_argument("--duckdb", action="store_true")
    given = parser.parse_args()
    labels = given.out / f"labels-{given.rows}-{given.part_rows}-{given.classes}"
    apart(lambda: make_labels(labels, given.rows, given.part_rows, given.classes))
    per_class = given.per_class or round(given.rows / given.classes * 130 / 300)
    exact = Select(per_class=per_class)
    sides = {
        "bare scan": scan,
        "exact": by_rule(exact),
        "histogram": by_rule(Select(per_class=per_class, mode="histogram")),
        "exact, ood 0.05": by_rule(Select(per_class=per_class, ood=0.05)),
    }
    if given.duckdb:
        sides["duckdb"] = by_duckdb(exact)
    scale = {"rows": given.rows, "part_rows": given.part_rows, "classes": given.classes}

    def run(row: Row) -> Row:
        out = given.out / f"{labels.name}-{row['side']}"
        made: Row = apart(lambda: measured(sides[row["side"]], labels, out))
        if row["side"] == "exact":
            made["wrong_rows"] = apart(lambda: wrong_rows(labels, out, exact, given.classes))
        shutil.rmtree(out, ignore_errors=True)
        return made

    rows = complete(given.out, [{"side": side} | scale for side in sides], run)
    rows = [row for row in rows if scale.items() <= row.items()]
    base = next(row["seconds"] for row in rows if row["side"] == "bare scan")
    print(f"{machine()}; {len(os.sched_getaffinity(0))} cores in use")
    print(f"{given.rows:,} rows, {given.classes:,} classes, {per_class:,} a class")
    for row in rows:
        wrong = f", {row['wrong_rows']} wrong rows" if "wrong_rows" in row else ""
        print(
            f"{row['side']:<16} {row['seconds']:>8.2f} s  {row['seconds'] / base:>6.2f} scans  "
            f"{row['peak_gb']:>6.2f} GB{wrong}"
        )
    sys.exit(any(row.get("wrong_rows") for row in rows))


if __name__ == "__main__":
    main()
