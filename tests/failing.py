"""Several processes of which one fails, as `--devices` begins them: run by tests.

python failing.py KIND   fails in that way, and ends with the exit code of the command line
"""

import atexit
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tutelage.distributed.collectives import rank
from tutelage.distributed.crew import everywhere, led
from tutelage.ends import end_at_once
from tutelage.errors import DataProblem, Dismissed, GivenUp, TutelageError


def fail(kind: str, own: None) -> None:
    """A step together, and then no other."""
    dist.all_reduce(torch.ones(1))
    if kind == "image" and rank() == 1:
        raise DataProblem("cat/7.png has vanished: bring it back")
    if kind == "memory" and rank() == 1:
        raise MemoryError("no room for 3 GB")
    if kind == "disk" and rank() == 0:
        raise TutelageError("the disk is full: make room")
    if kind == "given up":
        raise GivenUp("the loss became nan")
    if kind == "gone" and rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))


def look_for_threads() -> None:
    """Say where threads of gloo are left, which may abort the process while Python ends."""
    names = [(one / "comm").read_text().strip() for one in Path("/proc/self/task").iterdir()]
    if any(name.startswith("pt_gloo") for name in names):
        print(f"rank {os.environ['RANK']} leaves {', '.join(names)}", file=sys.stderr)


def main(kind: str) -> int:
    """The exit code."""
    atexit.register(look_for_threads)  # before the processes meet, and so after they have parted
    if kind == "never there" and os.environ["RANK"] == "1":
        return 3
    try:
        led(lambda: everywhere(fail, kind, own=None), device="cpu")
    except Dismissed as error:
        return error.exit_code
    except TutelageError as error:
        print(f"rank {os.environ['RANK']}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    end_at_once(main(sys.argv[1]))
