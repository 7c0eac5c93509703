"""Where the members of a tar lie, read from its headers alone.

Understood are the formats that tar programs write (POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU and
V7); tests compare with Python's own tarfile. Deviations from that: a tar without its end mark is
refused, as it was cut off between two members, and what stands behind an end mark is read on, so
that tars that were written one behind the other lose nothing.
"""

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.data import storage
from tutelage.errors import DataProblem

BLOCK = 512  # bytes; headers and contents begin at multiples of it
LOCAL_READ = 2**15  # bytes read at once where members are small; benchmarks/shards.py --index
REMOTE_READ = 2**23  # a request takes as long as some megabytes
SHORT_READ = 2**12  # bytes, where the next header is farther away than that
LONGEST_SIZE = 20  # digits
LARGEST_WANTED = 2**20  # bytes of a member that is read with the index; a label has a few
USED = ("path", "linkpath", "size")  # pax records; others are not kept, as each member has them all
LONGEST_TEXT = 2**24  # bytes of a long name or of pax records; more is damage
ZEROS = bytes(BLOCK)
WITHOUT_CONTENT = frozenset(b"123456")  # links, devices, folders, pipes
REGULAR = frozenset(b"0\x007")
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}

Read = Callable[[int, int], bytes]  # offset, size -> that many bytes


@dataclass(frozen=True)
class TarIndex:
    """The files in a tar, in its order; links stand for the file that they lead to."""

    names: tuple[str, ...]
    offsets: NDArray[np.int64]  # bytes, where the content begins
    sizes: NDArray[np.int64]  # bytes
    contents: dict[str, bytes]  # of the members that were asked for


def read_index(address: str, wanted: Callable[[str], bool] = lambda name: False) -> TarIndex:
    """The index of a tar, and the contents of wanted members, which should be small.

    Raises FileNotFoundError where there is no such file, and DataProblem, with shard and offset,
    where it is compressed, damaged or cut off.
    """
    size = storage.stamp(address)[0]
    if not storage.is_local(address):
        window = _Window(lambda at, count: storage.read_range(address, at, count), size)
        window.most = REMOTE_READ
        return _Walk(address, window, wanted).index()
    with open(address, "rb", buffering=0) as file:
        window = _Window(lambda at, count: os.pread(file.fileno(), count, at), size)
        return _Walk(address, window, wanted).index()


