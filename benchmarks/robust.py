"""Teacher, Noisy Student and USI-distilled student side by side: clean, under trouble, calibrated.

python -m benchmarks.robust CIFAR [--seeds 3] [--images 500] [--few 200] [--threads 1] [--table]
    [--out bench-out/robust]

CIFAR is the folder that has labelled_4000.csv, unlabelled/ and test/. One teacher a seed, trained
on 3,600 labels; both students learn from its answers, the one under noise from its labels of the
pool, the other from its answers as they train, in the same number of steps and images. 400 labels
validate: they fit the temperature. Corruptions are on --images test images, sequences and attacks,
which ask hundreds of times an image, on --few. Runs and cases that are there are not made again,
and a row is kept in rows.jsonl as soon as it is there, so a stopped benchmark goes on.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.journal import Row, complete, machine
from tutelage.judging_verbs import evaluate
from tutelage.verbs import distill, selftrain, train

MODEL = "test_resnet"
TEACHER_STEPS, STUDENT_STEPS = 2000, 700


def trained(kind: str, seed: int, given: argparse.Namespace) -> Path:
    """The run of one network, trained where it is not there yet."""
    folder: Path = given.out / f"seed-{seed}"
    shared: dict[str, Any] = {
        "data": str(given.data / "labelled_4000.csv"), "test": str(given.data / "test"),
        "val_fraction": 0.1, "precision": "bf16", "seed": seed, "out": folder / kind,
    }  # fmt: skip
    pool = {"unlabeled": str(given.data / "unlabelled"), "steps": STUDENT_STEPS}
    teacher = str(folder / "teacher")
    if kind == "teacher":
        train(model=MODEL, steps=TEACHER_STEPS, **shared)
    elif kind == "noisy-student":
        selftrain(
            model=MODEL, teacher=teacher, method=("noisy-student",), rounds=1,
            baseline_length="steps", **pool, **shared,
        )  # fmt: skip
    else:
        distill(student=MODEL, teacher=teacher, method="usi", baseline=False, **pool, **shared)
    return folder / kind


def run(row: Row, given: argparse.Namespace) -> Row:
    """Train where needed and judge one network."""
    path = trained(row["network"], row["seed"], given)
    teacher = None if row["network"] == "teacher" else given.out / f"seed-{row['seed']}" / "teacher"
    numbers = {}
    for suites, images in (("c", given.images), ("p,fgsm,pgd", given.few)):
        found = evaluate(
            path, data=str(given.data / "test"), robust=suites, robust_images=images,
            reference=teacher,
        )  # fmt: skip
        for one in found.robust:
            numbers |= {f"{one.suite} {name}": float(value) for name, value in one.numbers.items()}
    judgement = found.judgement
    return {
        "accuracy": found.accuracy.value, "balanced accuracy": judgement.balanced.value,
        "log loss": judgement.nll.value, "Brier score": judgement.brier.value,
        "calibration error": judgement.ece, "temperature": judgement.temperature,
        "log loss without temperature": judgement.raw_nll,
        "calibration error without temperature": judgement.raw_ece, **numbers,
    }  # fmt: skip


def table(rows: list[Row]) -> None:
    """Mean and standard deviation over the seeds of each number."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    names = list(dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float)))
    print(f"| number, mean and sd of {len({row['seed'] for row in rows})} seeds |", end="")
    print(" | ".join(networks), "|")
    print("| --- |" + " --- |" * len(networks))
    for name in names:
        cells = []
        for network in networks:
            values = [row[name] for row in rows if row["network"] == network and name in row]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}" if values else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Parse the flags, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("bench-out/robust"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    given = parser.parse_args()
    networks = ("teacher", "noisy-student", "usi")
    wanted = [] if given.table else [
        {"network": network, "seed": seed, "images": given.images, "few": given.few}
        for seed in range(given.seeds) for network in networks
    ]  # fmt: skip
    rows = complete(given.out, wanted, lambda row: run(row, given), threads=given.threads)
    table(rows)
    print(machine())


if __name__ == "__main__":
    main()
