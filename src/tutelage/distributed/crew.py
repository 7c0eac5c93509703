"""A command that several processes work at: rank 0 leads, and the others help where it asks them.

torchrun begins them, or `--devices`. The leader runs the pipeline, writes all files and talks
to the person. Where work is worth sharing, such as training, it calls `everywhere`, and the others,
which wait for that, call the same function with the same arguments. So what a run is does not
depend on how many processes there are, and only the leader needs the run's folder.
"""

import atexit
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from tutelage.distributed.board import Board, meet
from tutelage.distributed.collectives import neighbors, rank, world
from tutelage.distributed.launcher import is_launched, is_own_launch, say_met
from tutelage.distributed.watch import Watch
from tutelage.distributed.words import Crew, crew, is_loss
from tutelage.errors import Dismissed, GivenUp, Interrupted, TutelageError, UsageError

T = TypeVar("T")

AGREED = (GivenUp, Interrupted)  # errors of `everywhere` that are raised in all processes at once
STEP = timedelta(minutes=30)  # after which a process that takes no part in a step counts as lost


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Meet the other processes of this command, where there are any, until the work is done.

    Raises UsageError where there are more of them than devices of that kind, what another process
    failed by, and Interrupted where one of them is lost.
    """
    watch = Watch()
    if not is_launched():
        with watch.of_parent():
            yield
        return
    check_accelerators(device)
    board, its = _met(), crew()
    its.busy, its.asked, its.result = False, False, None
    with watch.of_parent(), watch.of_others(board.store), _patient(its):
        try:
            yield
            _dismiss(its, None)
        except Exception as error:
            _raise_for_all(its, board, error)
        except KeyboardInterrupt:
            if rank():
                raise Dismissed(Interrupted.exit_code) from None
            _dismiss(its, Interrupted("stopped"))
            board.leave_end(Interrupted.exit_code)
            raise


def check_accelerators(device: str) -> None:
    """Raises UsageError where this machine has fewer accelerators than processes want one, or has
    such as processes can't share a training on."""
    kind = device.split(":")[0]
    if kind == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        kind = "cpu" if found is None else found.type
    if kind == "cpu":
        return
    wanted = int(os.environ["LOCAL_WORLD_SIZE"])
    there = torch.cuda.device_count() if kind == "cuda" else 0
    if wanted <= there or (kind == "cuda" and not torch.cuda.is_available()):
        return  # that there is none is said where it is chosen
    if os.environ["LOCAL_RANK"] != "0":
        raise Dismissed(UsageError.exit_code)  # said once
    if kind != "cuda":
        raise UsageError(
            f"several processes share work on CUDA devices or on the CPU, and not on {kind}: take "
            "--device cpu"
        )
    raise UsageError(
        f"{wanted} processes want a CUDA device each and this machine has {there}: take {there} "
        "processes, or --device cpu"
    )


@cache
def _met() -> Board:
    """Come together, for as long as this process lives: a group that was left can't be met again
    safely. Raises TutelageError where others don't come."""
    accelerated = torch.cuda.is_available()
    if accelerated:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        board = Board(meet())
        if number == 0:
            board.clear()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if accelerated else "gloo", store=board.store, rank=number,
            world_size=count, timeout=STEP,
        )  # fmt: skip
        atexit.register(_part)
        crew()
        say_met()
    except (dist.DistError, RuntimeError) as error:
        if number and is_own_launch():  # which says what became of the leader, or the leader does
            raise Dismissed(Interrupted.exit_code) from error
        raise TutelageError(
            f"process {number} of {count} found not all others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({error}): begin all of them, with an address that each "
            "can reach"
        ) from error
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // neighbors()))
    return board


def _part() -> None:
    """Leave the others while Python still runs: threads of gloo let go of what was sent a moment
    after it has arrived, and one that does so while Python ends aborts the process."""
    if dist.is_initialized():
        dist.destroy_process_group()
    crew.cache_clear()
    gc.collect()  # the end of the group for words, over which the last one goes, waits for threads


def _raise_for_all(its: Crew, board: Board, error: Exception) -> NoReturn:
    """End all processes with an error of this one, or this one with that of another."""
    if is_loss(error):
        raise _after_loss(board) from error
    if rank() == 0:
        _dismiss(its, error)
        board.leave_end(exit_code(error))
        raise error
    if isinstance(error, Dismissed):
        raise error
    board.leave_error(error)
    if not torch.cuda.is_available():  # NCCL's connections are closed by the end of the process
        dist.destroy_process_group()  # so that the leader looks for the reason
    if board.is_taken() or board.end() is not None:  # or the leader has said what it ended by
        raise Dismissed(exit_code(error)) from error
    raise error


def _after_loss(board: Board) -> Exception:
    """Why another process is not there any more, as far as it could say."""
    lost = Interrupted(
        f"process {rank()} of {world()} lost another one: what was saved last is kept"
    )
    if rank() == 0:
        return board.error() or lost
    if is_own_launch():  # which says it where the leader can't
        return Dismissed(Interrupted.exit_code)
    code = board.end()
    speaks = rank() == 1 or os.environ["LOCAL_RANK"] == "0"  # once a machine
    if code is None and speaks:
        return lost
    return Dismissed(Interrupted.exit_code if code is None else code)


def _dismiss(its: Crew, error: Exception | None) -> None:
    """Let the others go, where they wait for a word."""
    if rank() or its.busy:
        return
    word = its.result if error is None else Dismissed(exit_code(error))
    try:
        its.tell((None, word))
    except RuntimeError as lost:
        if not is_loss(lost):
            raise


def exit_code(error: Exception) -> int:
    """What a process that this error ends returns."""
    return error.exit_code if isinstance(error, TutelageError) else TutelageError.exit_code


@contextmanager
def _patient(its: Crew) -> Iterator[None]:
    """The others leave Ctrl-C and SIGTERM to the leader, and tell it at the next step."""
    if rank() == 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        its.asked = True

    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def everywhere(function: Callable[..., T], *shared: Any, own: Any) -> T:
    """function(*shared, own) in this process, and function(*shared, None) in all others.

    The function is one of a module's own; what is shared is pickled. Errors that all processes
    come to alike are AGREED; after another one the processes are no longer in step.
    """
    if world() == 1:
        return function(*shared, own)
    its = crew()
    its.busy = True
    its.tell((function, shared))
    try:
        found = function(*shared, own)
    except AGREED:
        its.busy = False
        raise
    its.busy = False
    return found


def led(work: Callable[[], T], *, device: str) -> T:
    """What the work comes to, in all processes of this command: one leads it, and the others help
    where it asks them. Raises what `joined` raises."""
    with joined(device):
        if rank():
            found: T = serve()
            return found
        result = work()
        if world() > 1:
            crew().result = result
    return result


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
