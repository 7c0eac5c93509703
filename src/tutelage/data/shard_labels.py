"""The labels of a pool in shards: one Parquet part a shard, and beside it which images to use.

Row r of part n is image r of shard n. A selection has parts of the same names with the column
`copies`, and selection.json once it is complete.
"""

import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutelage.core import Advance
from tutelage.data.label_parts import (
    ABSENT,
    UNREADABLE,
    check_answers,
    checksums,
    classes_in,
    damaged,
    ids_of,
    matrix,
    part_numbers,
    part_path,
    read_columns,
    texts,
)
from tutelage.errors import Damaged, DataProblem
from tutelage.files import read_json

READERS = 4  # threads; Parquet leaves Python's lock
SUMMED = ("id", "label", "confidence")  # columns by which a selection, or a run, knows the labels


@dataclass(frozen=True)
class Counts:
    """What the parts tell about each shard (S,), and what they have in common."""

    images: NDArray[np.int64]  # rows of each part
    entries: NDArray[np.int64]  # sum of the copies
    sums: NDArray[np.int64]  # checksums of labels and copies
    classes: tuple[str, ...]
    teacher: str  # digest of the weights that labeled


@dataclass(frozen=True)
class ShardLabels:
    """A shard's images in its order, with what a student learns about them."""

    names: list[str]  # in the source
    copies: NDArray[np.int64]  # (N,) times an epoch; 0: left out
    checksum: int  # checksum of labels and copies
    top_classes: NDArray[np.int32]  # (N, k), surest first
    top_probs: NDArray[np.float16]  # (N, k)


