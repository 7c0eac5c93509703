"""What a person meets where the machine fails: each trouble as a real run, and what comes after it.

python -m benchmarks.troubles [--only NAME …] [--out FOLDER]      (as root, on Linux)

A full disk is a tmpfs that is too small, and made larger afterwards; a folder that can't be written
is a mount that is read-only, or files that `chattr +i` holds; memory is taken away from a running
process by RLIMIT_AS. Then the trouble is mended, the same command is given again, and what it
leaves is compared with a calm run's, bit for bit. A line a trouble: how the command ended, its last
words, how the same command ended, and whether all is the same.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks.faults import environment
from benchmarks.faults_jobs import contents, make_data, run_once

START = (sys.executable, "-m", "benchmarks.faulted")
WAIT = 180.0  # seconds for what must come

TRAIN = [
    "--model", "test_resnet", "--img-size", "16", "--batch", "4", "--steps", "120", "--device",
    "cpu", "--memory", "0MB", "--val-fraction", "0", "--ratio", "1", "--method", "fixmatch",
]  # fmt: skip


@dataclass
class Ended:
    """How a command ended."""

    code: int
    words: str


@dataclass
class Bench:
    """Folders to work in, commands over them, and calm runs."""

    out: Path
    calm: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Images, shards, a teacher and its labels."""
        return self.out / "data"

    @property
    def images(self) -> Path:
        """A copy of the images that may be spoiled."""
        if not (self.out / "own").exists():
            for name in ("labeled", "pool", "test", "shards"):
                shutil.copytree(self.data / name, self.out / "own" / name)
        return self.out / "own"

    def words(self, kind: str, out: Path) -> list[str]:
        """A command of a kind."""
        data, own = self.data, self.images
        given = {
            "train": ["train", "--data", own / "labeled", "--test", own / "test",
                      "--unlabeled", own / "pool", *TRAIN],
            "label": ["label", "--model", data / "teacher", "--data", data / "large-shards",
                      "--device", "cpu"],
            "select": ["select", data / "large-labels", "--threshold", "0.6"],
            "nan": ["train", "--data", own / "labeled", *TRAIN[:-4], "--optim.lr", "1e30"],
        }  # fmt: skip
        return [*START, *map(str, given[kind]), "--out", str(out)]

    def begin(self, kind: str, out: Path) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            self.words(kind, out), env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, kind: str, out: Path) -> Ended:
        """A command to its end."""
        return end(self.begin(kind, out))

    def same(self, kind: str, out: Path) -> bool:
        """Whether a folder has what a calm run of its kind leaves."""
        if kind not in self.calm:
            there = self.out / f"calm-{kind}"
            if not there.exists():
                run_once(self.words(kind, there), environment())
            self.calm[kind] = contents(there)
        found, calm = contents(out), self.calm[kind]
        for name in sorted(found.keys() | calm.keys()):
            if found.get(name) != calm.get(name):
                print(f"    differs: {name}")
        return found == calm


