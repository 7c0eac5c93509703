"""Selection over a labels folder, out of core: one selection part for each part of the labels.

Memory holds a few portions of rows and counters of each class, whatever the size of the pool. A
part of the selection is whole or absent, and names the rule and the labels that it was made of, so
that a killed run goes on; selection.json is written last.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.core import Advance
from tutelage.data.label_parts import NAME, UNREADABLE, checksums
from tutelage.errors import RunMismatch, UsageError
from tutelage.files import as_written, read_json, set_aside, whole, write_json
from tutelage.labeling.boundary import COLLECT, COUNTERS
from tutelage.labeling.counts import Counts, contents, counts_of, no_counts
from tutelage.labeling.label_columns import LabelFiles, in_order, open_labels, portions
from tutelage.labeling.rules import REASONS, Answers, Plan, T
from tutelage.labeling.select import make_plan, no_energy
from tutelage.labeling.selection import Selection
from tutelage.progress import Bar, Screen
from tutelage.run import held
from tutelage.settings import Select
from tutelage.values import differences, to_plain

SCHEMA = pa.schema(
    [("id", pa.int64()), ("copies", pa.int32()), ("reason", pa.dictionary(pa.int8(), pa.string()))]
)
LAST = "selection.json"
PASSES = {"exact": 4, "histogram": 2}  # over all rows, as a rule; energies take two more


def select_parts(
    labels: Path,
    out: Path,
    rule: Select,
    *,
    screen: Screen,
    seed: int = 0,
    overwrite: bool = False,
    counters: int = COUNTERS,
    collect: int = COLLECT,
) -> Selection:
    """The selection of a labels folder in the folder `out`, new or continued.

    Raises RunMismatch where `out` holds another rule's or other labels' selection, or another
    process works in it; UsageError where it holds something else, or energies are missing;
    DataProblem where labels are damaged, or nothing would be kept.
    """
    files = open_labels(labels)
    if not (labels / "labels.json").exists():
        screen.say(
            f"{labels} has no labels.json, which `tutelage label` writes last: all "
            f"{len(files.paths):,} parts that are there are taken for the whole pool"
        )
    if rule.ood and not files.has_energy:
        raise no_energy(str(labels))
    asked = {"rule": to_plain(rule), "seed": seed}
    if overwrite and out.exists():
        _move_aside(out)
    with held(out):
        _check_folder(out, asked, files)
        passes = PASSES[rule.mode] + (2 if rule.ood else 0)
        with screen.bar("select", files.num_rows * passes, unit="rows") as bar:
            scanned = _Scanned(files, bar)
            plan = make_plan(scanned, rule, seed=seed, counters=counters, collect=collect)
            scanned.last()
            made = _write_all(files, out, plan, asked, bar.advance)
        counts, digest = made
        about = {"digest": digest, "parts": len(files.paths), "images": files.num_rows}
        content = {
            **asked, "teacher": files.teacher, "labels": about,
            **contents(plan, counts, files.classes),
        }  # fmt: skip
        if not (out / LAST).exists() or read_json(out / LAST) != content:
            write_json(out / LAST, content)
    return Selection(out, content)


class _Scanned:
    """Label files whose passes move a bar, which grows where there are more than expected."""

    def __init__(self, files: LabelFiles, bar: Bar) -> None:
        """Nothing was read yet."""
        self.files, self.bar = replace(files, advance=bar.advance), bar
        self.num_classes, self.id_bits = files.num_classes, files.id_bits
        self.num_rows = files.num_rows

    def scan(self, columns: tuple[str, ...], visit: Callable[[Answers], T]) -> Iterator[T]:
        """As of the files; one pass more is left for writing."""
        if self.bar.done + 2 * self.num_rows > self.bar.total:
            self.bar.extend(self.num_rows)
        return self.files.scan(columns, visit)

    def last(self) -> None:
        """Only writing is left."""
        self.bar.extend(self.bar.done + self.num_rows - self.bar.total)


@dataclass(frozen=True)
class _Asked:
    """What is the same for all parts of a selection."""

    out: Path
    plan: Plan
    about: dict[str, str]  # metadata of its parts: rule, plan, teacher
    classes: tuple[str, ...]


def _write_all(
    files: LabelFiles, out: Path, plan: Plan, asked: dict[str, Any], advance: Advance
) -> tuple[Counts, str]:
    """Every part that is not there; what came out, and a digest of all labels."""
    about = {
        "asked": json.dumps(asked), "plan": _digest(plan, files), "teacher": files.teacher
    }  # fmt: skip
    if not all((out / path.name).exists() for path in files.paths):
        (out / LAST).unlink(missing_ok=True)  # it says that all parts are there
    work = partial(_write, _Asked(out, plan, about, files.classes))
    total, digest = no_counts(files.num_classes), blake2b(files.teacher.encode(), digest_size=16)
    parts = in_order(files.paths, work, files.threads)
    for rows, (counts, labels) in zip(files.rows, parts, strict=True):
        total = total + counts
        digest.update(labels.encode())
        advance(rows)
    return total, digest.hexdigest()


def _write(asked: _Asked, source: Path) -> tuple[Counts, str]:
    """A part, unless it is there; what came out, and the checksums of its labels."""
    path = asked.out / source.name
    if path.exists():
        before = _about(path)
        counts, checksum = _apply(asked, source, lambda batch: None)
        same = before["plan"] == asked.about["plan"] and before["labels"] == checksum
        if not same or pq.read_metadata(path).num_rows != counts.reasons.sum():
            raise RunMismatch(
                f"{path} was made of other labels than there are in {source.parent} now: choose "
                "another --out, or --overwrite to move it aside"
            )
        return counts, checksum
    with whole(path) as unfinished:  # noqa: SIM117  # the writer ends before the file moves
        with pq.ParquetWriter(
            unfinished, SCHEMA, compression="zstd", use_dictionary=["copies", "reason"],
            column_encoding={"id": "DELTA_BINARY_PACKED"},
        ) as writer:  # fmt: skip
            counts, checksum = _apply(asked, source, writer.write_batch)
            writer.add_key_value_metadata({**asked.about, "labels": checksum})
    return counts, checksum


def _apply(
    asked: _Asked, source: Path, write: Callable[[pa.RecordBatch], object]
) -> tuple[Counts, str]:
    """Copies and reasons of a part's portions to `write`; counts, and the labels' checksums."""
    plan, total, sums = asked.plan, no_counts(len(asked.classes)), dict[str, int]()
    names = pa.array(REASONS)
    for answers in portions(source, plan.columns, asked.classes):
        sums = checksums(answers, sums)
        copies, reasons = plan.apply(answers)
        total = total + counts_of(answers["label"], copies, reasons, len(asked.classes))
        named = pa.DictionaryArray.from_arrays(pa.array(reasons.view(np.int8)), names)
        arrays = [pa.array(answers["id"]), pa.array(copies), named]
        write(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
    return total, json.dumps(sums)


def _digest(plan: Plan, files: LabelFiles) -> str:
    """Of all that decides on the rows of a part, beside their own answers."""
    digest = blake2b(json.dumps([to_plain(plan.rule), plan.salt, files.teacher]).encode())
    for array in (plan.each, plan.more.codes, plan.more.ids, plan.lowest, plan.chance):
        digest.update(array.tobytes())
    if plan.floor is not None:
        digest.update(plan.floor.codes.tobytes() + plan.floor.ids.tobytes())
    return digest.hexdigest()[:32]


def _about(path: Path) -> dict[str, str]:
    """What a part of a selection says of itself; raises UsageError where the file is none."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        about = {key.decode(): value.decode() for key, value in metadata.items()}
        return {key: about[key] for key in ("asked", "plan", "labels")}
    except UNREADABLE:
        raise UsageError(f"{path} is no part of a selection: choose another --out") from None