class _Window:
    """The bytes around the last header, read a block at a time."""

    def __init__(self, read: Read, size: int) -> None:
        """Nothing is read yet."""
        self.read, self.size = read, size
        self.most = LOCAL_READ
        self.start, self.data = 0, b""

    def at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, or fewer where the file ends."""
        inside = offset - self.start
        if inside < 0 or inside + count > len(self.data):
            far = inside - len(self.data) > self.most
            length = max(count, SHORT_READ if far else self.most)
            self.start, inside = offset, 0
            self.data = self.read(offset, max(0, min(length, self.size - offset)))
        return self.data[inside : inside + count]


@dataclass
class _Walk:
    """One pass over the headers."""

    address: str
    window: _Window
    wanted: Callable[[str], bool]
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    everywhere: dict[str, str] = field(default_factory=dict)  # pax records for all members
    following: dict[str, str] = field(default_factory=dict)  # for the next member alone

    def index(self) -> TarIndex:
        """All headers up to the end."""
        self._refuse_packed()
        offset, ended = 0, False
        while offset < self.window.size:
            header = self.window.at(offset, BLOCK)
            if header == ZEROS:
                offset, ended = offset + BLOCK, True
                continue
            if len(header) < BLOCK and ended and not header.strip(b"\0"):
                break
            offset, ended = self._member(offset, header), False
        if not ended:
            raise self._damaged(offset, "it ends without an end mark, so it was cut off")
        self._follow_links()
        return TarIndex(
            tuple(self.names), np.array(self.offsets, np.int64), np.array(self.sizes, np.int64),
            self.contents,
        )  # fmt: skip

    def _refuse_packed(self) -> None:
        start = self.window.at(0, BLOCK)
        for mark, kind in PACKED.items():
            if start.startswith(mark):
                raise DataProblem(
                    f"{self.address} is compressed ({kind}), so no image in it can be read by its "
                    "position: decompress it, which costs images hardly any space"
                )

    def _member(self, offset: int, header: bytes) -> int:
        """Take in one member; returns the offset of the next header."""
        self._verify(offset, header)
        kind = header[156]
        size = _number(header[124:136])
        if size is None or size < 0:
            raise self._damaged(offset, "its size is no number")
        content = offset + BLOCK
        if kind in b"LKxg":
            self._text(kind, content, size)
            return content + _padded(size)
        records, self.following = self.everywhere | self.following, {}
        size = self._size(offset, records, size)
        name = records.get("path") or _name(header)
        if kind in WITHOUT_CONTENT:
            if kind in b"12":
                target = records.get("linkpath") or _text_of(header[157:257])
                beside = posixpath.dirname(name) if kind == ord("2") else ""
                self.links.append((name, posixpath.join(beside, target)))
            return content
        if content + size > self.window.size:
            raise self._damaged(offset, f"{name} needs {size:,} bytes, and the file ends before")
        if kind == ord("S") or any(key.startswith("GNU.sparse") for key in records):
            raise self._damaged(offset, f"{name} is stored as a sparse file, which is not read")
        if kind in REGULAR and not name.endswith("/"):
            self._take(name, content, size)
        return content + _padded(size)

    def _take(self, name: str, content: int, size: int) -> None:
        self.names.append(name)
        self.offsets.append(content)
        self.sizes.append(size)
        if self.wanted(name):  # what is too large for a label is seen to be none
            self.contents[name] = self.window.at(content, min(size, LARGEST_WANTED))

    def _size(self, offset: int, records: dict[str, str], size: int) -> int:
        """The size as the pax records have it."""
        text = records.get("size", str(size))
        if not text.isdecimal() or len(text) > LONGEST_SIZE:
            raise self._damaged(offset, f"its size {text!r} is no number")
        return int(text)

    def _text(self, kind: int, content: int, size: int) -> None:
        """A long name or pax records, which belong to what follows."""
        data = self.window.at(content, size) if size <= LONGEST_TEXT else b""
        if len(data) != size:
            raise self._damaged(content, "a long name is cut off, or too long to be one")
        if kind in b"LK":
            key = "path" if kind == ord("L") else "linkpath"
            self.following[key] = _text_of(data)
            return
        records = _pax(data)
        if records is None:
            raise self._damaged(content, "its pax records can't be read")
        (self.everywhere if kind == ord("g") else self.following).update(records)

    def _verify(self, offset: int, header: bytes) -> None:
        """Raises DataProblem where the header's sum is not what it says."""
        if len(header) < BLOCK:
            raise self._damaged(offset, "a header is cut off")
        said = _number(header[148:156])
        total = 256 + sum(header[:148]) + sum(header[156:])
        if said == total:
            return
        signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
        if said != signed:  # some old programs summed signed bytes
            raise self._damaged(offset, "there is no header where one should be")

    def _follow_links(self) -> None:
        """Links to files of this tar, as further names of the same bytes."""
        row = {_plain(name): i for i, name in enumerate(self.names)}
        for name, target in self.links:
            found = row.get(_plain(target))
            if found is not None:
                row[_plain(name)] = len(self.names)
                self._take(name, self.offsets[found], self.sizes[found])

    def _damaged(self, offset: int, why: str) -> DataProblem:
        return DataProblem(
            f"{self.address} is damaged at byte {offset:,} of {self.window.size:,}: {why}; fetch "
            "or write it again"
        )


def _plain(name: str) -> str:
    return posixpath.normpath(name)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field_bytes: bytes) -> int | None:
    """An octal number, or one of base 256; None where it is neither."""
    if field_bytes[0] in (0x80, 0xFF):
        value = int.from_bytes(field_bytes[1:], "big")
        return value - (256 ** (len(field_bytes) - 1) if field_bytes[0] == 0xFF else 0)
    text = field_bytes.partition(b"\0")[0].strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        return None


def _text_of(field_bytes: bytes) -> str:
    """Text up to the first NUL; what is not UTF-8 stays as surrogates."""
    return field_bytes.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    """The name in the header itself; ustar may have its beginning in a field of its own."""
    name = _text_of(header[:100])
    if header[257:263] == b"ustar\0":
        prefix = _text_of(header[345:500])
        return f"{prefix}/{name}" if prefix else name
    return name


def _pax(data: bytes) -> dict[str, str] | None:
    """Records "LENGTH KEY=VALUE\\n" by their keys; None where they are broken."""
    records, at = {}, 0
    while at < len(data) and data[at]:
        length = data[at : at + 20].partition(b" ")[0]
        if not length.isdigit() or int(length) < 5:
            return None
        record = data[at : at + int(length)]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            return None
        name = key.decode("utf-8", "surrogateescape")
        if name in USED or name.startswith("GNU.sparse"):
            records[name] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return records
