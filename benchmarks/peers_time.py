"""The same wall time for every arm: calibrated steps, and an end at the limit.

An arm's schedule is to end within the time, so it is told a number of steps. Its process is timed
with few steps and with many, from start to end; seconds = start + step * steps gives the steps that
95 % of the limit have room for. The limit itself counts from the start of the process, imports and
reading of images included, and ends the whole process group. An arm that it ended was planned too
long, by us: it is trained again with nine tenths of the steps, up to two times; what was saved by
then is judged.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.journal import Row
from benchmarks.peers_job import Job

ROOT = Path(__file__).parents[1]
FEW, GROWTH = 10, 4  # steps of the first timed run, and how they grow
SHARE = 0.95  # of the limit that is planned with
OFFLINE = {
    "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1",
    "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


class Failed(Exception):
    """An arm ended with an error; the others can go on."""


@dataclass(frozen=True)
class Cost:
    """What an arm's training takes."""

    start: float  # seconds, of a training without steps
    step: float  # seconds

    def steps_within(self, limit: float) -> int:
        """Steps that fit the planned share of the limit in seconds; at least 1."""
        return max(1, int((SHARE * limit - self.start) / self.step))


def cost_of(few: tuple[int, float], many: tuple[int, float]) -> Cost:
    """The line through two timed runs, each steps and seconds.

    Raises Failed where more steps took no more time, so that nothing can be planned.
    """
    steps, seconds = many[0] - few[0], many[1] - few[1]
    if steps <= 0 or seconds <= 0:
        raise Failed(f"no time of a step: {few[0]} steps in {few[1]} s, {many[0]} in {many[1]} s")
    step = seconds / steps
    return Cost(max(0.0, few[1] - step * few[0]), step)


def calibrated(timed: Callable[[int], float], seconds: float) -> Row:
    """Start and step of an arm; the longest timed run takes so many seconds more than the first."""
    few = (FEW, timed(FEW))
    many = (FEW * GROWTH, timed(FEW * GROWTH))
    while many[1] - few[1] < seconds:
        step = max((many[1] - few[1]) / (many[0] - few[0]), 1e-4)
        wanted = round(few[0] + 1.3 * seconds / step)
        count = min(max(wanted, 2 * many[0]), many[0] * GROWTH**2)
        many = (count, timed(count))
    found = cost_of(few, many)
    return {"start": found.start, "step": found.step, "timed": [few, many]}


@dataclass(frozen=True)
class Place:
    """Where arms run: the cores that all have."""

    cores: tuple[int, ...]

    def environment(self, job: Job) -> dict[str, str]:
        """As many threads as cores, no accelerator, no network, no cache that a run may leave."""
        count = str(len(self.cores))
        paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
        threads = {f"{name}_NUM_THREADS": count for name in ("OMP", "MKL", "OPENBLAS")}
        own = {"LIGHTLY_TRAIN_CACHE_DIR": str(job.file("cache"))}
        return dict(os.environ) | paths | threads | OFFLINE | own

    def run(self, verb: str, module: str, job: Job, *, python: Path, limit: float) -> Row:
        """Seconds of an arm's process, and whether the limit ended it. Raises Failed."""
        command = ["taskset", "-c", ",".join(map(str, self.cores)), str(python), "-m",
                   f"benchmarks.{module}", verb, str(job.write())]  # fmt: skip
        log = job.file(f"{verb}.log")
        with log.open("w") as lines:
            start = time.monotonic()
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment(job), stdin=subprocess.DEVNULL,
                stdout=lines, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            ended = True
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(limit)
                    ended = False
            finally:
                seconds = time.monotonic() - start
                _end_group(process)
        if not ended and process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise Failed(f"{module} {verb} failed with {process.returncode} ({log}):\n{tail}")
        return {"seconds": round(seconds, 1), "ended": ended}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started, such as loaders of images."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def done(folder: Path) -> Row | None:
    """What a finished training said; None: it is still to be run."""
    file = folder / "done.json"
    return json.loads(file.read_text()) if file.exists() else None


def keep(folder: Path, said: Row) -> Row:
    """Say that a training is finished, so that it is not run again."""
    part = folder / "done.part"
    part.write_text(json.dumps(said))
    part.replace(folder / "done.json")
    return said
