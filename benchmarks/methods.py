"""Every method on the same images, network, batch and steps: accuracy, spread and time.

python -m benchmarks.methods digits50 [--steps 400 | --budget 10m] [--seeds 5]
    [--methods fixmatch uda] [--out bench-out/methods] [--dev] [--threads 1]
    [--published SIDE] [--student-init scratch] [--table]

Data: digits20 and digits50 are scikit-learn's handwritten digits with 2 and 5 labels a class, a new
split for each seed; any other name is a folder with labeled/, unlabeled/ and test/, one split and a
new seed of training. All trainings of a run share its steps: two rounds of Noisy Student get half
of them each. With --published all begin with published weights (peers_weights.py), at SIDE pixels,
in float32, and Noisy Student has one round. A row is kept in rows.jsonl
as soon as it is there, so a stopped benchmark goes on.
--dev judges on pool images that are kept apart from the pool, to choose settings without the test.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.journal import complete, machine
from benchmarks.peers_network import PUBLISHED
from benchmarks.peers_weights import published
from tutelage.catalog import describe, names
from tutelage.data.digits import digits, split_digits, write_digits
from tutelage.settings import Noise
from tutelage.verbs import selftrain, train

ROUNDS = 2  # of Noisy Student
DEV_IMAGES = 400  # of the digits' pool


def methods() -> list[str]:
    """All that need no ready teacher, the baseline first."""
    found = [name for name in names() if describe(name).verb != "distill"]
    return sorted(found, key=lambda name: name != "supervised")


def folders(data: str, out: Path, seed: int, *, dev: bool) -> dict[str, Path]:
    """labeled, unlabeled and test folders; with `dev`, the test is a part of the pool."""
    if not data.startswith("digits"):
        if dev:
            raise SystemExit("--dev is for the digits: make a folder without the test images")
        root = Path(data)
        return {name: root / name for name in ("labeled", "unlabeled", "test")}
    root = out / "data" / f"{data}-{seed}"
    per_class = int(data.removeprefix("digits")) // 10
    write_digits(root, per_class=per_class, seed=seed)
    found = {name: root / name for name in ("labeled", "unlabeled", "test")}
    if dev:
        found |= _dev_digits(root, per_class, seed)
    return found


def _dev_digits(root: Path, per_class: int, seed: int) -> dict[str, Path]:
    """The first pool images as the judge, with their labels, and the rest as the pool."""
    rows = split_digits(digits()[1], per_class=per_class, seed=seed)["unlabeled"]
    labels = digits()[1]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    judge, pool = root / "dev" / "test", root / "dev" / "unlabeled"
    for place, number in enumerate(order):
        name = f"{rows[number]:04d}.png"
        folder = judge / str(labels[rows[number]]) if place < DEV_IMAGES else pool
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            shutil.copy(root / "unlabeled" / name, folder / name)
    return {"test": judge, "unlabeled": pool}


def settings_for(data: str, given: argparse.Namespace) -> dict[str, Any]:
    """What all methods share on this data."""
    if data.startswith("digits"):
        own = {
            "img_size": 12,
            "batch": 32,
            "ratio": 2,
            "noise": Noise(flip=False),
            "precision": "bf16",
        }
    elif given.published:
        weights = str(published(given.out))
        own = {"batch": 64, "ratio": 4, "init": weights, "img_size": given.published}
    else:
        own = {"batch": 64, "ratio": 4, "precision": "bf16"}
    model = PUBLISHED if given.published else given.model
    return own | {"model": model, "val_fraction": 0.0, "device": "cpu"}


def run(method: str, data: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One run; what its row says."""
    parts = folders(data, given.out, seed, dev=given.dev)
    name, _, options = method.partition(":")
    tag = method.replace(":", "-").replace(",", "-")
    asked: dict[str, Any] = settings_for(data, given) | {
        "data": parts["labeled"], "test": parts["test"], "seed": seed,
        "out": given.out / Path(data).name / f"{tag}-{seed}",
        "options": tuple(option for option in options.split(",") if option),
    }  # fmt: skip
    rounds = ROUNDS if name == "noisy-student" and not given.published else 1
    asked |= {"budget": given.budget} if given.budget else {"steps": given.steps // rounds}
    if name == "supervised":
        del asked["ratio"]
        outcome = train(**asked)
    else:
        asked |= {"unlabeled": parts["unlabeled"], "method": name, "rounds": rounds}
        asked |= {"student_init": given.student_init}
        outcome = selftrain(**asked)
    return row(outcome.content)


def row(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the table needs of a run."""
    judged = content["stages"]["evaluate"]["rounds"]
    last, verdict = judged[-1]["test"], content["stages"]["evaluate"]["verdict"]
    return {
        "accuracy": last["right"] / last["total"],
        "verdict": None if verdict is None else verdict["outcome"],
        "gave_up": content["stages"].get("guard", {}).get("reason"),
        "steps": content["stages"]["plan"]["steps"],
        "seconds": sum(stage["seconds"] for stage in content["stages"].values()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds, best first."""
    lines = ["| method | accuracy, mean ± sd | seeds | verdicts | steps | seconds |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    ordered = sorted({r["method"] for r in rows}, key=lambda m: -_mean(rows, m, "accuracy"))
    for method in ordered:
        own = sorted((r for r in rows if r["method"] == method), key=lambda r: r["seed"])
        values = [100 * r["accuracy"] for r in own]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        said = [("gave up" if r["gave_up"] else r["verdict"]) or "" for r in own]
        counts = ", ".join(f"{said.count(w)} {w}" for w in dict.fromkeys(said) if w)
        lines.append(
            f"| {method} | {statistics.mean(values):.2f}{spread} % | "
            f"{', '.join(f'{v:.1f}' for v in values)} | {counts} | {own[0]['steps']} | "
            f"{_mean(rows, method, 'seconds'):.0f} |"
        )
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], method: str, key: str) -> float:
    return statistics.mean(row[key] for row in rows if row["method"] == method)


def timed(row: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """One run, and a line about it."""
    start = time.monotonic()
    found = run(row["method"], row["data"], row["seed"], given)
    spent = time.monotonic() - start
    print(
        f"{row['method']} seed {row['seed']}: {found['accuracy']:.1%} in {spent:.0f} s", flush=True
    )
    return found


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--methods", nargs="*", help="NAME, or NAME:option=value,option=value")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--budget")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--out", type=Path, default=Path("bench-out/methods"))
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--published", type=int, help="pixels")
    parser.add_argument("--student-init", choices=("auto", "baseline", "scratch"), default="auto")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds) if not given.table else ()
    wanted = [
        {"method": method, "data": given.data, "seed": seed}
        for seed in seeds
        for method in given.methods or methods()
    ]
    rows = complete(given.out, wanted, lambda row: timed(row, given), threads=given.threads)
    print(table([r for r in rows if r["data"] == given.data]))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
