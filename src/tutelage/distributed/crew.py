"""A command that several processes work at: rank 0 leads, and the others help where it asks them.

torchrun begins them, also by `--devices`. The leader runs the pipeline, writes all files and talks
to the person. Where work is worth sharing, such as training, it calls `everywhere`, and the others,
which wait for that, call the same function with the same arguments. So what a run is does not
depend on how many processes there are, and only the leader needs the run's folder.

What they tell each other is pickled, over connections of torch.distributed, which whoever can
reach its ports is trusted on: as everywhere with torch, such a network has to be one's own.
"""

import atexit
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tutelage.distributed.collectives import neighbors, rank, world
from tutelage.distributed.launcher import is_launched
from tutelage.errors import Dismissed, GivenUp, Interrupted, TutelageError

T = TypeVar("T")

AGREED = (GivenUp, Interrupted)  # errors of `everywhere` that are raised in all processes at once
STEP = timedelta(minutes=30)  # after which a process that takes no part in a step counts as lost
WAIT = timedelta(days=30)  # for the leader's next word, while it works alone
LOOK = 0.5  # seconds between looks at whether who began this process still lives


@dataclass
class Crew:
    """The processes of this command, seen from one of them."""

    group: Any  # of torch.distributed, for words: on the CPU, and patient
    busy: bool = False  # whether they are at work together, so that words would not be heard
    result: Any = None  # what the others are to return in the end

    def tell(self, word: Any) -> None:
        """To all others, who wait for it."""
        file = io.BytesIO()
        torch.save(word, file)
        data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        dist.broadcast(torch.tensor(len(data)), 0, self.group)
        dist.broadcast(data, 0, self.group)

    def hear(self) -> Any:
        """The leader's word."""
        size = torch.tensor(0)
        dist.broadcast(size, 0, self.group)
        data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0, self.group)
        return torch.load(io.BytesIO(data.numpy().data), map_location="cpu", weights_only=False)


@cache
def crew() -> Crew:
    """This command's; made by all processes at once."""
    return Crew(dist.new_group(backend="gloo", timeout=WAIT))


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes of this command, where there are any, until the work is done.

    Raises Interrupted where one of them is lost.
    """
    if not is_launched():
        yield
        return
    if not dist.is_initialized():
        _meet()
    its = crew()
    its.busy, its.result = False, None
    try:
        with _patient():
            yield
        _dismiss(its, None)
    except Exception as error:
        if not is_loss(error):
            _dismiss(its, error)
            raise
        raise Interrupted(
            f"rank {rank()} of {world()} lost another process of this command: "
            "it goes on from the last checkpoint"
        ) from error
    except KeyboardInterrupt:
        _dismiss(its, Interrupted("stopped"))
        raise


def _meet() -> None:
    """For as long as this process lives: a group that is left can't be met again safely."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=STEP
    )
    atexit.register(dist.destroy_process_group)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // neighbors()))
    _end_with(os.getppid())


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process is not there any more."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in words or "nccl" in words)
    )


def _dismiss(its: Crew, error: Exception | None) -> None:
    """Let the others go, where they wait for a word."""
    if rank() or its.busy:
        return
    code = error.exit_code if isinstance(error, TutelageError) else TutelageError.exit_code
    its.tell((None, its.result if error is None else Dismissed(code)))


@contextmanager
def _patient() -> Iterator[None]:
    """The others leave Ctrl-C and SIGTERM, which all of them get, to the leader."""
    if rank() == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, signal.SIG_IGN) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end_with(parent: int) -> None:
    """Ask the leader to stop when who began it dies; the others end when they lose the leader."""
    if rank():
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def everywhere(function: Callable[..., T], *shared: Any, own: Any) -> T:
    """function(*shared, own) in this process, and function(*shared, None) in all others.

    The function is one of a module's own; what is shared is pickled. Errors that all processes
    come to alike are AGREED; after another one the processes are no longer in step.
    """
    if world() == 1:
        return function(*shared, own)
    its = crew()
    its.tell((function, shared))
    its.busy = True
    try:
        found = function(*shared, own)
    except AGREED:
        its.busy = False
        raise
    its.busy = False
    return found


def from_leader(word: T) -> T:
    """The leader's word, which all processes ask for at once; alone, what was given."""
    if world() == 1:
        return word
    if rank() == 0:
        crew().tell(word)
        return word
    found: T = crew().hear()
    return found


def leave(result: Any) -> None:
    """Let the others return this in the end."""
    if world() > 1:
        crew().result = result


def serve() -> Any:
    """Take part in whatever the leader asks, to the end; returns the command's result.

    Raises Dismissed where the leader ended with an error, which it has said.
    """
    its = crew()
    while True:
        function, content = its.hear()
        if function is None:
            if isinstance(content, Dismissed):
                raise content
            return content
        try:
            function(*content, None)
        except AGREED:
            continue
