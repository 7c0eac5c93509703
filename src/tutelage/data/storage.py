"""Files wherever they lie: paths of this machine by the system's own calls, other addresses
(s3://, gs://, https://, memory://, …) by fsspec."""

import glob
import os
import posixpath
import stat as stat_module
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tutelage.errors import TutelageError, UsageError
from tutelage.values import nearest

FILE = "file://"
IN_MEMORY = "memory:"  # addresses of images that were given from Python; memory:// is fsspec's
HUB = "hf://"  # Hugging Face's hub; hf://OWNER/NAME is a data set there, longer ones are files
SECOND = 1_000_000_000  # ns
CHANGED = ("LastModified", "mtime", "last_modified", "updated", "modified", "created")
PACKAGES = {
    "s3": "'tutelage[s3]'", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "hf": "'tutelage[hf]'",
}  # fmt: skip
CREDENTIALS = (
    "set the credentials of the storage as its own tools take them (for s3:// AWS_ACCESS_KEY_ID "
    "and AWS_SECRET_ACCESS_KEY or ~/.aws; FSSPEC_S3_ANON=true for public buckets)"
)
VERSION = ("ETag", "etag", "md5Hash", "content_md5")


@dataclass(frozen=True)
class Entry:
    """A file below a folder."""

    name: str  # relative to the folder, with forward slashes
    stamp: tuple[int, int]  # bytes, and time of change in ns


def is_local(address: str) -> bool:
    """Whether the address is a path of this machine."""
    return "://" not in address


def is_given(address: str) -> bool:
    """Whether the address stands for images that were given from Python."""
    return address.startswith(IN_MEMORY) and is_local(address)


def plain(address: str | Path) -> str:
    """The address as text; file:// addresses become paths."""
    return str(address).removeprefix(FILE)


def absolute(address: str) -> str:
    """The address in a form that does not depend on the working folder."""
    if is_given(address) or not is_local(address):
        return address
    return os.path.abspath(address)


def join(folder: str, name: str) -> str:
    """The address of a file in a folder; an absolute name or address stands for itself, and in a
    bucket a name that begins with / is seen from its top."""
    if not is_local(name):
        return plain(name)
    if is_local(folder):
        return os.path.join(folder, name)
    if ".." not in name.split("/") and not name.startswith("/"):
        return f"{folder.rstrip('/')}/{name}"
    protocol, _, path = folder.partition("://")  # buckets know no parents
    host, _, path = path.partition("/")
    return f"{protocol}://{host}{posixpath.normpath(posixpath.join('/', path, name))}"


def named(folder: str, name: str) -> str:
    """The address of a file that a table in that folder names.

    Raises PermissionError where the table comes from elsewhere and names a file of this machine,
    and for addresses in addresses, by which such a file could be meant.
    """
    address = join(folder, name)
    chained = "::" in name and not is_local(name)
    inside = is_local(address) or address.startswith("local:")
    if chained or (inside and not is_local(folder)):
        raise PermissionError(f"a table in {folder} may not name {name!r}: give the file's address")
    return address


def parent(address: str) -> str:
    """The folder that a file lies in."""
    if is_local(address):
        return os.path.dirname(address)
    protocol, _, path = address.partition("://")
    return f"{protocol}://{posixpath.dirname(path)}"


def top(address: str) -> str:
    """The bucket, host or the like of an address that is not a path of this machine."""
    protocol, _, path = address.partition("://")
    return f"{protocol}://{path.split('/')[0]}"


def is_folder(address: str) -> bool:
    """Whether there is a folder."""
    if is_local(address):
        return os.path.isdir(address)
    with _asked(address) as (files, path):
        return bool(files.isdir(path))


def is_file(address: str) -> bool:
    """Whether there is a file."""
    if is_local(address):
        return os.path.isfile(address)
    with _asked(address) as (files, path):
        return bool(files.isfile(path))


def names_in(address: str) -> list[str]:
    """Names of what lies directly in a folder, sorted; empty where there is no such folder."""
    if is_local(address):
        return sorted(os.listdir(address)) if os.path.isdir(address) else []
    with _asked(address) as (files, path):
        if not path.strip("/") or not files.isdir(path):
            return []
        found = files.ls(path, detail=False)
    return sorted({posixpath.basename(str(name).rstrip("/")) for name in found})


def nearby(address: str) -> str:
    """'; did you mean x?' for the nearest names in the folder of what is not there, or nothing."""
    address = address.rstrip("/")
    return nearest(posixpath.basename(address), names_in(parent(address) or "."))


