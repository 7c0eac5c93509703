"""Files that appear whole or not at all."""

import errno
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from tutelage.errors import Damaged, TutelageError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

UNLIKE = (  # what a value raises that is not of the kind that was written
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError,
    RuntimeError,  # torch's own, and RecursionError
)  # fmt: skip


@contextmanager
def whole(path: Path, *, mark: str = "") -> Iterator[Path]:
    """A path to write to, which takes the file's place once it is complete and on disk.

    Processes that may write the same file at a time each give a mark of their own.

    Raises TutelageError, naming the file, where the disk is full or not writable.
    """
    part = path.with_name(f"{path.name}{mark}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise explained(path, error) from error
    except RuntimeError as error:  # torch's file writer has its own words for a full disk
        if "write" in str(error).lower() or "inline_container" in str(error):
            raise explained(path, OSError(errno.ENOSPC, str(error))) from error
        raise
    finally:
        with suppress(OSError):  # it is gone where all went well
            part.unlink()


def made_folder(path: Path) -> Path:
    """The folder, made where it is missing; raises UsageError where it can't be."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(path)):  # pyarrow's tables could not be read
        raise UsageError(f"{path} looks like an address: take a folder without a colon")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"can't make the folder {path}: {error.strerror}; choose another --out"
        ) from error
    return path


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Errors of the system while this path is written, each in words, with what to do."""
    try:
        yield
    except OSError as error:
        raise explained(path, error) from error


def explained(path: Path, error: OSError) -> Exception:
    """The same trouble, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return TutelageError(
            f"the disk is full: {path} could not be written and what was there before is kept; "
            "make room and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return TutelageError(
            f"{path} can't be written: {error.strerror}; make its folder writable, or write to "
            "another one"
        )
    return error


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write a text file, whole or not at all; of a shared one the last stands."""
    with whole(path, mark=_own() if shared else "") as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, shared: bool = False) -> None:
    """Write indented JSON, whole or not at all; of a shared file the last stands."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n", shared=shared)


def write_with(path: Path, write: Callable[[Path], object], *, shared: bool = False) -> None:
    """Let a library write the file, whole or not at all; of a shared one the last stands."""
    with whole(path, mark=_own() if shared else "") as part:
        write(part)


def _own() -> str:
    """A mark that no other thread or process has, on whatever machine shares the disk."""
    return f".{_host()}-{os.getpid()}-{get_ident()}"


def _host() -> str:
    """This machine's name, without signs that the mark uses itself."""
    return re.sub("[^A-Za-z0-9]", "", platform.node())


def sweep(folder: Path) -> None:
    """Delete what killed processes of this machine left half written under a mark of their own,
    which no later one takes the place of; to be called by who holds the folder."""
    for part in folder.rglob("*.part"):
        found = re.search(rf"\.{_host()}-(\d+)-\d+\.part$", part.name)
        if found and not Path(f"/proc/{found[1]}").exists() and Path("/proc/self").exists():
            part.unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Rename a folder by the time, also where that is done twice in a second."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    wanted = folder.with_name(f"{folder.name}.old-{stamp}")
    number = 2
    while wanted.exists():
        wanted = folder.with_name(f"{folder.name}.old-{stamp}-{number}")
        number += 1
    folder.rename(wanted)


def read_json(path: Path) -> Any:
    """The JSON value in a file; raises Damaged where it holds none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of JSON, and of UTF-8
        raise Damaged(
            f"{path} is damaged, it holds no JSON ({error}): bring back a copy of it, or move it "
            "away and give the command again"
        ) from error


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Raises Damaged, naming the path, where what is read of it lacks something that this package
    writes there, or has it in another kind."""
    try:
        yield
    except UNLIKE as error:
        raise Damaged(
            f"{path} is damaged, or of another version of tutelage ({type(error).__name__}: "
            f"{error}): bring back a copy of it"
        ) from error


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """A table, or these columns of it; raises Damaged where that can't be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=columns)
        table.validate(full=True)  # text that is no UTF-8 too
        missing = set(columns or ()).difference(table.column_names)
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, *UNLIKE, pa.ArrowException) as error:
        raise Damaged(
            f"{path} is damaged, it can't be read as a table ({error}): bring back a copy of it"
        ) from error
    if missing:
        raise Damaged(
            f"{path} is damaged, it has no column {min(missing)}: bring back a copy of it"
        )
    return table
