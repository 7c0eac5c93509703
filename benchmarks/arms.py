"""One thing changed at a time, over seeds: accuracy and training time of each arm.

python -m benchmarks.arms CIFAR GROUP [--seeds 3] [--steps N] [--out bench-out/arms] [--threads 1]

CIFAR is a folder with labeled/, unlabeled/ and test/. Groups:
progressive32  constant size 32 against 16 to 32 in four stages, with growing and constant noise
progressive64  the same with the images shown at 64 pixels, 32 to 64
noise          what each noise is worth to a Noisy Student, all of one teacher a seed
published      fine-tuning published weights (peers_weights.py) on the labels at 96 pixels
A row is kept in rows.jsonl as soon as it is there, so that a stopped benchmark goes on.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.journal import complete, machine
from benchmarks.peers_network import PUBLISHED
from benchmarks.peers_weights import published
from tutelage.settings import Noise, Optim, Progressive
from tutelage.verbs import selftrain, train

NETWORK = {"model": "test_resnet", "precision": "bf16", "device": "cpu", "val_fraction": 0.0}


def growing(start_size: int, **changes: Any) -> dict[str, Any]:
    """Settings of four stages."""
    return {"progressive": Progressive(stages=4, start_size=start_size, **changes)}


def sizes(side: int) -> dict[str, dict[str, Any]]:
    """The arms at one last size; all see the same images in the same number of steps."""
    half = side // 2
    return {
        f"constant {side} px": {},
        f"{half} to {side} px, noise grows": growing(half),
        f"{half} to {side} px, constant noise": growing(half, start_noise=1.0, start_mixing=1.0),
    }


GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "progressive32": sizes(32),
    "progressive64": sizes(64),
    "noise": {
        "all noise": {},
        "no RandAugment, no Cutout": {"noise": Noise(magnitude=0, cutout=0)},
        "no dropout, no stochastic depth": {"noise": Noise(dropout=0, drop_path=0)},
        "none of these": {"noise": Noise(magnitude=0, cutout=0, dropout=0, drop_path=0)},
        "all noise, and a noised teacher": {"teacher_noise": True},
    },
    "published": {
        "defaults": {},
        "all that training changed": {"wise": 1.0},
        "the fitted classifier alone": {"transfer": "probe", "optim": Optim(lr=0.0)},
        "batch norm moves": {"batch_norm": "moving"},
        "SGD at 0.003": {"optim": Optim(name="sgd")},
        "weak views": {"views": "weak"},
    },
}
STEPS = {"progressive32": 1500, "progressive64": 1500, "noise": 700, "published": 150}


def run(group: str, arm: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One run; what its row says."""
    folder = given.out / group
    tag = "".join(c if c.isalnum() else "-" for c in arm)
    asked: dict[str, Any] = NETWORK | {
        "data": given.data / "labeled", "test": given.data / "test", "seed": seed,
        "steps": given.steps or STEPS[group], "out": folder / f"{tag}-{seed}",
    }  # fmt: skip
    asked |= GROUPS[group][arm]
    if group == "published":
        given_weights = {"model": PUBLISHED, "init": str(published(given.out)), "img_size": 96}
        outcome = train(**asked | given_weights | {"precision": "fp32"})
        training = "00-supervised"
    elif group == "noise":
        teacher = folder / f"teacher-{seed}"
        first = asked | {"noise": Noise(), "out": teacher, "steps": 1500, "stem": "keep"}
        first.pop("teacher_noise", None)
        train(**first)
        asked |= {"teacher": teacher, "rounds": 1, "method": "noisy-student", "stem": "keep"}
        asked["baseline_length"] = "steps"  # it is no part of the table
        outcome = selftrain(**asked, unlabeled=given.data / "unlabeled")
        training = "01-student"
    else:
        outcome = train(**asked, img_size=int(group.removeprefix("progressive")))
        training = "00-supervised"
    stages = outcome.content["stages"]
    last = stages["evaluate"]["rounds"][-1]["test"]
    return {
        "accuracy": last["right"] / last["total"],
        "seconds": stages[training]["seconds"],
        "steps": stages["plan"]["steps"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation, difference to the first arm over the same seeds."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    of = {arm: {r["seed"]: r for r in rows if r["arm"] == arm} for arm in arms}
    lines = ["| arm | accuracy, mean ± sd | seeds | against the first | seconds |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for arm in arms:
        values = {seed: 100 * row["accuracy"] for seed, row in of[arm].items()}
        both = [values[s] - 100 * of[arms[0]][s]["accuracy"] for s in values if s in of[arms[0]]]
        spread = f" ± {statistics.stdev(values.values()):.2f}" if len(values) > 1 else ""
        gain = f" ± {statistics.stdev(both):.2f}" if len(both) > 1 else ""
        seconds = statistics.mean(row["seconds"] for row in of[arm].values())
        lines.append(
            f"| {arm} | {statistics.mean(values.values()):.2f}{spread} % | "
            f"{', '.join(f'{v:.1f}' for v in values.values())} | "
            f"{statistics.mean(both):+.2f}{gain} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("bench-out/arms"))
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    wanted = [
        {"group": given.group, "arm": arm, "seed": seed}
        for seed in range(given.seeds)
        for arm in GROUPS[given.group]
    ]
    rows = complete(
        given.out, wanted, lambda row: run(row["group"], row["arm"], row["seed"], given),
        threads=given.threads,
    )  # fmt: skip
    print(table([row for row in rows if row["group"] == given.group]))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
