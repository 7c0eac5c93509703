"""Files wherever they lie: paths of this machine by the system's own calls, other addresses
(s3://, gs://, https://, memory://, …) by fsspec."""

import os
import posixpath
import stat as stat_module
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import UsageError

FILE = "file://"


@dataclass(frozen=True)
class Entry:
    """A file below a folder."""

    name: str  # relative to the folder, with forward slashes
    size: int  # bytes


def is_local(address: str) -> bool:
    """Whether the address is a path of this machine."""
    return "://" not in address


def plain(address: str | Path) -> str:
    """The address as text; file:// addresses become paths."""
    return str(address).removeprefix(FILE)


def absolute(address: str) -> str:
    """The address in a form that does not depend on the working folder."""
    return os.path.abspath(address) if is_local(address) else address


def join(folder: str, name: str) -> str:
    """The address of a file in a folder; an absolute name or address stands for itself."""
    if not is_local(name):
        return plain(name)
    if is_local(folder):
        return os.path.join(folder, name)
    return name if name.startswith("/") else f"{folder.rstrip('/')}/{name}"


def parent(address: str) -> str:
    """The folder that a file lies in."""
    return os.path.dirname(address) if is_local(address) else posixpath.dirname(address)


def is_folder(address: str) -> bool:
    """Whether there is a folder."""
    if is_local(address):
        return os.path.isdir(address)
    files, path = _remote(address)
    return bool(files.isdir(path))


def is_file(address: str) -> bool:
    """Whether there is a file."""
    if is_local(address):
        return os.path.isfile(address)
    files, path = _remote(address)
    return bool(files.isfile(path))


def names_in(address: str) -> list[str]:
    """Names of what lies directly in a folder, sorted; empty where there is no such folder."""
    if is_local(address):
        return sorted(os.listdir(address)) if os.path.isdir(address) else []
    files, path = _remote(address)
    if not files.isdir(path):
        return []
    return sorted({posixpath.basename(found.rstrip("/")) for found in files.ls(path, detail=False)})


def entries_below(address: str) -> Iterator[Entry]:
    """Files at any depth below a folder that is not on this machine, by name."""
    files, path = _remote(address)
    found: dict[str, dict[str, Any]] = files.find(path, detail=True)
    root = path.rstrip("/") + "/"
    for name, about in sorted(found.items()):
        yield Entry(name.removeprefix(root), int(about.get("size") or 0))


def read_bytes(address: str) -> bytes:
    """A whole file; raises OSError where it can't be read."""
    if is_local(address):
        with open(address, "rb", opener=_at_once) as file:
            if not stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{address} is a pipe or a device and no file")
            return file.read()
    files, path = _remote(address)
    data: bytes = files.cat_file(path)
    return data


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for what nobody writes into, a named pipe for one."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_range(address: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; raises OSError where the file is shorter."""
    if is_local(address):
        with open(address, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    else:
        files, path = _remote(address)
        data = files.cat_file(path, start=offset, end=offset + size)
    if len(data) != size:
        raise OSError(f"{address} ends after {offset + len(data)} bytes, {offset + size} expected")
    return data


def open_binary(address: str) -> Any:
    """A file to read, which can seek."""
    if is_local(address):
        return open(address, "rb")
    files, path = _remote(address)
    return files.open(path, "rb")


def stamp(address: str) -> tuple[int, int]:
    """Bytes, and time of the last change in ns (0 where the storage doesn't tell).

    Raises FileNotFoundError where the file is gone.
    """
    if is_local(address):
        about = os.stat(address)
        return about.st_size, about.st_mtime_ns
    files, path = _remote(address)
    info = files.info(path)
    changed = info.get("LastModified") or info.get("mtime") or info.get("last_modified")
    return int(info.get("size") or 0), _nanoseconds(changed)


def _nanoseconds(changed: Any) -> int:
    """A datetime or a number of seconds as whole ns."""
    if changed is None:
        return 0
    seconds = changed if isinstance(changed, int | float) else changed.timestamp()
    return int(seconds * 1e9)


def _remote(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there.

    Raises UsageError where the package for the protocol is missing.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise UsageError(f"{address}: {error}; pip install it to read such addresses") from error
    except ValueError as error:
        raise UsageError(f"{address}: {error}") from error
    return files, path
