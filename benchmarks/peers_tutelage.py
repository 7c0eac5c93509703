"""tutelage by its command line: the labels alone, and labels and pool by what --method auto takes.

Both get the time as `--budget`, which is for the whole run, its evaluation and report included,
less what a start of Python takes; a tenth of that it keeps back itself. All labels are trained on
(`--val-fraction 0`), as by every arm.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers_job import BATCH, Job, classes, images, main_of, write_answers
from benchmarks.peers_network import PUBLISHED

START = 8  # seconds that Python and its imports take before the clock of --budget


def command(job: Job, verb: str) -> list[str]:
    """What a user would type."""
    length = (
        ["--steps", str(job.steps)] if job.steps
        else ["--budget", f"{max(5, round(job.seconds - START))}s"]
    )  # fmt: skip
    network = (
        ["--model", PUBLISHED, "--init", job.weights] if job.weights
        else ["--model", "test_resnet", "--precision", "bf16"]
    )  # fmt: skip
    return [
        sys.executable, "-m", "tutelage", verb, "--data", str(job.part("labeled")),
        "--test", str(job.part("test")), "--val-fraction", "0", *network,
        "--img-size", str(job.side), "--batch", str(BATCH), "--device", "cpu",
        "--seed", str(job.seed), "--out", str(job.file("run")), *length,
        *([] if job.flip else ["--noise.no-flip"]),
        *([] if verb == "train" else ["--unlabeled", str(job.part("unlabeled"))]),
    ]  # fmt: skip


def newest_model(run: Path) -> Path:
    """The run's model or, of a run that was ended, the last round that was finished."""
    if (run / "model" / "config.json").exists():
        return run
    rounds = sorted(config.parent for config in (run / "rounds").glob("*/config.json"))
    if not rounds:
        raise SystemExit(f"{run} has no finished training")
    return rounds[-1]


def answers(job: Job) -> list[int]:
    """Answers of `tutelage predict`."""
    table = job.file("answers.csv")
    subprocess.run(
        [sys.executable, "-m", "tutelage", "predict", str(newest_model(job.file("run"))),
         str(job.part("test")), "--out", str(table), "--device", "cpu"],
        check=True,
    )  # fmt: skip
    number = {name: k for k, name in enumerate(classes(job))}
    with table.open() as lines:
        found = {
            os.path.abspath(row["path"]): number[row["label"]] for row in csv.DictReader(lines)
        }
    return [found[os.path.abspath(path)] for path in images(job.part("test"))]


def train(job: Job, verb: str) -> None:
    """Become the command, so that the time is its own."""
    os.execv(sys.executable, command(job, verb))


def train_labels(job: Job) -> None:
    """The labels alone."""
    train(job, "train")


def predict_labels(job: Job) -> None:
    """Answers of the network of labels alone."""
    write_answers(job, "labels", answers(job))


if __name__ == "__main__":
    main_of(train_labels, predict_labels)
