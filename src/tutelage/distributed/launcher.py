"""`--devices N`: the same command in N processes of this machine, by torch's own launcher.

What torchrun does, without its words: the processes speak for themselves.
"""

import logging
import os
import sys
from collections.abc import Sequence

from tutelage.errors import Interrupted, TutelageError, UsageError


def is_launched() -> bool:
    """Whether this process was begun as one of several that are to work together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


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


def run_in_processes(devices: int, arguments: Sequence[str]) -> int:
    """Run the command in so many processes; returns the exit code of the first that failed, or 0.

    A process that was killed counts as an interruption: the same command goes on.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // devices))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id=f"tutelage-{os.getpid()}",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0,
        monitor_interval=0.1,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "tutelage", *arguments)
    except SignalException:
        return Interrupted.exit_code
    except ChildFailedError as error:
        number, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode >= 0:
            return failure.exitcode or TutelageError.exit_code
        raise Interrupted(
            f"process {number} of {devices} was ended by signal {-failure.exitcode}"
        ) from None
    return 0