def matching(pattern: str) -> list[str]:
    """Addresses that match a glob, sorted; ** stands for any depth."""
    if is_local(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    with _asked(pattern) as (files, path):
        return sorted(files.unstrip_protocol(found) for found in files.glob(path))


def entries_below(address: str) -> Iterator[Entry]:
    """Files at any depth below a folder that is not on this machine, by name."""
    with _asked(address) as (files, path):
        found: dict[str, dict[str, Any]] = files.find(path, detail=True)
    root = path.rstrip("/") + "/"
    for name, about in sorted(found.items()):
        if name.startswith(root):
            yield Entry(name.removeprefix(root), _stamp(about))


def files_below(address: str) -> Iterator[str]:
    """Names of files at any depth below a folder, relative to it, in order; no hidden ones."""
    if not is_local(address):
        names = (entry.name for entry in entries_below(address))
        yield from (n for n in names if not any(piece.startswith(".") for piece in n.split("/")))
        return
    found = []
    for where, folders, files in os.walk(address):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(where, address)
        found += [os.path.normpath(os.path.join(below, n)) for n in files if not n.startswith(".")]
    yield from sorted(found)


def read_bytes(address: str) -> bytes:
    """A whole file; raises OSError where it can't be read."""
    if is_local(address):
        _refuse_zero(address)
        with open(address, "rb", opener=_at_once) as file:
            if not stat_module.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{address} is a pipe or a device and no file")
            return file.read()
    with _asked(address) as (files, path):
        data: bytes = files.cat_file(path)
    return data


def _refuse_zero(path: str) -> None:
    """Raises FileNotFoundError for a path that no file has; Python has another error for it."""
    if "\0" in path:
        raise FileNotFoundError(f"{path!r} has a zero byte: there is no such file")


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for what nobody writes into, a named pipe for one."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_range(address: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; raises OSError where the file is shorter."""
    if is_local(address):
        with open(address, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    else:
        with _asked(address) as (files, path):
            data = files.cat_file(path, start=offset, end=offset + size)
    if len(data) != size:
        raise OSError(f"{address} ends after {offset + len(data)} bytes, {offset + size} expected")
    return data


def open_binary(address: str) -> Any:
    """A file to read, which can seek; raises OSError where it can't be read."""
    if is_local(address):
        return open(address, "rb")
    with _asked(address) as (files, path):
        return files.open(path, "rb")


def stamp(address: str) -> tuple[int, int]:
    """Bytes, and time of the last change in ns (0 where the storage doesn't tell).

    Raises FileNotFoundError where the file is gone.
    """
    if is_local(address):
        _refuse_zero(address)
        about = os.stat(address)
        return about.st_size, about.st_mtime_ns
    with _asked(address) as (files, path):
        return _stamp(files.info(path))


def ask_anew(address: str) -> None:
    """Forget what a storage was asked before, so that its listing is of now."""
    if not is_local(address):
        with _asked(address) as (files, _):
            files.invalidate_cache()


def _stamp(about: dict[str, Any]) -> tuple[int, int]:
    """Bytes, and time of change in ns, out of what a storage says of a file.

    Where it tells whole seconds, its word for the version (ETag) stands in for the rest, as two
    writes in a second would look alike.
    """
    changed = next((about[key] for key in CHANGED if about.get(key)), None)
    time = _nanoseconds(changed)
    version = next((about[key] for key in VERSION if about.get(key)), None)
    if time % SECOND == 0 and version is not None:
        digest = blake2b(str(version).strip('"').encode(), digest_size=8).digest()
        time += int.from_bytes(digest, "big") % SECOND
    return int(about.get("size") or 0), time


def _nanoseconds(changed: Any) -> int:
    """A datetime, its text, or a number of seconds as whole ns."""
    if isinstance(changed, str):
        try:
            changed = datetime.fromisoformat(changed)
        except ValueError:
            return 0
    if isinstance(changed, datetime):
        return int(changed.timestamp()) * SECOND + changed.microsecond * 1000
    return int(changed * SECOND) if isinstance(changed, int | float) else 0


@contextmanager
def _asked(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path there, to ask something of it.

    Raises UsageError where the package for the protocol or the credentials are missing or refused;
    OSError for whatever else goes wrong there.
    """
    import fsspec

    try:
        yield fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = PACKAGES.get(address.partition("://")[0], "the package that it names")
        raise UsageError(f"{address}: {error}; pip install {package}") from error
    except PermissionError as error:
        raise UsageError(f"{address} is refused: {error}; {CREDENTIALS}") from error
    except (OSError, TutelageError):
        raise
    except ValueError as error:
        if "rotocol" in str(error):  # fsspec's words for one that it doesn't know
            raise UsageError(
                f"{address}: {error}; write it as s3://, gs:// or https://…"
            ) from error
        raise OSError(f"{address} can't be read: {error}") from error
    except Exception as error:  # each storage has its own kinds
        if "redential" in type(error).__name__ + str(error):
            raise UsageError(f"{address}: {error}; {CREDENTIALS}") from error
        raise OSError(f"{address} can't be read: {type(error).__name__}: {error}") from error