@dataclass(frozen=True)
class Parts:
    """Folders with a part for each shard; without a selection every readable image counts once."""

    labels: Path
    selected: Path | None = None

    def count(self, shards: Sequence[str], advance: Advance = lambda done: None) -> Counts:
        """The counts of all shards.

        Raises DataProblem, naming part and shard, where a part is missing, belongs to another
        shard, has another teacher or other classes, or its selection has other rows.
        """
        self._check_folders(len(shards))
        images, entries, sums = np.zeros((3, len(shards)), np.int64)
        first: tuple[tuple[str, ...], str] | None = None
        with ThreadPoolExecutor(READERS) as readers:
            for number, found in enumerate(readers.map(self._counted, range(len(shards)), shards)):
                images[number], entries[number], sums[number], about = found
                first = first or about
                if about != first:
                    raise DataProblem(
                        f"{self.part(number)} was labeled by another teacher, or for other "
                        f"classes, than {self.part(0).name}: label the pool anew in one folder"
                    )
                advance(1)
        assert first is not None, "a pool has a shard"
        self._check_selection(first[1])
        return Counts(images, entries, sums, *first)

    def part(self, number: int, *, selected: bool = False) -> Path:
        """The file of a shard's labels, or of its selection."""
        folder = self.selected if selected and self.selected is not None else self.labels
        return part_path(folder, number)

    def read(self, number: int, shard: str) -> ShardLabels:
        """A shard's labels; raises DataProblem where the part is not that shard's."""
        table = read_columns(self.part(number), [*SUMMED, "path", "classes", "probs"])
        classes, _ = _check_shard(self.part(number), table.schema.metadata, shard)
        if not np.array_equal(table["id"].to_numpy(), ids_of(number, np.arange(len(table)))):
            raise DataProblem(f"{self.part(number)} has ids of another part: label that shard anew")
        copies, total = self._copies(number, shard, table)
        try:
            k = table.schema.field("classes").type.list_size
            top = matrix(table["classes"], k), matrix(table["probs"], k)
            check_answers(*top, len(classes))
            names = list(texts(table["path"]))
        except UNREADABLE as error:
            raise damaged(self.part(number), error) from error
        return ShardLabels(names, copies, total, *(one.numpy() for one in top))

    def name(self, number: int, row: int) -> str:
        """The name of one image in the source."""
        name: str = read_columns(self.part(number), ["path"])["path"][row].as_py()
        return name

    def _check_folders(self, number: int) -> None:
        """Raises DataProblem where the folders have too few or too many parts."""
        for folder, what in ((self.labels, ABSENT), (self.selected, "select to the end first")):
            if folder is None:
                continue
            if not folder.is_dir():
                raise DataProblem(f"there is no folder {folder}: {what}")
            there = part_numbers(folder)
            missing = sorted(set(range(number)).difference(there))
            if missing:
                raise DataProblem(
                    f"{len(missing):,} of {number:,} parts are missing from {folder}, the first is "
                    f"{part_path(folder, missing[0]).name}: {what}"
                )
            if len(there) > number:
                raise DataProblem(
                    f"{folder} has {len(there):,} parts and the pool has {number:,} shards: give "
                    "the pool that was labeled, all of it"
                )

    def _check_selection(self, teacher: str) -> None:
        """Raises DataProblem where a selection is unfinished or of another teacher's labels."""
        if self.selected is None:
            return
        about = self.selected / "selection.json"
        if not about.exists():
            raise DataProblem(f"{self.selected} has no selection.json: select to the end first")
        content = read_json(about)
        if not isinstance(content, dict):
            raise Damaged(f"{about} is no selection: select anew")
        its = content.get("teacher", teacher)
        if its != teacher:
            raise DataProblem(
                f"{self.selected} was selected from the labels of teacher {its}, and "
                f"{self.labels} has those of {teacher}: select anew"
            )

    def _counted(
        self, number: int, shard: str
    ) -> tuple[int, int, int, tuple[tuple[str, ...], str]]:
        """Rows, entries, checksum, and classes with teacher, of one part."""
        table = read_columns(self.part(number), list(SUMMED))
        about = _check_shard(self.part(number), table.schema.metadata, shard)
        copies, total = self._copies(number, shard, table)
        return len(table), int(copies.sum()), total, about

    def _copies(self, number: int, shard: str, table: pa.Table) -> tuple[NDArray[np.int64], int]:
        """Of each row of a part, and a checksum of them and of the labels.

        Raises DataProblem where the selection is one of other labels.
        """
        labels = {name: table[name].to_numpy() for name in SUMMED}
        readable, sums = labels["label"] >= 0, checksums(labels, {})
        copies = readable.astype(np.int64)
        if self.selected is not None:
            path = self.part(number, selected=True)
            chosen = read_columns(path, ["id", "copies"], verb="select")
            copies = chosen["copies"].to_numpy().astype(np.int64)
            if len(copies) != len(table):
                raise DataProblem(
                    f"{path} has {len(copies):,} rows and the labels of {shard} have "
                    f"{len(table):,}: select anew"
                )
            known = _sums(path, (chosen.schema.metadata or {}).get(b"labels", b"{}"))
            same = np.array_equal(chosen["id"].to_numpy(), labels["id"])
            if not same or any(known.get(name, crc) != crc for name, crc in sums.items()):
                raise DataProblem(
                    f"{path} was selected from other labels than {self.part(number)} has now: "
                    "select anew"
                )
            _check_copies(path, copies, readable)
        return copies, zlib.crc32(json.dumps(sums).encode() + copies.tobytes())


def _sums(path: Path, text: bytes) -> dict[str, Any]:
    """Checksums of the labels that a selection was made of; raises DataProblem where damaged."""
    try:
        return dict(json.loads(text))
    except UNREADABLE as error:
        raise damaged(path, error, verb="select") from error


def _check_shard(path: Path, metadata: Any, shard: str) -> tuple[tuple[str, ...], str]:
    """Classes and teacher of a part; raises DataProblem where it is another shard's, or damaged."""
    try:
        about = {key.decode(): value.decode() for key, value in (metadata or {}).items()}
        classes = classes_in(about.get("classes", "[]"))
    except UNREADABLE as error:
        raise damaged(path, error) from error
    lacking = [key for key in ("shard", "classes", "teacher") if key not in about]
    if lacking:
        raise DataProblem(f"{path} does not say its {lacking[0]}: label the pool anew")
    if about["shard"] != shard:
        raise DataProblem(
            f"{path} has the labels of shard {about['shard'] or '(none)'}, and at its place the "
            f"pool has {shard}: give the pool that was labeled, in the same order"
        )
    return classes, about["teacher"]


def _check_copies(path: Path, copies: NDArray[np.int64], readable: NDArray[np.bool_]) -> None:
    """Raises DataProblem where images without a label are kept, or copies are below 0."""
    if np.any(copies[~readable]):
        raise DataProblem(f"{path} keeps images that have no label: select anew")
    if copies.min(initial=0) < 0:
        raise DataProblem(f"{path} has negative copies: select anew")