Trouble: TypeAlias = Callable[[Bench, Path], list[tuple[str, Ended]]]


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command."""
    try:
        _, said = process.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        return Ended(-99, f"{process.communicate()[1]}\nit hangs")
    return Ended(process.returncode, said)


def until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a state of a running command."""
    deadline = time.monotonic() + WAIT
    while not there() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def trained(out: Path, lines: int = 20) -> Callable[[], bool]:
    """Whether a training has logged so many steps."""
    log = out / "rounds" / "00-fixmatch" / "metrics.jsonl"
    return lambda: log.exists() and log.read_text().count("\n") >= lines


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of that size; what it gives makes it another size."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield lambda more: subprocess.run(
            ["mount", "-o", f"remount,size={more}", folder], check=True
        )  # type: ignore[func-returns-value]
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(kind: str, size: str) -> Trouble:
    """The disk is full while this command works."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        with small_disk(out, size) as resize:
            run = out / "run"
            first = bench.run(kind, run)
            left = [str(path.relative_to(run)) for path in run.rglob("*.part")]
            again = bench.run(kind, run)
            resize("400m")
            last = bench.run(kind, run)
            same = bench.same(kind, run) if last.code == 0 else False
        return [("first", first), ("again", again), (f"mended, {same=}, {left=}", last)]

    return trouble


def read_only(kind: str) -> Trouble:
    """The folder of a stopped run is mounted read-only."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        out.mkdir(parents=True)
        process = bench.begin(kind, out)
        until(lambda: len(list(out.rglob("*.p*t*"))) >= 3, process)
        process.kill()
        process.communicate()
        subprocess.run(["mount", "--bind", out, out], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", out], check=True)
        try:
            first = bench.run(kind, out)
        finally:
            subprocess.run(["umount", "-l", out], check=True)
        last = bench.run(kind, out)
        return [("first", first), (f"mended, same={bench.same(kind, out)}", last)]

    return trouble


def held_file(name: str) -> Trouble:
    """A file, or a folder, of a running training can't be written any more."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        process = bench.begin("train", out)
        until(trained(out), process)
        subprocess.run(["chattr", "+i", out / name], check=True)
        try:
            first = end(process)
            again = bench.run("train", out)
        finally:
            subprocess.run(["chattr", "-i", out / name], check=True)
        last = bench.run("train", out)
        return [("first", first), ("again", again),
                (f"mended, same={bench.same('train', out)}", last)]  # fmt: skip

    return trouble


def no_memory(kind: str, begun: Callable[[Path], Callable[[], bool]], more: int = 0) -> Trouble:
    """A command that has begun gets no more memory than it has, but for so many bytes."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        process = bench.begin(kind, out)
        until(begun(out), process)
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        first = end(process)
        last = bench.run(kind, out)
        return [("first", first), (f"mended, same={bench.same(kind, out)}", last)]

    return trouble


def lost_image(how: str) -> Trouble:
    """A pool image vanishes, or becomes another, while a training runs."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        process = bench.begin("train", out)
        until(trained(out, 5), process)
        kept = {}
        for image in sorted((bench.images / "pool").glob("*.png"))[::7]:
            kept[image] = image.with_suffix(".kept")
            image.rename(kept[image])
            if how == "changed":
                image.write_bytes((bench.images / "pool" / "00001.png").read_bytes())
        first = end(process)
        again = bench.run("train", out)
        for image, aside in kept.items():
            aside.replace(image)
        last = bench.run("train", out)
        return [("first", first), ("again", again),
                (f"mended, same={bench.same('train', out)}", last)]  # fmt: skip

    return trouble


def not_a_number(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
    """The learning rate is far too high."""
    return [("first", bench.run("nan", out)), ("again", bench.run("nan", out))]


def two_at_once(kind: str) -> Trouble:
    """Another command works in the folder; then it is killed, and the second may."""

    def trouble(bench: Bench, out: Path) -> list[tuple[str, Ended]]:
        process = bench.begin(kind, out)
        until(lambda: (out / ".lock").exists() and (out / ".lock").read_text() != "", process)
        os.kill(process.pid, signal.SIGSTOP)  # so that it isn't done before the second one comes
        refused = bench.run(kind, out)
        named = str(process.pid) in refused.words
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        last = bench.run(kind, out)
        return [(f"second, pid {named=}", refused),
                (f"first killed, same={bench.same(kind, out)}", last)]  # fmt: skip

    return trouble


TROUBLES: dict[str, Trouble] = {
    "full-at-start": full_disk("train", "8k"),
    "full-in-check": full_disk("train", "40k"),
    "full-checkpoint": full_disk("train", "4m"),
    "full-second-checkpoint": full_disk("train", "10m"),
    "full-labels": full_disk("label", "120k"),
    "full-selection": full_disk("select", "900k"),
    "read-only-train": read_only("train"),
    "read-only-label": read_only("label"),
    "read-only-select": read_only("select"),
    "held-log": held_file("logs/log.txt"),
    "held-metrics": held_file("rounds/00-fixmatch/metrics.jsonl"),
    "held-folder": held_file("rounds/00-fixmatch"),
    "memory-train": no_memory("train", trained),
    "memory-train-little": no_memory("train", trained, 2**20),
    "memory-label": no_memory("label", lambda out: lambda: any(out.glob("part-*"))),
    "memory-check": no_memory("train", lambda out: (out / "run.json").exists),
    "lost-image": lost_image("gone"),
    "changed-image": lost_image("changed"),
    "nan": not_a_number,
    "two-train": two_at_once("train"),
    "two-label": two_at_once("label"),
    "two-select": two_at_once("select"),
}


def main() -> None:
    """Meet each trouble."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(TROUBLES), choices=list(TROUBLES))
    parser.add_argument("--out", type=Path, default=Path("bench-out/troubles"))
    given = parser.parse_args()
    bench = Bench(given.out.absolute())
    bench.out.mkdir(parents=True, exist_ok=True)
    make_data(bench.data, lambda words: run_once([*START, *words], environment()))
    for name in given.only:
        out = bench.out / "work" / name
        shutil.rmtree(out, ignore_errors=True)
        print(f"{name}", flush=True)
        for what, ended in TROUBLES[name](bench, out):
            words = ended.words.strip().splitlines()[-1:]
            trace = "  TRACEBACK" if "Traceback" in ended.words else ""
            if ended.code < 0:
                print(ended.words)
            print(f"  {what}: {ended.code}{trace}: {''.join(words)[:400]}", flush=True)


if __name__ == "__main__":
    main()
