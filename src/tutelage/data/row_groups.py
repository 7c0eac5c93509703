"""Images of Parquet files by row, at random: each row group is decoded a few times, not once a row.

Parquet can be read by row group only, and a group holds hundreds of images. The last groups stay in
memory within a budget. A group that is wanted again after it had to leave is read at random: it is
then also written, as it is, to an unnamed scratch file that ends with the process, and its images
are read from there one by one. Pools that are read in order never write any.
"""

import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BUDGET = 256 * 2**20  # bytes of decoded groups held in memory
FREE = 4  # times its size that the scratch disk must have left for a group to be written there

Key = tuple[str, int]  # file, row group


@dataclass(frozen=True)
class Spilled:
    """A group in the scratch file."""

    starts: NDArray[np.int64]  # (n + 1,) where each image begins in the file, and the last ends
    missing: NDArray[np.bool_]  # (n,) rows without bytes


def _unnamed_file(folder: str) -> int:
    """A file for this process alone, gone when it ends."""
    number, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)
    return number


class RowGroups:
    """Bytes of images by file, row group and row. Reading is safe in threads."""

    def __init__(self, load: Callable[[str, int], pa.Array], *, budget: int = BUDGET) -> None:
        """`load(file, group)` decodes a group's binary column; nothing is read yet."""
        self.load, self.budget = load, budget
        self.loads = 0  # groups decoded so far, for those who count
        self._held: OrderedDict[Key, pa.Array] = OrderedDict()
        self._left: set[Key] = set()  # groups that were held before
        self._spilled: dict[Key, Spilled] = {}
        self._scratch: int | None = None
        self._end = 0  # bytes written to the scratch file
        self._map, self._loading = Lock(), Lock()

    def read(self, file: str, group: int, row: int) -> bytes | None:
        """One image's bytes, None where the row has none; raises what loading raises, and OSError
        where the group has fewer rows than the file's footer says."""
        key = (file, group)
        with self._map:
            held, spilled = self._found(key)
        if held is None and spilled is None:
            with self._loading:
                with self._map:
                    held, spilled = self._found(key)
                if held is None and spilled is None:
                    held = self._loaded(key)
        count = len(held) if held is not None else len(spilled.missing) if spilled else 0
        if row >= count:
            raise OSError(f"row group {group} has {count} rows, fewer than its file says")
        if held is not None:
            value: bytes | None = held[row].as_py()
            return value
        assert spilled is not None, "one of both"
        return self._from_scratch(spilled, row)

    def _found(self, key: Key) -> tuple[pa.Array | None, Spilled | None]:
        """The group where it is at hand; used groups leave last."""
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
        return held, self._spilled.get(key)

    def _loaded(self, key: Key) -> pa.Array:
        """The group, decoded now, in the place of those used longest ago."""
        column = self.load(*key)
        self.loads += 1
        spilled = self._spill(column) if key in self._left else None
        with self._map:
            if spilled is not None:
                self._spilled[key] = spilled
                return column
            self._held[key] = column
            size = sum(one.nbytes for one in self._held.values())
            while size > self.budget and len(self._held) > 1:
                old, gone = self._held.popitem(last=False)
                size -= gone.nbytes
                self._left.add(old)
        return column

    def _spill(self, column: pa.Array) -> Spilled | None:
        """The group's bytes at the end of the scratch file; None where the disk has no room."""
        folder = tempfile.gettempdir()
        if shutil.disk_usage(folder).free < FREE * column.nbytes:
            return None
        if self._scratch is None:
            self._scratch = _unnamed_file(folder)
            weakref.finalize(self, os.close, self._scratch)
        values = column.cast(pa.large_binary())
        offsets = np.frombuffer(values.buffers()[1], np.int64)
        offsets = offsets[values.offset : values.offset + len(values) + 1]
        content = values.buffers()[2]
        data = memoryview(content)[offsets[0] : offsets[-1]] if content is not None else b""
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._scratch, data[done:], self._end + done)
        except OSError:
            return None
        starts = offsets - offsets[0] + self._end
        self._end += len(data)
        return Spilled(starts, np.asarray(values.is_null()))

    def _from_scratch(self, spilled: Spilled, row: int) -> bytes | None:
        """One image out of the scratch file."""
        assert self._scratch is not None, "something was spilled"
        if spilled.missing[row]:
            return None
        start, stop = int(spilled.starts[row]), int(spilled.starts[row + 1])
        data = os.pread(self._scratch, stop - start, start)
        if len(data) != stop - start:
            raise OSError("the scratch file of Parquet images was cut short")
        return data
