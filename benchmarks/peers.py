"""Accuracy for the same compute: tutelage beside its peers, on the same images, network and cores.

python -m benchmarks.peers CIFAR [--sets cifar-400 cifar-4000 mnist-100] [--minutes 5 10 20]
    [--seeds 3] [--arms tutelage timm lightly semilearn sklearn] [--out bench-out/peers]
    [--envs FOLDER] [--share-torch] [--cores 0,1] [--published SIDE] [--table]

CIFAR is the folder that has labelled_400/, labelled_4000.csv, unlabelled/ and test/. Every arm has
the same labeled images and pool, the same small network (peers_network.py), new weights, batches of
64 labels, bfloat16, the same cores with as many threads, and the same wall time from the start of
its process; peers_time.py says how the steps come from that. The final network is asked for the
test images once, after the time; no arm chose anything by them. Peers are installed by pip in
environments of their own. What differs between arms is what is compared: views, loss, optimizer
settings, loader, and how fast each is. How each peer is run, and with which settings, is the
docstring of its file: peers_timm, peers_lightly, peers_semilearn, peers_sklearn, peers_tutelage.

With --published the arms of tutelage, timm and scikit-learn begin with the weights of an
EfficientNet-Lite0 that learned on ImageNet (peers_weights.py), in float32, and see images at SIDE
pixels; then give another --out. The others have no part in it.

tutelage has two rows, and both are shown: labels alone, and what `selftrain --method auto` takes,
whose time pays for a baseline too.
A row is kept in rows.jsonl as soon as it is there, so that the same command goes on; a failed arm
is named at the end and tried again by the next one.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.gains import bits
from benchmarks.journal import Row, complete, machine
from benchmarks.peers_data import NAMES, flips, prepared
from benchmarks.peers_envs import python_of
from benchmarks.peers_job import Job, answers_file, truth
from benchmarks.peers_table import tables
from benchmarks.peers_time import Cost, Failed, Place, calibrated, done, fresh, keep
from benchmarks.peers_weights import published

PREDICT_SECONDS = 900
SIDE = 32  # pixels, of all arms that begin with new weights
ATTEMPTS, FEWER = 3, 0.9  # of an arm that was planned too long, by us: with fewer steps each time
TAKING = ("tutelage", "timm", "sklearn")  # arms that can begin with published weights
REFERENCES = ("tutelage, labels", "tutelage, auto")


@dataclass(frozen=True)
class Arm:
    """A row's name, the module that trains it, and which of its answers are judged."""

    name: str
    module: str
    answers: str
    peer: str | None = None  # its environment; None: the running one
    budget: bool = False  # it plans its steps itself


ARMS = {
    "tutelage": (
        Arm("tutelage, labels", "peers_tutelage", "labels", budget=True),
        Arm("tutelage, auto", "peers_selftrain", "auto", budget=True),
    ),
    "timm": (Arm("timm, labels", "peers_timm", "timm", "timm"),),
    "lightly": (Arm("lightly-train, labels", "peers_lightly", "lightly", "lightly"),),
    "semilearn": (Arm("semilearn, FixMatch", "peers_semilearn", "semilearn", "semilearn"),),
    "sklearn": tuple(
        Arm(f"scikit-learn, {estimator} on {space}", "peers_sklearn", f"{key}-{space}")
        for space in ("features", "pixels")
        for key, estimator in (
            ("spreading", "LabelSpreading"),
            ("selftraining", "SelfTraining"),
            ("logistic", "LogisticRegression"),
        )
    ),
}
BY_NAME = {arm.name: arm for arms in ARMS.values() for arm in arms}


def wanted(given: argparse.Namespace) -> list[Row]:
    """The keys of all rows, the shortest time first."""
    return [
        {"data": data, "minutes": minutes, "seed": seed, "arm": arm.name}
        for minutes in sorted(given.minutes)
        for seed in range(given.seeds)
        for data in given.sets
        for name in given.arms
        for arm in ARMS[name]
        if not (given.published and arm.answers.endswith("-pixels"))
    ]


def trainings(keys: list[Row]) -> set[tuple[str, float, int, str]]:
    """What is trained for the rows: estimators of scikit-learn share one."""
    return {(k["data"], k["minutes"], k["seed"], BY_NAME[k["arm"]].module) for k in keys}


def python(arm: Arm, given: argparse.Namespace) -> Path:
    """What runs the arm."""
    if arm.peer is None:
        return Path(sys.executable)
    return python_of(arm.peer, given.envs, share=given.share_torch)


def job_of(row: Row, arm: Arm, out: Path, given: argparse.Namespace) -> Job:
    """What the arm is asked, without steps."""
    return Job(
        data=str(prepared(row["data"], given.data, given.out / "data").absolute()),
        out=str(out.absolute()),
        steps=0,
        seconds=60 * row["minutes"],
        seed=row["seed"],
        flip=flips(row["data"]),
        threads=len(given.cores),
        side=given.published or SIDE,
        weights=str(published(given.out).absolute()) if given.published else "",
    )


