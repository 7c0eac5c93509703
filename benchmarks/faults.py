"""Commands killed at random moments, repeated until they end, and compared with calm ones.

python -m benchmarks.faults [--kills 200] [--seed 0] [--verbs train label select selftrain]
  [--devices N] [--out FOLDER]

A run is one command (faults_jobs.py) that is disturbed three to ten times and then left alone. Of
the disturbances a quarter is a kill at a chosen moment: while a file is being written (by the alarm
signal, which ends a process as SIGKILL does), between its writing and its rename, or just after;
which of them is drawn from all those of the calm run. The rest come when the command has used some
processor time, which is drawn evenly from that of the calm run, and so does not depend on what else
the machine does: 60 % SIGKILL, 20 % SIGTERM, 20 % SIGINT. After the last two the command must have
saved, end with 4 and print how to go on. A command that has ended before its disturbance ends the
run, and no kill is counted.

A run is lost where the same command, left alone, does not end with 0; it is wrong where any file
differs from the calm run's. Checkpoints come each 0.5 s and not each 30 s, which faulted.py sets.
With --devices the whole tree of processes is known and one of them, drawn evenly, is hit; all of
them must be gone soon after.

OUT/rows.jsonl gets a line a kill and a line a run as soon as the run has ended; the same command
goes on from there. What is lost or wrong is kept in OUT/findings. Several verbs may be worked at
in one folder by commands of their own.
"""

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults_jobs import JOBS, Job, contents, make_data, run_once
from benchmarks.faults_table import table
from benchmarks.journal import Row
from benchmarks.processes import tree, used

SAVE_SECONDS = "0.5"  # between checkpoints
EARLY = 0.5  # seconds of the processor, in which a signal may find Python alone
KILLS = (3, 10)  # in a run
CHOSEN = 0.25  # share of kills at chosen moments
SIGNALS = (signal.SIGKILL,) * 3 + (signal.SIGTERM, signal.SIGINT)
HOW = ("begun", "begun", "written", "placed")  # as faulted.py has it
LONGEST_WRITE = 0.02  # seconds
LONGEST = 600.0  # seconds of a command
HEARD_SECONDS = (
    2.0  # of the processor after a signal, in which a command that ends with 0 was about to
)
GONE_SECONDS = 120.0  # after which processes that outlive their command are a finding


@dataclass(frozen=True)
class Calm:
    """What a job does when it is left alone."""

    seconds: float  # of the processor
    writes: int
    contents: dict[str, str]


def environment(**more: str) -> dict[str, str]:
    """For a command: one thread, so that sums are the same."""
    return os.environ | {"OMP_NUM_THREADS": "1", "FAULTS_SAVE_SECONDS": SAVE_SECONDS} | more


def command(job: Job, data: Path, out: Path, devices: int | None) -> list[str]:
    """The words of a job's command."""
    more = ["--devices", str(devices)] if devices and job.devices else []
    start = [sys.executable, "-m", "benchmarks.faulted", job.verb]
    return [*start, *job.flags(data), *more, "--out", str(out)]


def calm(job: Job, folder: Path, devices: int | None) -> Calm:
    """The job's undisturbed run, once a campaign."""
    file = folder / "calm" / f"{job.verb}-{job.name}.json"
    out = file.with_suffix("")
    if not file.exists():
        shutil.rmtree(out, ignore_errors=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        counts, before = file.with_suffix(".count"), os.times()
        words = command(job, folder / "data", out, devices)
        run_once(words, environment(FAULTS_COUNT=str(counts)))
        after = os.times()
        spent = after.children_user + after.children_system
        seconds = round(spent - before.children_user - before.children_system, 2)
        found = {"seconds": seconds, "writes": int(counts.read_text()), "contents": contents(out)}
        file.write_text(json.dumps(found))
        print(f"{job.verb} {job.name}: {seconds} s, {found['writes']} files written", flush=True)
    return Calm(**json.loads(file.read_text()))


def disturbed(words: Sequence[str], its: Calm, dice: random.Random, said: Path) -> Row:
    """Start the command, disturb it, and wait until it and all its processes are gone."""
    chosen, number = dice.random() < CHOSEN, dice.choice(SIGNALS)
    at, place = dice.uniform(0, its.seconds), dice.randint(1, its.writes)
    row: Row = {"signal": signal.SIGKILL if chosen else number, "moment": "", "file": ""}
    more = {}
    if chosen:
        how = dice.choice(HOW)
        row["moment"] = how
        more = {
            "FAULTS_AT": f"{how} {place} {dice.uniform(1e-4, LONGEST_WRITE)}",
            "FAULTS_SAID": str(said),
        }
    said.unlink(missing_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(
        words, env=environment(**more), start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=(errors := said.with_suffix(".err").open("w+")),
    )  # fmt: skip
    known = _watched(process, LONGEST if chosen else at, deep="--devices" in words)
    hit = 0
    if process.poll() is None:
        hit = dice.choice(sorted(known))
        row["victim"] = "command" if hit == process.pid else "child"
        os.kill(hit, row["signal"])
    before = os.times()
    row["at"] = round(used(known), 2)
    row |= _ended(process, known, row["signal"])
    errors.seek(0)
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])
    row |= {"ended": round(spent, 2), "seconds": round(time.monotonic() - start, 1)}
    row["stderr"] = errors.read()[-2000:]
    errors.close()
    if chosen and said.exists():
        row["file"] = said.read_text()
    row["killed"] = bool(hit) or row["code"] < 0 or bool(row["file"] and row["code"])
    row["fault"] = row["fault"] or _misbehaved(row)
    return row


