"""How a command ends: as it should, by a signal, or without memory for a thread."""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread, Timer, current_thread, main_thread
from types import FrameType
from typing import Any, NoReturn

from tutelage.distributed.launcher import Asked
from tutelage.errors import TutelageError

NO_MEMORY = (
    "end other programs and run the same command again; where that doesn't help a training, give "
    "it less --memory, or a smaller --batch or --img-size and another --out"
)


def end_at_once(code: int) -> NoReturn:
    """End this process once what is registered for its end is done, and leave out Python's last
    look at all that torch has loaded, which takes a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):  # nobody reads any more
            stream.flush()
    os._exit(code)


def stop_on_signals() -> None:
    """Let SIGTERM, and what schedulers send in its place, do what Ctrl-C does, and several of them
    that come at once, from a scheduler and from who began this process, count as one."""
    asked = Asked()

    def stop(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            again = Timer(0.02, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        elif asked.note(number, frame):
            raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, terminate)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not ignored, by nohup
        signal.signal(signal.SIGINT, stop)


@dataclass
class Stop:
    """Whether the user wants to stop; asked between steps."""

    requested: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM wait for the end of the step; a second one, later, stops at once."""
    stop, asked = Stop(), Asked()
    if current_thread() is not main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.note(number, frame) and stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: C++ that calls Python then, such as torch's, ends the
    process without a word where an error reaches it, so that a signal has to wait."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


@contextmanager
def threads_begin() -> Iterator[None]:
    """End where a thread finds no memory to begin: who began it would wait for it without end
    (CPython's issue 140746), and what was saved last is kept."""
    before, lost = sys.unraisablehook, SimpleQueue[Any]()
    Thread(target=_hear_of_lost_threads, args=(lost, before), daemon=True).start()
    sys.unraisablehook = lost.put  # written in C, as such a thread can't call Python's functions
    try:
        yield
    finally:
        sys.unraisablehook = before
        lost.put(None)


def _hear_of_lost_threads(lost: "SimpleQueue[Any]", before: Callable[[Any], None]) -> None:
    """By a thread that has its memory already."""
    while (one := lost.get()) is not None:
        if one.exc_type is not MemoryError or "thread" not in (one.err_msg or ""):
            before(one)
            continue
        try:
            print(f"tutelage: out of memory (for a thread): {NO_MEMORY}", file=sys.stderr)
        finally:
            os._exit(TutelageError.exit_code)
