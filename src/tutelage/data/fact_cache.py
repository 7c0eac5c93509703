"""Facts of images that were read before, by place, size and time of change of their files.

One Parquet file a source, in $TUTELAGE_CACHE, else $XDG_CACHE_HOME/tutelage or ~/.cache/tutelage.
It only saves time: one that can't be read or written is done without, and it may be deleted.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from hashlib import blake2b
from pathlib import Path
from threading import get_ident

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.data.facts import Facts
from tutelage.data.source import Images
from tutelage.data.stamps import Stamp, stamps_of
from tutelage.data.storage import absolute
from tutelage.errors import TutelageError
from tutelage.files import whole

VERSION = f"2, Pillow {PIL.__version__}"  # other decoders or another examine.py, other facts
MOST_IMAGES = 2_000_000  # of one source; beyond, those not asked for are let go first
MOST_BYTES = 1 << 30  # of all files; beyond, the oldest are deleted
JUST_NOW = 2 * 10**9  # ns: a file that is so new may change again without its time changing

SCHEMA = pa.schema(
    [
        ("where", pa.string()), ("file_bytes", pa.int64()), ("changed", pa.int64()),
        ("content", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
        ("problem", pa.string()), ("mode", pa.string()), ("bytes", pa.int64()),
        ("look", pa.uint64()), ("gray", pa.bool_()), ("flat", pa.bool_()),
        ("animated", pa.bool_()),
    ]
)  # fmt: skip
assert SCHEMA.names[3:] == [field.name for field in fields(Facts)]


class FactCache:
    """Facts of one source's images; looking up and remembering is safe in threads."""

    def __init__(self, path: Path | None) -> None:
        """Read the file, where there is one; None remembers nothing."""
        self.path = path
        self.known = {} if path is None else _load(path)
        self.asked: set[str] = set()
        self.is_new = False

    @classmethod
    def of(cls, address: str) -> "FactCache":
        """The cache of a source; images in memory, and files named one by one, have none."""
        folder = cache_folder()
        if folder is None or not address or address.startswith("memory:"):
            return cls(None)
        name = blake2b(f"{VERSION}/{absolute(address)}".encode(), digest_size=16).hexdigest()
        return cls(folder / f"facts-{name}.parquet")

    def look_up(
        self, images: Images, rows: Sequence[int]
    ) -> list[tuple[Stamp | None, Facts | None]]:
        """Of each image its stamp, if it has one, and its facts, None where it is to be read."""
        if self.path is None:
            return [(None, None)] * len(rows)
        names = [images.names[row] for row in rows]
        stamps = stamps_of(images.source, names, gone=(OSError, NotImplementedError)).stamps
        places = (absolute(images.where(row)) for row in rows)
        return [self._known(*both) for both in zip(places, stamps, strict=True)]

    def _known(self, where: str, stamp: Stamp | None) -> tuple[Stamp | None, Facts | None]:
        """The stamp and, where the file is as it was before, its facts."""
        if stamp is None:
            return None, None
        self.asked.add(where)
        before, facts = self.known.get(where, (None, None))
        return stamp, facts if before == stamp else None

    def remember(self, images: Images, row: int, stamp: Stamp | None, facts: Facts) -> None:
        """Keep the facts of a file as it was before it was read."""
        if stamp is None or not 0 < stamp[1] < time.time_ns() - JUST_NOW:
            return
        self.known[absolute(images.where(row))] = stamp, facts
        self.is_new = True

    def save(self) -> None:
        """Write what is new; where two processes do so, the last one's file stands."""
        if self.path is None or not self.is_new:
            return
        if len(self.known) > MOST_IMAGES:
            asked = [where for where in self.known if where in self.asked]
            self.known = {where: self.known[where] for where in asked[:MOST_IMAGES]}
        with suppress(OSError, UnicodeError, TutelageError, pa.ArrowException):
            own = self.path.with_name(f"{self.path.name}.{os.getpid()}-{get_ident()}")
            with whole(own) as part:
                pq.write_table(_table(self.known), part, compression="zstd")
            own.replace(self.path)
            _prune(self.path)
        self.is_new = False


def cache_folder() -> Path | None:
    """Where facts are kept; None where the user has no home."""
    own, shared = os.environ.get("TUTELAGE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    try:
        return Path(shared) / "tutelage" if shared else Path.home() / ".cache" / "tutelage"
    except RuntimeError:
        return None


def _load(path: Path) -> dict[str, tuple[Stamp, Facts]]:
    """What the file holds; nothing where it is missing, damaged, or of another make."""
    try:
        table = pq.read_table(path, memory_map=False)
        if not table.schema.equals(SCHEMA) or any(one.null_count for one in table.columns):
            return {}
        table.validate(full=True)  # text that is no UTF-8 too
        where, size, changed, *rest = (column.to_pylist() for column in table.columns)
    except (OSError, pa.ArrowException):
        return {}
    stamps: Iterable[Stamp] = zip(size, changed, strict=True)
    facts = (Facts(*values) for values in zip(*rest, strict=True))
    return dict(zip(where, zip(stamps, facts, strict=True), strict=True))


def _table(known: dict[str, tuple[Stamp, Facts]]) -> pa.Table:
    rows = [(where, *stamp, *astuple(facts)) for where, (stamp, facts) in known.items()]
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _prune(kept: Path) -> None:
    """Delete the oldest files, never the one just written, until the folder is small enough."""
    files = sorted(kept.parent.glob("facts-*"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MOST_BYTES:
            return
        if path != kept:
            total -= path.stat().st_size
            path.unlink()
