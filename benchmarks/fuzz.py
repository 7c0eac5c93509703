"""Damaged inputs of every kind: each must be read, or refused by an error of our own.

python -m benchmarks.fuzz [--inputs 100000] [--seed 0] [--targets images tars …] [--out FOLDER]

An input is a function of seed, target and number: a valid one (fuzz_targets.py) that is changed
in one to eight places. Each target is read by a process of its own, whose parent watches it: a
crash, a stretch of more than 5 s, memory of more than 1 GB over that at the start, and any error
that is not ours are findings; the input is kept in OUT/findings/. A row a target is appended to
OUT/fuzz.csv when it is done. The same command goes on with the targets that have no row yet.
"""

import argparse
import csv
import faulthandler
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from benchmarks.fuzz_targets import TARGETS, Target

MOST_SECONDS = 5  # of the processor: other processes may slow this one down
MOST_BYTES = 2**30
WAIT = 30  # seconds without a word after which a process is ended
REPORT = 200  # inputs between two words of a process
LETTERS = tuple(b"019.-+eE\"'{}[]:,&*!#|> \n\tabz_/~%")
SIGNS = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x0A)


class TooLong(BaseException):
    """No `except Exception` may keep it."""


@dataclass
class Outcome:
    """What became of a target's inputs."""

    read: int = 0
    refused: int = 0
    findings: list[tuple[int, str]] = field(default_factory=list)  # number of the input, what


def changed(  # noqa: C901  (a list of ways)
    dice: random.Random, seeds: list[bytes], target: Target
) -> bytes:
    """One of the seeds with one to eight changes."""
    first = dice.choice(seeds)
    if target.vary is not None and dice.random() < 0.5:
        first = target.vary(dice, first)
        if dice.random() < 0.7:  # without any damage of bytes, which hides what stands further on
            return first
    data, signs = bytearray(first), LETTERS if target.text else SIGNS
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        at = dice.randrange(len(data) + 1)
        if dice.random() < 0.5:  # headers decide most
            at = min(at, dice.randrange(65))
        how = dice.randrange(8)
        if how == 0:
            data[at : at + 1] = bytes([dice.choice(signs) if target.text else dice.randrange(256)])
        elif how == 1 and at < len(data) and not target.text:
            data[at] ^= 1 << dice.randrange(8)
        elif how == 2:
            data[at : at + 1] = bytes([dice.choice(signs)]) * dice.choice((1, 1, 2, 4, 8))
        elif how == 3:
            del data[at : at + dice.choice((1, 2, 4, 16, 64, 512))]
        elif how == 4:
            data[at:at] = data[at : at + dice.choice((1, 4, 16, 512))]
        elif how == 5 and target.words:
            data[at:at] = dice.choice(target.words)
        elif how == 6:
            other = dice.choice(seeds)
            start = dice.randrange(len(other) + 1)
            data[at : at + 32] = other[start : start + 32]
        elif dice.random() < 0.2:
            del data[at:]
    return target.mend(bytes(data)) if dice.random() < 0.5 else bytes(data)


def input_of(target: str, number: int, seed: int, seeds: list[bytes]) -> bytes:
    """The input of that number."""
    return changed(random.Random(f"{seed} {target} {number}"), seeds, TARGETS[target])


def seeds_of(target: str) -> list[bytes]:
    """The target's valid inputs."""
    with tempfile.TemporaryDirectory() as folder:
        return list(TARGETS[target].seeds(Path(folder)))


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(
    target: str, numbers: range, seed: int, seeds: list[bytes], said: Connection, errors: str
) -> None:
    """Read inputs in turn; says (number, read or refused or what went wrong) for each."""
    faulthandler.enable(open(errors, "w"))  # noqa: SIM115  (as long as the process lives)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _stop)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C complain there
    words: list[tuple[int, str]] = []
    start = _peak()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for number in numbers:
            data = input_of(target, number, seed, seeds)
            said.send(("at", number))
            words.append((number, _outcome(target, data, Path(folder))))
            if _peak() - start > MOST_BYTES:
                words[-1] = number, f"memory: {(_peak() - start) / 2**20:,.0f} MB"
                break
            if len(words) == REPORT:
                said.send(("did", words))
                words = []
    said.send(("did", words))
    said.send(("end", words[-1][0] + 1 if words else numbers.stop))


def _outcome(target: str, data: bytes, folder: Path) -> str:
    """read, refused, or an error that is not ours."""
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        return "read" if TARGETS[target].read(data, folder) else "refused"
    except TooLong:
        return f"took more than {MOST_SECONDS} s"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        own = [at for at in place if "/tutelage/" in at.filename][-1:] or place[-1:]
        where = f"{Path(own[0].filename).name}:{own[0].lineno}" if own else "?"
        return f"{type(error).__name__} at {where}: {str(error)[:120]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def watch(target: str, count: int, seed: int, out: Path) -> Outcome:
    """All inputs of a target, in processes that are begun anew after each that ends too early."""
    outcome, seeds, at = Outcome(), seeds_of(target), 0
    context = multiprocessing.get_context("fork")
    while at < count:
        listen, said = context.Pipe(duplex=False)
        errors = str(out / f"{target}.trace")
        wanted = range(at, count)
        one = context.Process(target=work, args=(target, wanted, seed, seeds, said, errors))
        one.start()
        said.close()
        last, pending, why = at, at, ""
        try:
            while True:
                if not listen.poll(WAIT):
                    why = f"silent for {WAIT} s"
                    break
                kind, value = listen.recv()
                if kind == "at":
                    last = value
                elif kind == "did":
                    pending = value[-1][0] + 1 if value else pending
                    take(outcome, value)
                else:
                    at = value
                    break
        except EOFError:
            why = "died"
        if why:
            one.kill()
        one.join()
        if why:
            outcome.findings.append((last, f"{why}, exit code {one.exitcode}"))
            outcome.refused += last - pending  # those before it in the lost words, at worst
            at = last + 1
    return outcome


def take(outcome: Outcome, words: list[tuple[int, str]]) -> None:
    """Count what a process said."""
    for number, word in words:
        if word == "read":
            outcome.read += 1
        elif word == "refused":
            outcome.refused += 1
        else:
            outcome.findings.append((number, word))


def keep(outcome: Outcome, target: str, seed: int, out: Path) -> dict[str, int]:
    """Write the first input of each kind of finding; returns how many there are of each."""
    kinds: dict[str, int] = {}
    seeds = seeds_of(target)
    for number, what in outcome.findings:
        kind = what.split(": ")[0]
        if kind not in kinds:
            folder = out / "findings"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{target}-{seed}-{number}").write_bytes(
                input_of(target, number, seed, seeds)
            )
            print(f"  {target} {number}: {what}", flush=True)
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def main() -> None:
    """Fuzz the targets in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("bench-out/fuzz"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "fuzz.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    done = {(row["target"], row["seed"], row["inputs"]) for row in rows}
    for target in given.targets:
        count = round(given.inputs * TARGETS[target].share)
        if (target, str(given.seed), str(count)) in done:
            continue
        start = time.monotonic()
        outcome = watch(target, count, given.seed, given.out)
        kinds = keep(outcome, target, given.seed, given.out)
        row = {
            "target": target, "seed": given.seed, "inputs": count, "read": outcome.read,
            "refused": outcome.refused, "findings": len(outcome.findings),
            "seconds": round(time.monotonic() - start, 1),
            "kinds": "; ".join(f"{n} x {kind}" for kind, n in kinds.items()),
        }  # fmt: skip
        fresh = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
