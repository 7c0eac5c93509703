"""Checkpoints of a training: everything that changes, bound to the recipe it belongs to.

A folder holds the last one and the one before. Each begins with a line that has the format, the
step and a SHA-256 of that line and of all that follows, which is what torch saves.
"""

import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tutelage.errors import RunMismatch, UsageError
from tutelage.files import whole
from tutelage.methods.method import State

LAST = "last.pt"  # in a training's folder
FORMAT = 2
HEAD = re.compile(rb"tutelage checkpoint (\d{4}) step (\d{12}) sha256 ([0-9a-f]{64})\n")
UNKNOWN = "0" * 64  # in the digest's place while the digest is computed
HEAD_BYTES = len(b"tutelage checkpoint 0002 step 000000000000 sha256 \n") + len(UNKNOWN)
AT_ONCE = 1 << 20  # bytes
VERSIONS = "the versions that wrote it are in the run's environment.json: install those, or move"


class _Damaged(Exception):
    """A file whose content is not what was written, and how that shows."""


class _Hashed:
    """A file to write to, with the digest of what was written."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        """Write the head."""
        self.file, self.digest = file, sha256()
        self.write(head)

    def write(self, data: memoryview | bytes) -> int:
        """Write some bytes."""
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Pass on what is held back."""
        self.file.flush()


def save(path: Path, state: State, *, step: int, recipe: str) -> None:
    """Write the state after `step` steps; what was there stays beside it as the one before.

    Whenever this is cut short, one of the two is whole. Raises what `whole` raises.
    """
    content = {"recipe": recipe, "step": step, "state": state.state_dict()}
    with whole(path) as part:
        with part.open("wb") as file:
            hashed = _Hashed(file, _head(step, UNKNOWN))
            torch.save(content, hashed)  # type: ignore[arg-type]  # which asks no more of it
            file.seek(0)
            file.write(_head(step, hashed.digest.hexdigest()))
            file.flush()
            os.fsync(file.fileno())  # before the older of the two is given up
        if path.exists():
            path.replace(_before(path))


def resume(
    path: Path, state: State, *, recipe: str, say: Callable[[str], None] = lambda text: None
) -> int:
    """Load the state and return the steps done; 0 where there is no checkpoint.

    A damaged one is moved aside, the one before takes its place, and `say` hears of it. Raises
    RunMismatch where the checkpoint belongs to another recipe, UsageError where it is whole and
    can't be used here.
    """
    lost: int | None = None  # steps that the last checkpoint had, where it tells
    troubles: list[str] = []
    for file in (path, _before(path)):
        if not file.exists():
            continue
        try:
            _check(file)
        except _Damaged as why:
            lost = lost or _step_of(file)
            aside = file.with_name(f"{file.stem}.damaged{file.suffix}")
            file.replace(aside)
            troubles.append(f"{file} is damaged ({why}; it is now {aside.name})")
            continue
        step = _load(file, state, recipe)
        if file != path:
            trouble = "; ".join(troubles) or f"there is no {path}"
            say(f"{trouble}: going on from {file}, after step {step:,}; {_repeated(step, lost)}")
        return step
    if troubles:
        troubles.append("there is no whole checkpoint")
        say(f"{'; '.join(troubles)}: {path.parent} begins anew; {_repeated(0, lost)}")
    return 0


def is_saved(folder: Path) -> bool:
    """Whether a training has come as far as to a checkpoint."""
    last = folder / LAST
    return last.exists() or _before(last).exists()


def saved_steps(folder: Path) -> int:
    """How far a training has come, as its checkpoints' first lines say; 0 without any."""
    last = folder / LAST
    return max(_step_of(file) or 0 for file in (last, _before(last)))


def forget(folder: Path) -> None:
    """Delete the checkpoints of a training."""
    last = folder / LAST
    for file in (last, _before(last), *folder.glob("*.damaged.pt")):
        file.unlink(missing_ok=True)


def _before(path: Path) -> Path:
    """Where the checkpoint before is."""
    return path.with_name("before.pt")


def _head(step: int, digest: str) -> bytes:
    """The first line."""
    return f"tutelage checkpoint {FORMAT:04d} step {step:012d} sha256 {digest}\n".encode()


def _step_of(path: Path) -> int | None:
    """The step that a damaged file's first line has, where that is legible."""
    try:
        with path.open("rb") as file:
            head = HEAD.fullmatch(file.read(HEAD_BYTES))
    except OSError:
        return None
    return None if head is None else int(head[2])


def _repeated(step: int, lost: int | None) -> str:
    """How much is trained again."""
    if lost is None or lost <= step:
        return "what was trained since is repeated"
    return f"{lost - step:,} steps are repeated" if lost - step > 1 else "1 step is repeated"


def _check(path: Path) -> None:
    """Raises _Damaged where the file is not as it was written, UsageError where it may not be
    read or is of a later format."""
    try:
        with path.open("rb") as file:
            line = file.read(HEAD_BYTES)
            head = HEAD.fullmatch(line)
            if head is None:
                raise _Damaged("it doesn't begin as a checkpoint does" if line else "it is empty")
            digest = sha256(line.replace(head[3], UNKNOWN.encode()))
            while data := file.read(AT_ONCE):
                digest.update(data)
    except PermissionError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}; make it readable and run the same command "
            "again"
        ) from error
    except OSError as error:
        raise _Damaged(f"it can't be read: {error.strerror or error}") from error
    if digest.hexdigest() != head[3].decode():
        raise _Damaged("its checksum doesn't match")
    if int(head[1]) != FORMAT:
        raise UsageError(
            f"{path} has format {int(head[1])}, and this version reads up to {FORMAT}: {VERSIONS} "
            "the file away to begin anew"
        )


def _load(path: Path, state: State, recipe: str) -> int:
    """Load a file that is whole; raises what `resume` raises."""
    try:
        content = _content(path)
        if content["recipe"] == recipe:
            state.load_state_dict(content["state"])
            return int(content["step"])
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch's and pickle's, by what the file is
        raise UsageError(
            f"{path} is whole, but it is no checkpoint for this network or for this version of "
            f"torch ({type(error).__name__}: {error}): {VERSIONS} the file away to go on without it"
        ) from error
    raise RunMismatch(
        f"{path} was written with other settings (of digest {content['recipe']}, not {recipe}): "
        "choose another --out, or --overwrite to start anew"
    )


def _content(path: Path) -> dict[str, Any]:
    """What was saved, in the CPU's memory, without running any code of the file."""
    with path.open("rb") as file:
        file.seek(HEAD_BYTES)
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content
