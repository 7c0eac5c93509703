"""Two hosts train one run, and lose each other: does it end as an undisturbed one does?

    python -m benchmarks.two_hosts --out /tmp/hosts [--troubles silence killed worker stopped]

The hosts are two network namespaces of this machine, joined by a bridge, with a torchrun each; that
needs Linux and no rights where users may make namespaces. Elsewhere they are two addresses of the
loopback device, whose link can't be taken down: there `silence` stops the second one's processes.

A run begins on one host, a second one joins, and then comes the trouble:
    silence  the second host's link goes down: nobody closes a connection
    killed   kill -9 of all processes of the second host, which later comes back
    worker   kill -9 of the first host's training process, which its torchrun begins anew
    stopped  SIGTERM to the first host's torchrun; later the same command on that host alone
It prints for each how many processes each start had, and how far the losses are from those of one
process that nobody disturbed. Of the same seed, with a network without batch norm and dropout.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.hosts import INSIDE, Host, hosts, in_namespaces, is_asked_to_stop

STEPS = 150
MINUTES = 4.0  # for whatever is waited for
TIMES = {"images_per_second", "data_share", "seconds"}
FLAGS = {
    "model": "test_vit", "method": "noisy-student", "rounds": 1, "steps": STEPS, "img-size": 16,
    "batch": 8, "ratio": 1, "val-fraction": 0, "select.threshold": 0.1, "device": "cpu",
    "optim.name": "sgd", "optim.lr": 0.01, "noise.dropout": 0, "noise.drop-path": 0,
    "student-init": "scratch",  # else the baseline is twice as long, and rounding grows to 1e-3
}  # fmt: skip


def write_images(root: Path) -> Path:
    """labeled/, test/ (4 classes of 4) and pool/ (24): noise in four colors."""
    dice = np.random.default_rng(0)
    for i in range(56):
        part, name = ("pool", "") if i >= 32 else (("labeled", "test")[i // 16], "abcd"[i % 4])
        pixels = dice.integers(0, 120, (16, 16, 3))
        pixels[..., i % 3] += 30 * (i % 4)
        folder = root / part / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@dataclass
class Trial:
    """A run on two hosts."""

    out: Path
    images: Path
    first: Host
    second: Host
    port: int

    def words(self, out: Path) -> list[str]:
        """The command."""
        parts = {"data": "labeled", "unlabeled": "pool", "test": "test"}
        given = {key: self.images / part for key, part in parts.items()} | FLAGS | {"out": out}
        return ["selftrain", *(w for key, value in given.items() for w in (f"--{key}", str(value)))]

    def begin(self, host: Host) -> None:
        """The same command on a host, the first of which all others ask."""
        host.begin(f"{self.first.address}:{self.port}", self.words(self.out))

    def processes(self) -> list[int]:
        """How many each start of the run had."""
        file = self.out / "environment.json"
        return [row["processes"] for row in json.loads(file.read_text())] if file.exists() else []

    def lines(self) -> int:
        """Of all metrics."""
        return sum(len(f.read_text().splitlines()) for f in self.out.glob("rounds/*/metrics.jsonl"))

    def trains(self, processes: int) -> None:
        """Until so many processes have begun, and written a few lines."""
        wait(lambda: self.processes()[-1:] == [processes], f"{processes} processes")
        before = self.lines()
        wait(lambda: self.lines() > before + 2, "some steps")

    def labels_and_goes_on(self) -> None:
        """Until its second training, as the first has ended with what both have learned."""
        log = self.out / "rounds" / "01-student" / "metrics.jsonl"
        wait(lambda: log.exists() and bool(log.read_text()), "the student")

    def joined(self) -> None:
        """A second host joins, while the first does not run ahead."""
        (one,) = self.first.workers()
        os.kill(one, signal.SIGSTOP)
        self.begin(self.second)
        wait(lambda: is_asked_to_stop(one), "the second host")
        os.kill(one, signal.SIGCONT)
        self.trains(2)

    def finished(self) -> None:
        """The first host's command ends well."""
        assert self.first.torchrun is not None
        assert self.first.torchrun.wait(60 * MINUTES) == 0, f"see {self.first.logs}"


def wait(ready: Callable[[], bool], what: str) -> None:
    """Until it is so."""
    deadline = time.monotonic() + 60 * MINUTES
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come")
        time.sleep(0.05)


def silence(trial: Trial) -> None:
    """The second host's link goes down, and it never comes back."""
    trial.labels_and_goes_on()
    trial.second.fall_silent()
    trial.finished()
    trial.second.kill()


def killed(trial: Trial) -> None:
    """The second host is gone at once, and comes back."""
    trial.second.kill()
    trial.trains(1)
    trial.joined()
    trial.finished()


def worker(trial: Trial) -> None:
    """The leader is killed, and its torchrun begins it anew."""
    trial.labels_and_goes_on()
    (one,) = trial.first.workers()
    os.kill(one, signal.SIGKILL)
    wait(lambda: len(trial.processes()) > 2, "another start")
    trial.finished()


def stopped(trial: Trial) -> None:
    """The first host is asked to stop; later it goes on alone."""
    assert trial.first.torchrun is not None
    trial.first.torchrun.terminate()
    trial.first.torchrun.wait(60 * MINUTES)
    state = json.loads((trial.out / "run.json").read_text())["state"]
    assert state == "interrupted", state
    trial.second.kill()
    trial.port += 1
    trial.begin(trial.first)
    trial.finished()


TROUBLES = {one.__name__: one for one in (silence, killed, worker, stopped)}


def farthest(one: Path, other: Path) -> float:
    """The largest difference of any metric of any line."""
    largest = 0.0
    for file in sorted(one.glob("rounds/*/metrics.jsonl")):
        pairs = [
            [json.loads(line) for line in (run / file.relative_to(one)).read_text().splitlines()]
            for run in (one, other)
        ]
        for a, b in zip(*pairs, strict=True):
            assert a.keys() == b.keys()
            largest = max([largest, *(abs(a[key] - b[key]) for key in a.keys() - TIMES)])
    return largest


def main(arguments: list[str]) -> int:
    """All troubles that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--troubles", nargs="+", choices=TROUBLES, default=list(TROUBLES))
    asked = parser.parse_args(arguments)
    if INSIDE not in os.environ:
        code = in_namespaces("benchmarks.two_hosts", arguments)
        if code is not None:
            return code
    os.environ["OMP_NUM_THREADS"] = "1"
    images = write_images(asked.out / "images")
    first, second = hosts(asked.out)
    calm = Trial(asked.out / "calm", images, first, second, 0)
    with (asked.out / "calm.log").open("wb") as log:
        command = [sys.executable, "-m", "tutelage", *calm.words(calm.out)]
        alone = subprocess.Popen(command, stdout=log, stderr=log)
    for i, name in enumerate(asked.troubles):
        trial = Trial(asked.out / name, images, first, second, 29500 + 10 * i)
        try:
            trial.begin(first)
            trial.trains(1)
            trial.joined()
            TROUBLES[name](trial)
        finally:
            first.kill()
            second.kill()
        assert alone.wait(60 * MINUTES) == 0
        second.come_back()
        difference = farthest(calm.out, trial.out)
        where = "two namespaces" if first.apart else "two addresses"
        print(
            f"{name}: {where}, processes {trial.processes()}, losses within {difference:.1e}",
            flush=True,
        )
        assert difference < 1e-5
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
