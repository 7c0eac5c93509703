"""`--devices N`: the same command in N processes of this machine.

Not by torchrun, which ends a process 30 seconds after it was asked to stop, in the middle of a long
checkpoint too, listens on all of a machine's addresses, and takes seconds to load. The processes
are told of each other as it does, by environment variables, so that they are the same with either.
"""

import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from tutelage.errors import Dismissed, Interrupted, UsageError

LAUNCHER = "TUTELAGE_LAUNCHER"  # the process that began this one, by its number
LISTENER = "TUTELAGE_LISTENER"  # what the leader's store listens on: a file descriptor
MET = "TUTELAGE_MET"  # where the leader says that all have met: a file descriptor
HOME = "127.0.0.1"
LOOK = 0.05  # seconds between looks at the processes
AGAIN = 2.0  # seconds in which two signals are one: both a scheduler and a shell may send it
ALONE = 15.0  # seconds after which the leader is asked to stop when another one failed
LATE = 120.0  # and after which it is ended; before all have met ALONE, as it hears nothing then


def is_launched() -> bool:
    """Whether this process was begun as one of several that are to work together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_own_launch() -> bool:
    """Whether `--devices` has begun this process, and speaks for it where it can't."""
    return LAUNCHER in os.environ


def is_restartable() -> bool:
    """Whether torchrun began this process, which begins it again when others come or go."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch() -> str:
    """What tells the torchrun that began this process from others: its run id, its address, and
    when it began; nothing where it was begun in another way."""
    if not is_restartable():
        return ""
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        began = ""
    number = os.environ["TORCHELASTIC_RUN_ID"]
    return f"{number}/{socket.gethostname()}/{parent}/{began}"


def was_restarted() -> bool:
    """Whether torchrun began these processes anew after one of them had failed."""
    return is_restartable() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def say_met() -> None:
    """Tell `--devices`, from the leader, that all processes have met."""
    if MET in os.environ:
        os.close(int(os.environ.pop(MET)))


def number() -> int:
    """This process's number, also before it has met the others."""
    return int(os.environ.get("RANK", "0")) if is_launched() else 0


def check_alone() -> None:
    """Raises UsageError where several processes were begun for a verb of one: by the first of them
    alone, and Dismissed in the others, so that it is said once."""
    if not is_launched():
        return
    if int(os.environ.get("RANK", "0")):
        raise Dismissed(UsageError.exit_code)
    raise UsageError("this command works in one process: begin it without torchrun")


def check_devices(asked: int) -> None:
    """Raises UsageError where `--devices` was asked of a process that can't begin others."""
    there = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if asked > 1 and not is_launched():
        raise UsageError(
            "--devices belongs to the command line: in Python, begin the program by "
            f"`torchrun --nproc-per-node {asked}` and leave it out"
        )
    if asked not in (1, there):
        raise UsageError(
            f"torchrun has begun {there} processes on this machine: leave out --devices {asked}"
        )


@dataclass
class Asked:
    """The signals by which this process was asked to stop."""

    times: int = 0
    last: float = -math.inf  # when

    def note(self, signal_number: int, frame: FrameType | None) -> bool:
        """One more, unless it is the same once more; returns whether it counts."""
        now = time.monotonic()
        if now - self.last < AGAIN:
            return False
        self.times, self.last = self.times + 1, now
        return True


def run_in_processes(devices: int, command: Sequence[str]) -> int:
    """Run the same command in so many processes; returns the leader's exit code.

    Raises Interrupted where the leader was killed, or ended before it could speak.
    """
    with _listened() as asked:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            hear, say = os.pipe()
            try:
                processes.extend(_begun(devices, command, say))
            finally:
                os.close(say)
            with open(hear, "rb") as met:
                is_late = _attend(processes, asked, met)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    leader = processes[0].returncode
    if leader >= 0:
        return leader
    if asked.times:
        raise Interrupted("stopped")
    if is_late:
        raise Interrupted(
            f"process 0 of {devices} didn't end after another one had, and was killed"
        )
    raise Interrupted(f"process 0 of {devices} was ended by {_signal_name(leader)}")


@contextmanager
def _listened() -> Iterator[Asked]:
    """Signals that ask to stop are noted; one that was ignored from the beginning stays so."""
    asked, before = Asked(), {}
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        if signal.getsignal(one) != signal.SIG_IGN:
            before[one] = signal.signal(one, asked.note)
    try:
        yield asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _begun(
    devices: int, command: Sequence[str], say: int
) -> Iterator["subprocess.Popen[bytes]"]:  # fmt: skip
    """The processes, each in a session of its own: a terminal's Ctrl-C comes here alone. The leader
    closes `say` when all have met."""
    threads = str(max(1, (os.cpu_count() or 1) // devices))
    with socket.socket() as listener:
        listener.bind((HOME, 0))
        listener.listen(2 * devices)
        shared = {
            "MASTER_ADDR": HOME, "MASTER_PORT": str(listener.getsockname()[1]),
            "WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices),
            LAUNCHER: str(os.getpid()),
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # else it traces
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        }  # fmt: skip
        if sys.platform == "linux":
            shared["GLOO_SOCKET_IFNAME"] = "lo"  # what they say doesn't leave the machine
        own = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(devices)]
        own[0] |= {LISTENER: str(listener.fileno()), MET: str(say)}
        for environment in own:
            yield subprocess.Popen(
                command, env=os.environ | shared | environment, start_new_session=True,
                pass_fds=[listener.fileno(), say] if LISTENER in environment else [],
            )  # fmt: skip


def _attend(
    processes: list["subprocess.Popen[bytes]"], asked: Asked, met: IO[bytes]
) -> bool:  # fmt: skip
    """Wait until all have ended; where one failed the others have a while, as they notice it.

    Returns whether the leader took longer than that, and was ended.
    """
    passed_on, failed_at, told, is_late = 0, None, False, False
    while any(process.poll() is None for process in processes):
        time.sleep(LOOK)
        if asked.times > passed_on:
            passed_on = asked.times
            _ask(processes[0], hard=passed_on > 2)
        if not _has_failed(processes):
            continue
        if failed_at is None:
            failed_at = time.monotonic()
            _say_killed(processes)
        spent = time.monotonic() - failed_at
        late = LATE if select.select([met], [], [], 0)[0] else ALONE
        if spent > late or (spent > ALONE and processes[0].poll() is not None):
            is_late = is_late or processes[0].poll() is None
            for process in processes:
                process.kill()
        elif spent > ALONE and not told:
            told = True
            _ask(processes[0])
    return is_late


def _has_failed(processes: list["subprocess.Popen[bytes]"]) -> bool:
    """Whether one has ended otherwise than well, or the leader however it ended."""
    return processes[0].poll() is not None or any(process.poll() for process in processes)


def _ask(process: "subprocess.Popen[bytes]", *, hard: bool = False) -> None:
    """Ask to stop; hard: end it."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)


def _say_killed(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Name those that a signal ended, as the leader can't know; its own end is said last."""
    for i, process in enumerate(processes):
        code = process.poll()
        if i and code is not None and code < 0:
            words = f"process {i} of {len(processes)} was ended by {_signal_name(code)}"
            print(words, file=sys.stderr, flush=True)


def _signal_name(code: int) -> str:
    """The signal in words, with what it often means."""
    name = signal.Signals(-code).name
    return f"{name}, perhaps as memory ran out" if name == "SIGKILL" else name
