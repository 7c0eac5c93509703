"""A table of image paths with their labels: CSV, TSV, Parquet, or a DataFrame from Python."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from sys import intern
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.data import storage
from tutelage.data.columns import Rows, broken, listing_of, needed, pick, taken, text_of
from tutelage.data.delimited import parse
from tutelage.data.issues import Issue
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.splits import split_name
from tutelage.errors import DataProblem, UsageError

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET = (".parquet", ".pq")
JUDGED = {"test": 2, "val": 1}  # where a path is in two splits, the stronger has it


class Table(Source):
    """Rows with a path, and where there are any a label, a split and a group."""

    layout = (
        "a CSV, TSV or Parquet table that names the columns path and label, and if wanted split "
        "and group: DATA.csv with cats/1.jpg,cat"
    )

    def __init__(self, address: str, *, columns: Mapping[str, Sequence[Any]] | None = None) -> None:
        """A table in a file, or these columns, whose paths are seen from the working folder."""
        super().__init__(address)
        self._given = columns
        self._folder = "" if columns is not None else storage.parent(address)

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether it is a file with a table's suffix."""
        return address.lower().endswith(TEXT + PARQUET) and storage.is_file(address)

    def listing(self, part: str) -> Listing:
        """Rows in the table's order; a path that stands there twice is kept once, and said."""
        columns, lines = self._columns()
        names = list(columns)
        found: dict[str, str | None] = {"path": needed("path", names, self)}
        found |= {key: pick(key, names) for key in ("split", "group")}
        if part != "pool":
            found["label"] = needed("label", names, self)
        issues = taken(found, part, self)
        texts = {
            key: [intern(text_of(value)) for value in columns[name]]  # classes repeat
            for key, name in found.items()
            if name is not None
        }
        if not texts["path"]:
            raise broken(self, "has no rows below its header")
        rows, issues = self._with_paths(texts, lines, part, issues)
        kept, more = _once(rows, part, self)
        return listing_of(kept, part, [*issues, *more])

    def _columns(self) -> tuple[Mapping[str, Sequence[Any]], Sequence[int]]:
        """All columns by name, and each row's line; raises DataProblem where they can't be read."""
        if self._given is not None:
            some = next(iter(self._given.values()), ())
            return self._given, range(1, len(some) + 1)
        try:
            if self.address.lower().endswith(PARQUET):
                return self._parquet()
            table = parse(storage.read_bytes(self.address))
        except DataProblem as error:
            raise broken(self, str(error)) from error
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no file {self.address}: expected is {self.layout}"
            ) from error
        except OSError as error:
            raise broken(self, f"can't be read: {error}") from error
        return table.columns, table.lines

    def _parquet(self) -> tuple[Mapping[str, Sequence[Any]], Sequence[int]]:
        """The columns with a meaning; of the others, their names alone."""
        try:
            with storage.open_binary(self.address) as file, pq.ParquetFile(file) as table:
                names = table.schema_arrow.names
                wanted = {pick(key, names) for key in ("path", "label", "split", "group")}
                read = table.read(columns=[name for name in names if name in wanted])
            columns = {n: read[n].to_pylist() if n in wanted else [] for n in names}
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataProblem(f"can't be read as Parquet: {error}") from error
        return columns, range(1, read.num_rows + 1)

    def _with_paths(
        self, texts: dict[str, list[str]], lines: Sequence[int], part: str, issues: list[Issue]
    ) -> tuple[Rows, list[Issue]]:
        """The rows that have a path, written with forward slashes."""
        unit = "line" if self.address.lower().endswith(TEXT) else "row"
        kept = [row for row, path in enumerate(texts["path"]) if path]
        for row, path in enumerate(texts["path"]):
            if not path:
                where = f"{self.address}, {unit} {lines[row]}"
                issues.append(Issue("dropped", "no path", part, where, "has no path"))
        if not kept:
            raise broken(self, f"has {len(texts['path']):,} rows, none with a path")
        paths = [texts["path"][row] for row in kept]
        turned = [_forward(path) for path in paths]
        if any("\\" in path and "\\" not in turn for path, turn in zip(paths, turned, strict=True)):
            detail = f"backslashes in the paths of {self.address} are read as slashes"
            issues.append(Issue("note", "backslashes", part, self.address, detail))
        some = {k: [v[row] for row in kept] for k, v in texts.items() if k != "path"}
        rows = Rows(turned, some.get("label"), some.get("split"), some.get("group"))
        return rows, issues

    def read(self, name: str) -> Raw:
        """The file's bytes."""
        return storage.read_bytes(storage.named(self._folder, name))

    def where(self, name: str) -> str:
        """The file's path or address."""
        return storage.join(self._folder, name)

    def stamp(self, name: str) -> tuple[int, int]:
        """The file's bytes and time of change."""
        return storage.stamp(storage.named(self._folder, name))


def _forward(path: str) -> str:
    """A path as Windows writes it, with slashes; './' goes too, so that equal paths are equal."""
    if "://" in path or not any(mark in path for mark in ("\\", "./", "//")):
        return path
    if "\\" in path and "/" not in path:
        path = path.replace("\\", "/")
    return str(PurePosixPath(path))


def _once(rows: Rows, part: str, source: Source) -> tuple[Rows, list[Issue]]:
    """Each path once: left out where its labels differ, judged on where its splits do."""
    first: dict[str, list[int]] = {}
    for row, name in enumerate(rows.names):
        first.setdefault(name, []).append(row)
    if len(first) == len(rows.names):
        return rows, []
    kept, issues = [], []
    for name, same in first.items():
        labels = sorted({rows.labels[row] for row in same} - {""}) if rows.labels else []
        where = source.where(name)
        if part != "pool" and len(labels) > 1:
            detail = f"{source.address} labels it {' and '.join(labels)}"
            issues += [Issue("dropped", "two classes", part, where, detail)] * len(same)
            continue
        best = max(same, key=lambda row: (_strength(rows, row), -row))
        if rows.labels and labels and not rows.labels[best]:
            best = next(row for row in same if rows.labels[row])
        kept.append(best)
        if len(same) > 1:
            issues.append(_twice(rows, same, best, part, where, source))
    kept.sort()
    return _rows(rows, kept), issues


def _strength(rows: Rows, row: int) -> int:
    """How much a row's split is judged on."""
    return JUDGED.get(split_name(rows.splits[row]), 0) if rows.splits else 0


def _twice(
    rows: Rows, same: list[int], best: int, part: str, where: str, source: Source
) -> Issue:  # fmt: skip
    """Said of a path that stands in several rows."""
    splits = sorted({rows.splits[row] for row in same}) if rows.splits else []
    if len(splits) > 1 and rows.splits:
        detail = f"{source.address} has it in {' and '.join(splits)}: kept in {rows.splits[best]}"
        return Issue("dropped", "two splits", part, where, detail)
    detail = f"{source.address} lists it {len(same)} times: kept once"
    return Issue("note", "listed twice", part, where, detail)


def _rows(rows: Rows, kept: list[int]) -> Rows:
    """These rows alone."""

    def some(values: Sequence[str] | None) -> list[str] | None:
        return None if values is None else [values[row] for row in kept]

    names = [rows.names[row] for row in kept]
    return Rows(names, some(rows.labels), some(rows.splits), some(rows.groups), rows.classes)
