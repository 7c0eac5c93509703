"""Parquet files that hold the images themselves, as bytes or as Hugging Face writes them."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tutelage.data import storage
from tutelage.data.columns import (
    ALIASES,
    Rows,
    broken,
    listing_of,
    taken,
    text_of,
    unused_classes,
)
from tutelage.data.parquet_schema import Layout, image_column, lacks_bytes, layout_of
from tutelage.data.row_groups import RowGroups
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.splits import split_name
from tutelage.errors import DataProblem, UsageError

SUFFIXES = (".parquet", ".pq")
UNREADABLE = (pa.ArrowException, UnicodeDecodeError)  # what damaged files raise
USUAL = ("data", "default")  # folders where Hugging Face puts a data set's files


class ParquetImages(Source):
    """A Parquet file, or a folder of them; an image's name is FILE/ROW."""

    layout = (
        "a Parquet file, or a folder of them, with a column image of bytes or "
        "struct{bytes, path}, and a column label"
    )

    def __init__(self, address: str) -> None:
        """Remember the address; nothing is read yet."""
        super().__init__(address)
        self._reset()

    def _reset(self) -> None:
        self._files: tuple[str, ...] | None = None
        self._ends: dict[str, tuple[int, ...]] = {}  # rows up to the end of each row group
        self._layouts: dict[str, Layout] = {}
        self._hollow: set[str] = set()  # files in which not all images have their bytes
        self._bytes, self._paths = RowGroups(self._load_bytes), RowGroups(self._load_paths)

    def __getstate__(self) -> str:
        """The address alone: what is held or open stays here."""
        return self.address

    def __setstate__(self, address: str) -> None:
        """The same source with nothing read yet."""
        self.address = address
        self._reset()

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether the file, or the first of the folder, has a column of images."""
        first = next(_likely(address), None)
        if first is None:
            return False
        try:
            with storage.open_binary(first) as file:
                return image_column(pq.read_schema(file)) is not None
        except (*UNREADABLE, OSError):  # a folder of nothing else is one with a broken file
            return storage.is_folder(address) and all(
                name.lower().endswith(SUFFIXES) for name in storage.files_below(address)
            )

    def shards(self) -> tuple[str, ...]:
        """The files, by name."""
        if self._files is None:
            found = _parquet_files(self.address)
            if not found:
                raise UsageError(f"no Parquet file at {self.address}; expected is {self.layout}")
            self._files = found
        if self._files == ("",):
            return (PurePosixPath(self.address).name,)
        return self._files

    def splits_of_shards(self) -> tuple[str, ...] | None:
        """As each file's name or folder tells: train-00000-of-00002.parquet."""
        told = []
        for file in self.shards():
            pieces = [re.split(r"[-_.\d]", piece)[0] for piece in reversed(file.split("/"))]
            told.append(next((piece for piece in pieces if split_name(piece)), ""))
        return tuple(told) if len(told) > 1 and all(told) else None

    def names_in(self, shard: str) -> tuple[str, ...]:
        """FILE/0, FILE/1, …"""
        ends = self._row_ends(shard)
        return tuple(f"{shard}/{row}" for row in range(ends[-1] if ends else 0))

    def listing(self, part: str) -> Listing:
        """Rows of one file after another; raises DataProblem where a file is no such."""
        files = self.shards()
        names = tuple(chain.from_iterable(map(self.names_in, files)))
        if not names:
            raise broken(self, "has no rows")
        told = self.splits_of_shards()
        by_name = None if told is None else dict(zip(files, told, strict=True))
        own = None if by_name is None else [by_name[name.rpartition("/")[0]] for name in names]
        layout = self._layout_of(files[0])
        found = {"image": layout.image, "split": layout.split, "group": layout.group}
        if part != "pool":
            if layout.label is None:
                raise broken(self, f"has no label: name a column {', '.join(ALIASES['label'])}")
            found["label"] = layout.label
        issues = taken(found, part, self)
        texts = self._texts({key: name for key, name in found.items() if key != "image"})
        rows = Rows(
            names, texts.get("label"), texts.get("split", own), texts.get("group"),
            layout.classes,
        )  # fmt: skip
        issues += unused_classes(layout.classes, rows, part, self)
        return listing_of(rows, part, issues)

    def _texts(self, wanted: dict[str, str | None]) -> dict[str, list[str]]:
        """The columns of labels, splits and groups of all files, as text."""
        texts: dict[str, list[str]] = {key: [] for key, name in wanted.items() if name is not None}
        if not texts:
            return texts
        for shard in self.shards():
            layout = self._layout_of(shard)
            with self._opened(shard) as table:
                for key, column in texts.items():
                    name = wanted[key]
                    if name not in table.schema_arrow.names:
                        raise broken(self, f"has no column {name!r} in {shard}, as others have")
                    values = table.read(columns=[name])[name]
                    names = layout.classes if key == "label" else ()
                    column += self._as_text(values, names, shard)
        return texts

    def _as_text(
        self, values: pa.ChunkedArray, classes: tuple[str, ...], shard: str
    ) -> Iterator[str]:  # fmt: skip
        """Values as text; numbers of declared classes as their names, -1 as none."""
        if not classes or not pa.types.is_integer(values.type):
            yield from map(text_of, values.to_pylist())
            return
        for number in values.to_pylist():
            if number is not None and number >= len(classes):
                raise broken(self, f"has label {number} in {shard}, of {len(classes)} classes")
            yield "" if number is None or number < 0 else classes[number]

    def read(self, name: str) -> Raw:
        """The image's bytes; raises OSError where the row has none."""
        shard, group, row = self._place(name)
        try:
            data = self._bytes.read(shard, group, row)
            outside = self._outside(shard, group, row) if data is None else None
            if outside is not None:
                return storage.read_bytes(outside)
        except (*UNREADABLE, DataProblem) as error:
            raise OSError(f"{self.where(name)} can't be read: {error}") from error
        if data is None:
            raise OSError(f"{self.where(name)} is empty")
        return data

    def _outside(self, shard: str, group: int, row: int) -> str | None:
        """The address of an image that only its path stands for; None where there is no path."""
        if not self._layout_of(shard).nested:
            return None
        path = self._paths.read(shard, group, row)
        folder = storage.parent(self._address_of(shard))
        return storage.named(folder, path.decode()) if path else None

    def where(self, name: str) -> str:
        """The file and the row in it."""
        shard, _, row = name.rpartition("/")
        return f"{self._address_of(shard)}/{row}"

    def stamp(self, name: str) -> tuple[int, int]:
        """The Parquet file's bytes and time of change, with those of an image that lies outside."""
        stamps = [storage.stamp(file) for file in self.holders(name)]
        return sum(size for size, _ in stamps), max(time for _, time in stamps)

    def holders(self, name: str) -> tuple[str, ...]:
        """The Parquet file, and an image that lies outside."""
        file = self._address_of(name.rpartition("/")[0])
        try:
            shard, group, row = self._place(name)
            if shard not in self._hollow or self._bytes.read(shard, group, row) is not None:
                return (file,)
            outside = self._outside(shard, group, row)
        except (*UNREADABLE, DataProblem, OSError):  # it is gone, or another file than it was
            return (file,)
        return (file,) if outside is None else (file, outside)

    def _address_of(self, shard: str) -> str:
        """The file's path or address."""
        if self._files is None:
            self.shards()
        return self.address if self._files == ("",) else storage.join(self.address, shard)

    def _place(self, name: str) -> tuple[str, int, int]:
        """File, row group, and row in that group."""
        shard, _, text = name.rpartition("/")
        ends = self._row_ends(shard)
        row = int(text)
        if not 0 <= row < (ends[-1] if ends else 0):
            raise OSError(f"{self.where(name)}: the file has no such row")
        group = bisect_right(ends, row)
        return shard, group, row - (ends[group - 1] if group else 0)

    def _row_ends(self, shard: str) -> tuple[int, ...]:
        """Rows up to the end of each row group."""
        if shard not in self._ends:
            self._look(shard)
        return self._ends[shard]

    def _layout_of(self, shard: str) -> Layout:
        """Which columns mean what; raises DataProblem where none holds images."""
        if shard not in self._layouts:
            self._look(shard)
        return self._layouts[shard]

    def _look(self, shard: str) -> None:
        """Read the file's footer."""
        with self._opened(shard) as table:
            about = table.metadata
            sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
            schema = table.schema_arrow
            if lacks_bytes(about):
                self._hollow.add(shard)
            layout = layout_of(schema)
        if layout is None:
            columns = ", ".join(schema.names)
            raise broken(self, f"has the columns {columns} in {shard}, of which none holds images")
        self._layouts[shard] = layout
        self._ends[shard] = tuple(accumulate(sizes))

    @contextmanager
    def _opened(self, shard: str) -> Iterator[Any]:
        """A file to read; raises DataProblem where it is no Parquet."""
        address = self._address_of(shard)
        try:
            with storage.open_binary(address) as file, pq.ParquetFile(file) as table:
                yield table
        except (*UNREADABLE, OSError) as error:
            raise broken(self, f"has a file that can't be read, {address}: {error}") from error

    def _load_bytes(self, shard: str, group: int) -> pa.Array:
        """The images of a row group as they are stored."""
        return self._load(shard, group, "bytes")

    def _load_paths(self, shard: str, group: int) -> pa.Array:
        """The paths of a row group, for images that lie outside."""
        return self._load(shard, group, "path")

    def _load(self, shard: str, group: int, field: str) -> pa.Array:
        layout = self._layout_of(shard)
        with self._opened(shard) as table:
            column = table.read_row_group(group, columns=[layout.image])[layout.image]
        chunks = [
            (pc.struct_field(chunk, field) if layout.nested else chunk).cast(pa.large_binary())
            for chunk in column.chunks
        ]
        return pa.concat_arrays(chunks)


def _parquet_files(address: str) -> tuple[str, ...]:
    """Parquet files below a folder by name, at any depth; ("",) for a file itself."""
    if address.lower().endswith(SUFFIXES) and storage.is_file(address):
        return ("",)
    return tuple(name for name in storage.files_below(address) if name.lower().endswith(SUFFIXES))


def _likely(address: str) -> Iterator[str]:
    """Addresses of Parquet files where a data set has them, without a walk through all folders."""
    if address.lower().endswith(SUFFIXES) and storage.is_file(address):
        yield address
        return
    inside = storage.names_in(address)
    usual = [name for name in inside if name in USUAL or split_name(name)]
    for folder in ("", *usual):
        root = storage.join(address, folder) if folder else address
        for name in storage.names_in(root) if folder else inside:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield storage.join(root, name)