def _check_folder(out: Path, asked: dict[str, Any], files: LabelFiles) -> None:
    """Raises RunMismatch where the folder holds another selection."""
    parts = _parts_of_selection(out)
    names = {path.name for path in files.paths}
    before = None
    if (out / LAST).exists():
        content = read_json(out / LAST)
        with as_written(out / LAST):
            before = {"rule": content["rule"], "seed": content["seed"]}
    elif parts:
        with as_written(parts[0]):
            before = json.loads(_about(parts[0])["asked"])
    changed = differences(before, asked) if before is not None else []
    changed += [f"{path.name}: not among the labels" for path in parts if path.name not in names]
    if changed:
        raise RunMismatch(
            f"{out} holds another selection:\n  " + "\n  ".join(changed) + "\n"
            "give the same rule and labels to continue it, choose another --out, or --overwrite to "
            "move it aside"
        )


def _parts_of_selection(out: Path) -> list[Path]:
    """The parts that are there; raises UsageError where the folder holds something else."""
    there = sorted(out.iterdir())
    parts = [path for path in there if NAME.fullmatch(path.name)]
    known = {LAST, ".lock", f"{LAST}.part"} | {path.name for path in parts}
    for path in there:
        if path.name not in known and not NAME.fullmatch(path.name.removesuffix(".part")):
            raise UsageError(f"{out} is no selection (it has {path.name}): choose another --out")
    for path in parts[:1]:
        _about(path)
    return parts


def _move_aside(out: Path) -> None:
    """Rename the old selection, unless a process works in it; nothing is ever deleted."""
    if not _parts_of_selection(out) and not (out / LAST).exists():
        return
    with held(out):
        set_aside(out)
