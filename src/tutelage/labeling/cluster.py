"""The parts of a pool made by the workers of a Ray cluster, each by a task that Ray repeats.

A task gives the part's bytes back and only the process that asked writes them, so that a worker or
a machine that dies leaves no file, and a part that is made again is written once.
"""

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch

from tutelage.core import Advance
from tutelage.data.find import open_source
from tutelage.data.label_parts import Portion
from tutelage.data.source import Source
from tutelage.data.storage import absolute, is_given
from tutelage.errors import TutelageError, UsageError
from tutelage.labeling.answers import PoolTeacher
from tutelage.labeling.make_parts import Made, Make, make_parts
from tutelage.learner import choose_precision
from tutelage.settings import Precision

RETRIES = 3  # times that a part is begun anew after its worker or machine has died
AHEAD = 2  # parts asked for at once, for each that is being made


@dataclass(frozen=True)
class Task:
    """What every task is told beside its part."""

    pool: str  # address
    canvas: int  # pixels
    device: str  # cpu or cuda
    cpus: int


@contextmanager
def workers(
    address: str, teacher: PoolTeacher, pool: Source, *, canvas: int, device: str, asked: Precision
) -> Iterator[Make]:
    """How parts are made by the Ray cluster at the address; auto: the one that runs, else one on
    this machine.

    Raises UsageError where Ray is not installed or not there, and for a pool or a device that its
    workers can't have.
    """
    if is_given(pool.address):
        raise UsageError(
            "images that were given from Python are in this process alone: write them to files "
            "for --cluster, or label without it"
        )
    with _connected(address):
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))
        where = _device(device, gpus)
        task = Task(absolute(pool.address), canvas, where.type, _cpus(where, gpus))
        ready = replace(teacher, precision=choose_precision(asked, where))
        yield partial(_make_parts, ready, task)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Hold on to the cluster, unless the program does so already."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("--cluster needs Ray: pip install 'tutelage[ray]'") from error
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = threading.current_thread() is threading.main_thread()
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        known = None if address == "auto" else address
        ray.init(known, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except Exception as error:  # Ray has many kinds, and the bare one too
        what = "Ray could not be begun here" if known is None else f"no Ray cluster at {known}"
        raise UsageError(f"{what}: {error}") from error
    if here:
        signal.signal(signal.SIGTERM, terminate)  # Ray puts its own there
    try:
        yield
    finally:
        ray.shutdown()


def _device(name: str, gpus: int) -> torch.device:
    """What the workers compute on."""
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device {name} is for one machine: with --cluster, auto, cpu or cuda")
    if name == "cuda" and not gpus:
        raise UsageError("the cluster has no GPU: leave --device out, or set it to cpu")
    return torch.device(name)


def _cpus(device: torch.device, gpus: int) -> int:
    """For each task: one, or a GPU's share."""
    import ray

    cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(1, cpus // gpus) if device.type == "cuda" else 1


def _make_parts(
    teacher: PoolTeacher, task: Task, wanted: Sequence[Portion], advance: Advance, opened: Advance
) -> Generator[Made]:
    """Every wanted part, in the order in which they are done.

    Raises TutelageError where a part's workers die again and again.
    """
    import ray

    sent = [ray.put(replace(teacher, module=deepcopy(teacher.module).to("cpu")))]
    begin = ray.remote(_make_part).options(
        num_cpus=task.cpus, num_gpus=int(task.device == "cuda"), max_retries=RETRIES
    )
    running: dict[Any, Portion] = {}
    waiting = deque(wanted)
    while waiting or running:
        while waiting and len(running) < AHEAD * _places(task):
            portion = waiting.popleft()
            running[begin.remote(sent, portion, task)] = portion
        ready, _ = ray.wait(list(running), num_returns=1)
        made = _result(ready[0], running.pop(ready[0]))
        opened(made.images)
        advance(made.images)
        yield made


def _places(task: Task) -> int:
    """How many tasks can run at once, on the machines that are there now."""
    import ray

    there = ray.cluster_resources()
    cpus = int(there.get("CPU", 0)) // task.cpus
    return max(1, min(cpus, int(there.get("GPU", 0))) if task.device == "cuda" else cpus)


def _result(reference: Any, portion: Portion) -> Made:
    """What the task gave; raises its error."""
    import ray

    try:
        made: Made = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TutelageError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise TutelageError(
            f"part {portion.number} could not be made: each of {RETRIES + 1} workers died, by "
            f"memory that was short or by one of its images; the last one's end: {error}"
        ) from error
    return made


def _make_part(sent: list[Any], portion: Portion, task: Task) -> Made:
    """One part, on a worker."""
    teacher = _received(sent[0], task.device)
    torch.set_num_threads(task.cpus)
    (made,) = make_parts(
        teacher, open_source(task.pool), [portion], _deaf, _deaf, canvas=task.canvas,
        threads=max(2, task.cpus),
    )  # fmt: skip
    return replace(made, data=bytes(made.data))


def _deaf(images: int) -> None:
    """The progress is shown where the parts are asked for."""


@lru_cache(maxsize=1)
def _received(reference: Any, device: str) -> PoolTeacher:
    """The teacher, which a worker takes over once."""
    import ray

    teacher: PoolTeacher = ray.get(reference)
    module: Any = deepcopy(teacher.module)  # what lies in Ray's memory can't be written to
    return replace(teacher, module=module.to(device, memory_format=torch.channels_last))