def _watched(process: subprocess.Popen[str], until: float, *, deep: bool) -> set[int]:
    """All processes of a command that live when it has used so much time of the processor."""
    known, deadline = {process.pid}, time.monotonic() + LONGEST
    while process.poll() is None and used(known) < until and time.monotonic() < deadline:
        time.sleep(0.02)
        known |= tree(process.pid) if deep else set()
    return {pid for pid in known if Path(f"/proc/{pid}").exists()}


def _ended(process: subprocess.Popen[str], known: set[int], number: int) -> Row:
    """Wait for the command and its processes; those that stay are ended, which is a fault."""
    fault = ""
    try:
        process.wait(GONE_SECONDS)
    except subprocess.TimeoutExpired:
        fault = f"it hangs after signal {number}"
    deadline = time.monotonic() + (0 if fault else GONE_SECONDS)
    while left := set[int]().union(*(tree(one) for one in known)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if left and not fault:
        fault = f"{len(left)} processes outlive it"
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return {"code": process.returncode, "fault": fault}


def _misbehaved(row: Row) -> str:
    """What is wrong about the way in which a command ended; nothing where all is well."""
    code, asked = row["code"], row["signal"] != signal.SIGKILL
    if not row["killed"]:
        return "" if code == 0 else f"it ended by itself, with {code}"
    if row.get("victim") == "child" or not asked:
        return ""  # how others end when one is killed is not laid down
    if code == 0 and row["ended"] > row["at"] + HEARD_SECONDS:
        return f"it went on after signal {row['signal']}"
    if code == 0 or (row["at"] < EARLY and code != 4):
        return ""  # it was done, or Python had not come to it
    if code != 4 or "to go on: tutelage" not in row["stderr"]:
        return f"it ended with {code} after signal {row['signal']}"
    return ""


def one_run(job: Job, given: argparse.Namespace, number: int) -> list[Row]:
    """Disturb a job a few times, let it end, compare; a row a kill and a row for the run."""
    its, start = calm(job, given.out, given.devices), time.monotonic()
    dice = random.Random(f"{given.seed} {job.verb} {job.name} {number}")
    name = f"{job.verb}-{job.name}-{given.seed}-{number}"
    out = given.out / "work" / name
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    words = command(job, given.out / "data", out, given.devices)
    about = {"verb": job.verb, "job": job.name, "seed": given.seed, "run": number}
    rows: list[Row] = []
    for _ in range(dice.randint(*KILLS)):
        row = disturbed(words, its, dice, out.with_suffix(".said"))
        row["stage"] = _stage(out)
        if row["fault"] and _is_finished(out, its):  # a signal to a Python that says goodbye
            row["fault"] = ""
        rows.append({"kind": "kill", **about, **row})
        if not row["killed"]:
            break
    whole = bool(rows) and not rows[-1]["killed"] and not rows[-1]["fault"]
    last = ["true"] if whole else words  # else it has ended already
    done = subprocess.run(last, env=environment(), capture_output=True, text=True, check=False)
    found = contents(out) if done.returncode == 0 else {}
    wrong = sorted(
        file for file in found.keys() | its.contents.keys()
        if found.get(file) != its.contents.get(file)
    )  # fmt: skip
    end: Row = {
        "kind": "run", **about, "starts": len(rows) + 1 - whole, "lost": done.returncode != 0,
        "wrong": wrong if done.returncode == 0 else [], "stderr": done.stderr[-3000:],
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    if end["lost"] or end["wrong"] or any(row["fault"] for row in rows):
        kept = given.out / "findings" / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(out, kept)
        print(f"FINDING {name}: {end['lost']=} {end['wrong']=}", flush=True)
        print("\n".join(f"  {row['fault']}: {row['stderr'][-300:]}" for row in rows), flush=True)
    shutil.rmtree(out)
    return [*rows, end]


def _stage(out: Path) -> str:
    """What the run was at."""
    file = out / "run.json"
    return str(json.loads(file.read_text())["stage"]) if file.exists() else ""


def _is_finished(out: Path, its: Calm) -> bool:
    """Whether everything is there already."""
    try:
        return contents(out) == its.contents
    except ValueError:  # of a line that is torn
        return False


def rows_of(given: argparse.Namespace) -> list[Row]:
    """The rows of this seed and these verbs so far."""
    file = given.out / "rows.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["seed"] == given.seed and row["verb"] in given.verbs]


def main() -> None:
    """Go on with the verb that has the fewest kills, until there are enough; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = list(dict.fromkeys(job.verb for job in JOBS))
    parser.add_argument("--kills", type=int, default=200, help="in all, shared among the verbs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", default=verbs, choices=verbs)
    parser.add_argument("--devices", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-out/faults"))
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job of a shell may ignore
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = [sys.executable, "-m", "benchmarks.faulted"]
        make_data(given.out / "data", lambda words: run_once([*start, *words], environment()))
    while True:
        rows = rows_of(given)
        kills = {
            verb: sum(row["verb"] == verb and row.get("killed", False) for row in rows)
            for verb in given.verbs
        }  # fmt: skip
        verb = min(kills, key=lambda one: kills[one])
        if kills[verb] >= given.kills / len(given.verbs):
            break
        runs = sum(row["kind"] == "run" for row in rows if row["verb"] == verb)
        its = [job for job in JOBS if job.verb == verb]
        made = one_run(its[runs % len(its)], given, runs)
        with (given.out / "rows.jsonl").open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in made))
    print(table(rows_of(given)))


if __name__ == "__main__":
    main()