def cost(row: Row, arm: Arm, given: argparse.Namespace) -> Cost:
    """Start and step of the arm on the data, measured once."""
    key = {"data": row["data"], "module": arm.module, "cores": len(given.cores)}
    place, timed_out = Place(given.cores), 60 * given.calibrate

    def timed(steps: int) -> float:
        folder = fresh(given.out / "calibration" / "work" / row["data"] / arm.module)
        job = job_of(row, arm, folder, given)
        said = place.run(
            "train", arm.module, Job(**vars(job) | {"steps": steps}), python=python(arm, given),
            limit=timed_out,
        )  # fmt: skip
        if said["ended"]:
            raise Failed(f"{arm.module}: {steps} steps took more than {timed_out:.0f} s")
        print(f"  {arm.module} on {row['data']}: {steps} steps in {said['seconds']} s", flush=True)
        return float(said["seconds"])

    rows = complete(given.out / "calibration", [key], lambda _: calibrated(timed, given.calibrate))
    found = next(r for r in rows if key.items() <= r.items())
    return Cost(found["start"], found["step"])


def trained(row: Row, arm: Arm, folder: Path, given: argparse.Namespace) -> Row:
    """Train unless it was done, and answer for the test images; what that took."""
    said = done(folder)
    if said is not None:
        return said
    free = arm.budget or (arm.module == "peers_sklearn" and given.published)  # it needs no steps
    steps = 0 if free else cost(row, arm, given).steps_within(60 * row["minutes"])
    place, own = Place(given.cores), python(arm, given)
    for _ in range(1 if free else ATTEMPTS):
        job = Job(**vars(job_of(row, arm, fresh(folder), given)) | {"steps": steps})
        said = place.run("train", arm.module, job, python=own, limit=job.seconds)
        said |= {"steps": steps or planned_steps(folder)}
        if not said["ended"]:
            break
        steps = round(FEWER * steps)
    try:
        asked = place.run("predict", arm.module, job, python=own, limit=PREDICT_SECONDS)
        if asked["ended"]:
            raise Failed(f"{arm.module}: no answers after {PREDICT_SECONDS} s")
    except Failed:
        if not said["ended"]:
            raise  # else nothing was saved by the limit
    return keep(folder, said)


def planned_steps(folder: Path) -> int:
    """Steps that a run of tutelage planned; 0: it was ended before."""
    file = folder / "run" / "run.json"
    stages = json.loads(file.read_text())["stages"] if file.exists() else {}
    return int(stages.get("plan", {}).get("steps") or 0)


def run(row: Row, given: argparse.Namespace) -> Row:
    """One arm; what its row says."""
    arm = BY_NAME[row["arm"]]
    place = f"{row['minutes']:g}m/seed-{row['seed']}/{arm.module}"
    folder = given.out / "work" / row["data"] / place
    said = trained(row, arm, folder, given)
    known = np.array(truth(job_of(row, arm, folder, given), "test"))
    answers = answers_file(folder, arm.answers)
    if not answers.exists() and not said["ended"]:
        raise Failed(f"{arm.name}: {answers} is missing")
    right = np.zeros(len(known), dtype=bool)  # where nothing was saved by the limit
    if answers.exists():
        right = np.array(json.loads(answers.read_text())) == known
    share = float(right.mean())
    print(f"{row['data']} {place} {arm.answers}: {share:.1%}, {said['seconds']} s", flush=True)
    return {"accuracy": share, **bits(right), **said, "nothing": not answers.exists()}


def main() -> None:
    """Run what is missing, then print the tables."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that arms end too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("bench-out/peers"))
    parser.add_argument("--envs", type=Path, default=Path("bench-out/peers-envs"))
    parser.add_argument("--share-torch", action="store_true", help="this environment's torch, timm")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))))
    parser.add_argument("--published", type=int, help="pixels; begin with published weights")
    parser.add_argument("--calibrate", type=float, default=60, help="seconds of the timed runs")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    if given.published:
        given.arms = [name for name in given.arms if name in TAKING]
    given.cores = tuple(int(core) for core in given.cores.split(","))
    rows, failures = complete(given.out, [], lambda row: row), []
    keys = [] if given.table else wanted(given)
    missing = [key for key in keys if not any(key.items() <= row.items() for row in rows)]
    hours = sum(minutes for _, minutes, _, _ in trainings(missing)) / 60
    print(f"{len(trainings(missing))} trainings, {hours:.1f} hours at most", flush=True)
    for row in keys:
        try:
            rows = complete(given.out, [row], lambda row: run(row, given))
        except Failed as error:
            failures.append(f"{row}: {error}")
            print(failures[-1], flush=True)
    print(f"{tables(rows, REFERENCES)}\n\n{machine()}")
    if failures:
        raise SystemExit("\n".join(["", f"{len(failures)} rows are missing:", *failures]))


if __name__ == "__main__":
    main()
