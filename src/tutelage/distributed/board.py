"""What processes of a command leave for each other when they can't go on in step.

A board is a few entries in the store of torch.distributed through which the processes have met. It
is there as long as the process that keeps it: the leader, or torchrun.
"""

import json
import os
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from tutelage.distributed.launcher import HOME, LISTENER, is_own_launch
from tutelage.errors import (
    Damaged,
    DataProblem,
    GivenUp,
    Interrupted,
    RunMismatch,
    TutelageError,
    Unreachable,
    UsageError,
)

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

JOIN = timedelta(minutes=10)  # for all processes to come together
HEARD = timedelta(seconds=10)  # for the leader to take up what another process has left
ERROR, ENDED, TAKEN = "tutelage/error", "tutelage/ended", "tutelage/taken"
KINDS: tuple[type[TutelageError], ...] = (
    TutelageError, GivenUp, UsageError, RunMismatch, Unreachable, Damaged, DataProblem, Interrupted,
)  # fmt: skip


def meet() -> "Store":
    """The store that this command's processes share."""
    if is_own_launch():
        listener = os.environ.get(LISTENER)
        return dist.TCPStore(  # type: ignore[attr-defined]  # not in its __all__

            HOME, int(os.environ["MASTER_PORT"]), int(os.environ["WORLD_SIZE"]),
            is_master=listener is not None, timeout=JOIN, wait_for_workers=False,
            master_listen_fd=None if listener is None else int(listener),
        )  # fmt: skip
    store, _, _ = next(rendezvous("env://", timeout=JOIN))
    return store


@dataclass
class Board:
    """The last words of processes that failed; whatever can't be reached any more says nothing."""

    store: "Store"

    def clear(self) -> None:
        """Begin without words of an earlier start."""
        for key in (ERROR, ENDED, TAKEN):
            self.store.delete_key(key)

    def leave_error(self, error: Exception) -> None:
        """Leave it for the leader to raise."""
        with suppress(dist.DistError):
            self.store.set(ERROR, in_words(error))

    def is_taken(self) -> bool:
        """Whether the leader has taken up the error that was left, or comes to do so."""
        try:
            self.store.wait([TAKEN], HEARD)
        except dist.DistStoreError:  # nobody came
            return False
        except dist.DistError:  # the leader has ended since, and the store with it
            return True
        return True

    def error(self) -> TutelageError | None:
        """What another process failed by, for the leader."""
        found = self._read(ERROR)
        if found is None:
            return None
        with suppress(dist.DistError):
            self.store.set(TAKEN, "1")
        return from_words(found.decode())

    def leave_end(self, code: int) -> None:
        """Say that the leader ends by itself, and has said why."""
        with suppress(dist.DistError):
            self.store.set(ENDED, str(code))

    def end(self) -> int | None:
        """The exit code with which the leader ended by itself."""
        found = self._read(ENDED)
        return None if found is None else int(found)

    def _read(self, key: str) -> bytes | None:
        try:
            return self.store.get(key) if self.store.check([key]) else None
        except dist.DistError:
            return None


def in_words(error: Exception) -> str:
    """An error as JSON: one that a user can mend by its message, any other with its traceback."""
    if isinstance(error, TutelageError | OSError):
        kind = next((one for one in KINDS if one is type(error)), TutelageError)
        return json.dumps({"kind": kind.__name__, "text": str(error)})
    trace = "".join(traceback.format_exception(error)).rstrip()
    text = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} failed:\n{trace}"
    return json.dumps({"kind": TutelageError.__name__, "text": text})


def from_words(words: str) -> TutelageError:
    """The error that another process wrote."""
    content = json.loads(words)
    kind = next(one for one in KINDS if one.__name__ == content["kind"])
    return kind(content["text"])
