"""Two real processes that torchrun begins, beside what a test does meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from tutelage.distributed import crew

STEP = timedelta(seconds=60)  # for which one waits for the other, on a machine that does much else


@contextmanager
def two_processes(script: str, *words: str, within: float) -> Iterator[None]:
    """`python script words` in both, which are to end well within so many seconds.

    Begun again by torchrun where a process dies, as one once did in malloc of a thread of gloo, or
    where the other waits for it in vain, as once in a gathering of gloo: what has been done by
    then, or begun, is gone on with.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
               "--max-restarts=1", script, *words]  # fmt: skip
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            yield
            assert process.wait(timeout=within) == 0
        finally:
            process.terminate()  # where it still runs, with both


def lose_patience() -> None:
    """In each of the two: a minute for a step of the other, and not half an hour."""
    crew.STEP = STEP
