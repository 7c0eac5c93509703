"""The columns of a labels folder's parts that selection reads: streamed, several parts at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.core import Advance
from tutelage.data.label_parts import (
    KINDS,
    UNREADABLE,
    classes_in,
    damaged,
    part_numbers,
    part_path,
)
from tutelage.data.parquet_schema import statistics_of
from tutelage.errors import DataProblem, UsageError
from tutelage.labeling.rules import Answers, Array, T
from tutelage.speed.machine import available_cores

PORTION = 1 << 19  # rows in memory at once, of each thread
LARGEST_ID_BITS = 63
Unit = TypeVar("Unit")


@dataclass(frozen=True)
class LabelFiles:
    """A labels folder: its parts in order, what they say of themselves, and how many rows."""

    paths: tuple[Path, ...]
    rows: tuple[int, ...]  # of each part
    row_groups: tuple[tuple[int, ...], ...]  # rows of each row group of each part
    classes: tuple[str, ...]
    teacher: str
    has_energy: bool
    id_bits: int  # all ids are below two to this power
    threads: int
    advance: Advance = lambda rows: None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return sum(self.rows)

    def scan(self, columns: tuple[str, ...], visit: Callable[[Answers], T]) -> Iterator[T]:
        """What `visit` makes of each portion of these columns, in order.

        Raises DataProblem, naming the part, where a column is damaged or has labels out of range.
        """

        def work(unit: tuple[int, list[int]]) -> tuple[int, list[T]]:
            number, groups = unit
            made = [visit(a) for a in portions(self.paths[number], columns, self.classes, groups)]
            return sum(self.row_groups[number][group] for group in groups), made

        for rows, made in in_order(self._units(), work, self.threads):
            yield from made
            self.advance(rows)

    def _units(self) -> Iterator[tuple[int, list[int]]]:
        """Work for one thread: a part, or so many of its row groups that a portion is full."""
        for number, sizes in enumerate(self.row_groups):
            groups: list[int] = []
            rows = 0
            for group, size in enumerate(sizes):
                groups.append(group)
                rows += size
                if rows >= PORTION:
                    yield number, groups
                    groups, rows = [], 0
            if groups:
                yield number, groups


def open_labels(folder: Path) -> LabelFiles:
    """A labels folder, from the footers of its parts.

    Raises UsageError where there are none; DataProblem where one is missing or damaged, or where
    parts come from different teachers.
    """
    found = part_numbers(folder) if folder.is_dir() else []
    if not found:
        raise UsageError(f"{folder} has no part-00000.parquet: give the --out of `tutelage label`")
    for number, there in enumerate(found):
        if number != there:
            raise DataProblem(
                f"{folder} has {len(found):,} parts, but no {part_path(folder, number).name}: let "
                "`tutelage label` finish"
            )
    threads = min(8, len(available_cores()))
    footers = list(in_order((part_path(folder, number) for number in found), _footer, threads))
    first = footers[0]
    for one in footers:
        if (one.teacher, one.classes) != (first.teacher, first.classes):
            raise DataProblem(
                f"{one.path} was labeled by teacher {one.teacher[:16]}, {first.path.name} by "
                f"{first.teacher[:16]}: label the pool by one teacher"
            )
    last = max(one.last_id for one in footers)
    return LabelFiles(
        paths=tuple(one.path for one in footers),
        rows=tuple(sum(one.groups) for one in footers),
        row_groups=tuple(one.groups for one in footers),
        classes=first.classes,
        teacher=first.teacher,
        has_energy=all(one.has_energy for one in footers),
        id_bits=last.bit_length(),
        threads=threads,
    )


@dataclass(frozen=True)
class _Footer:
    """What a part says of itself."""

    path: Path
    groups: tuple[int, ...]  # rows of each row group
    classes: tuple[str, ...]
    teacher: str
    has_energy: bool
    last_id: int  # not below any id of the part


def _footer(path: Path) -> _Footer:
    """Read without its rows; raises DataProblem where the file is no part of labels."""
    try:
        footer = pq.read_metadata(path)
        names = footer.schema.names
        missing = {"id", "label", "confidence"}.difference(names)
        if missing:
            raise KeyError(f"it has no column {min(missing)}")
        about = footer.metadata or {}
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        ids = names.index("id")
        statistics = [statistics_of(footer, number, ids) for number in range(len(groups))]
        last = [
            s.max if s is not None and s.has_min_max else (1 << LARGEST_ID_BITS) - 1
            for s in statistics
        ]
        if not all(isinstance(one, int) for one in last):
            raise TypeError("its ids are no numbers")
        return _Footer(
            path, tuple(group.num_rows for group in groups),
            classes_in(about[b"classes"].decode()), about[b"teacher"].decode(),
            "energy" in names, max(last, default=0),
        )  # fmt: skip
    except UNREADABLE as error:
        raise damaged(path, error) from error


def portions(
    path: Path, columns: tuple[str, ...], classes: tuple[str, ...], groups: list[int] | None = None
) -> Iterator[dict[str, Array]]:
    """Columns of a part, or of some of its row groups, in portions.

    Raises DataProblem where the file is damaged, a value is missing, or a label has no class.
    """
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(
                PORTION, row_groups=groups, columns=list(columns), use_threads=False
            )
            for batch in batches:
                yield {name: _values(batch, name, len(classes)) for name in columns}
    except UNREADABLE as error:
        raise damaged(path, error) from error


def _values(batch: pa.RecordBatch, name: str, num_classes: int) -> Array:
    """A column as an array of its kind; raises ValueError where it has holes or wrong labels."""
    column = batch.column(name)
    if column.null_count:
        raise ValueError(f"{column.null_count:,} values of {name} are missing")
    values: Array = column.to_numpy(zero_copy_only=False).astype(KINDS[name], copy=False)
    if name == "label" and values.max(initial=-1) >= num_classes:
        raise ValueError(f"label {values.max()} is none of the {num_classes:,} classes")
    if name == "id" and values.min(initial=0) < 0:
        raise ValueError(f"id {values.min()} is below 0")
    return values


def in_order(units: Iterable[Unit], work: Callable[[Unit], T], threads: int) -> Iterator[T]:
    """`work` of each unit, in order, by so many threads; few results wait at a time."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for unit in units:
                waiting.append(pool.submit(work, unit))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
