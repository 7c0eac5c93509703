"""A search on CIFAR: the network it finds against EfficientNetV2-B0 scaled down to its costs.

python -m benchmarks.search CIFAR [--seeds 3] [--trials 27] [--steps 1350] [--final 2500]
    [--processes 2] [--table] [--out bench-out/search]

CIFAR is the folder that has labelled_4000.csv, its images, and test/. In this order:
searches   by evolution and at random, of as many networks each, by processes that share a search,
           each on one thread; part of the labels is kept for validation, test images are not shown
matched    B0 with width and depth such that its weights and the measured time of its step are
           nearest to the found network's
trained    the found network and that one, on all labels, each seed, then asked once about the test
           images
A row is kept in rows.jsonl as soon as it is there, so that a stopped benchmark goes on.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.gains import bits, over_images, over_seeds, right_of
from benchmarks.journal import Row, complete, machine
from tutelage.evaluation.paired import compare
from tutelage.networks.budget import Scaled
from tutelage.pipelines.prepare import Prepared, prepare
from tutelage.pipelines.trial import recipe_of_trial
from tutelage.pipelines.trial_cost import Yardstick
from tutelage.progress import Screen
from tutelage.run import open_run
from tutelage.search_settings import SearchSettings
from tutelage.verbs import train

BASE = "efficientnetv2_b0-w0.25-d0.5"
SCALED = "efficientnetv2_b0"
NEAR = 0.05  # of the weights, among which the nearest step time is looked for
SAMPLERS = ("evolution", "random")
ARMS = ("found", "B0 of the same costs")


def asked(given: argparse.Namespace, sampler: str) -> dict[str, Any]:
    """Settings of a search."""
    return {
        "data": str(given.data / "labelled_4000.csv"), "out": given.out / f"search-{sampler}",
        "base": BASE, "sampler": sampler, "trials": given.trials, "steps": given.steps,
        "val_fraction": 0.4, "img_size": 32, "device": "cpu", "seed": 0,
    }  # fmt: skip


def searched(row: Row, given: argparse.Namespace) -> Row:
    """A search by several processes; what it found and how long it took."""
    settings = asked(given, row["search"])
    flags = [
        part for key, value in settings.items()
        for part in (f"--{key.replace('_', '-')}", str(value))
    ]  # fmt: skip
    command = [sys.executable, "-m", "tutelage.cli", "search", *flags]
    begun = time.monotonic()
    workers = [started(command, core) for core in range(given.processes)]
    wait_for(workers)
    content = json.loads((settings["out"] / "search.json").read_text())
    best = content["trials"][content["best"]]
    first = [one["results"][0]["reward"] for one in content["trials"] if one["results"]]
    return {
        "seconds": round(time.monotonic() - begun), "network": best["network"],
        "best": best["results"][-1], "first_rung": first, "rungs": content["rungs"],
    }  # fmt: skip


def started(command: list[str], core: int) -> "subprocess.Popen[bytes]":
    """A process with one thread, on one core."""
    around = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["taskset", "-c", str(core), *command], env=around)


def wait_for(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Until all have ended well."""
    codes = [worker.wait() for worker in workers]
    assert not any(codes), codes


def images(given: argparse.Namespace) -> tuple[SearchSettings, Prepared]:
    """The searches' images, for taking times."""
    settings = SearchSettings(**asked(given, "evolution") | {"out": given.out / "times"})
    with open_run("search", settings) as run:
        screen = Screen()
        return settings, prepare(settings, run, torch.device("cpu"), screen)


def matched(found: Row, given: argparse.Namespace) -> Row:
    """B0 in the width and depth that come nearest to a network's weights and step time.

    Of those within 5 % of the weights, the nearest of each depth is measured against it.
    """
    settings, prepared = images(given)

    def recipe(name: str) -> Any:
        return recipe_of_trial(settings, prepared, network=name, steps=given.steps)

    wanted = found["best"]["parameters"]
    by_depth: dict[tuple[int, ...], Scaled] = {}
    for width in range(5, 101):
        for depth in range(10, 301, 5):
            one = Scaled(base=SCALED, size=32, width=width / 100, depth=depth / 100, num_classes=10)
            off = abs(math.log(one.parameters / wanted))
            layers = tuple(stage.layers for stage in one.architecture.stages)
            if off < NEAR and (
                layers not in by_depth or off < abs(math.log(by_depth[layers].parameters / wanted))
            ):
                by_depth[layers] = one
    yardstick = Yardstick(recipe(found["network"]), prepared)
    rows = [(one, yardstick.cost_of(recipe(one.name))) for one in by_depth.values()]
    one, cost = min(rows, key=lambda row: abs(math.log(row[1].relative_time)))
    return {
        "network": one.name, "cost": asdict(cost),
        "tried": [[other.name, c.relative_time, c.relative_parameters] for other, c in rows],
    }  # fmt: skip


def trained(row: Row, network: str, given: argparse.Namespace) -> Row:
    """One training on all labels, and which test images it is right on."""
    name = f"{ARMS.index(row['arm'])}-{row['seed']}"
    outcome = train(
        data=str(given.data / "labelled_4000.csv"), test=str(given.data / "test"), model=network,
        val_fraction=0.0, img_size=32, device="cpu", steps=given.final, seed=row["seed"],
        out=given.out / name,
    )  # fmt: skip
    file = outcome.run / "rounds" / "00-supervised" / "predictions-test.parquet"
    table = pq.read_table(file, columns=["label", "predicted"]).to_pydict()
    right = np.array(table["label"]) == np.array(table["predicted"])
    return {
        "network": network, "accuracy": float(right.mean()), **bits(right),
        "seconds": outcome.content["stages"]["00-supervised"]["seconds"],
    }  # fmt: skip


def networks(rows: list[Row]) -> dict[str, str]:
    """The network of each arm."""
    found = next(row for row in rows if row.get("search") == SAMPLERS[0])
    same = next(row for row in rows if row.get("step") == "matched")
    return dict(zip(ARMS, (found["network"], same["network"]), strict=True))


def tables(rows: list[Row]) -> str:
    """Both searches; each arm's accuracy over seeds, and the found network against it."""
    lines = [
        "| search | minutes | networks by rung | best reward | step, weights | first rung's "
        "rewards, mean and best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in (row for row in rows if "search" in row):
        best, first = row["best"], row["first_rung"]
        counts = ", ".join(f"{one['done']} of {one['steps']}" for one in row["rungs"])
        lines.append(
            f"| {row['search']} | {row['seconds'] / 60:.1f} | {counts} steps | "
            f"{best['reward']:.4f} | {best['relative_time']:.2f} of the base, "
            f"{best['parameters']:,} | {statistics.mean(first):.4f}, {max(first):.4f} |"
        )
    lines += [
        "",
        "| network | accuracy on test, mean ± sd | seeds | the found one against it, test images "
        "drawn again | t over seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    done = {(row["arm"], row["seed"]): row for row in rows if "arm" in row}
    seeds = sorted({seed for _, seed in done})
    for arm in ARMS:
        values = [100 * done[arm, seed]["accuracy"] for seed in seeds if (arm, seed) in done]
        if not values:
            continue
        both = [seed for seed in seeds if (arm, seed) in done and (ARMS[0], seed) in done]
        gains = np.array(
            [right_of(done[ARMS[0], s]).astype(float) - right_of(done[arm, s]) for s in both]
        )
        cells = "| | |"
        if arm != ARMS[0] and len(both):
            spans = over_images(gains.mean(0)), over_seeds(gains.mean(1).tolist())
            image, seed = (f"{100 * low:+.1f} to {100 * high:+.1f}" for low, high in spans)
            cells = f"| {100 * gains.mean():+.2f} ({image}) | {seed} |"
        sd = statistics.stdev(values) if len(values) > 1 else math.nan
        lines.append(
            f"| {arm} | {statistics.mean(values):.2f} ± {sd:.2f} % | "
            f"{', '.join(f'{value:.1f}' for value in values)} {cells}"
        )
    for seed in seeds:
        if all((arm, seed) in done for arm in ARMS[:2]):
            found, other = (torch.from_numpy(right_of(done[arm, seed])) for arm in ARMS[:2])
            one = compare(other, found, seed=0)
            lines.append(
                f"seed {seed}: {100 * one.difference:+.1f} ({100 * one.low:+.1f} to "
                f"{100 * one.high:+.1f}), McNemar p = {one.p_value:.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=27)
    parser.add_argument("--steps", type=int, default=1350)
    parser.add_argument("--final", type=int, default=2500)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    parser.add_argument("--part", type=int, help="of the trainings, for one process")
    parser.add_argument("--searches", action="store_true", help="search, train nothing")
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--out", type=Path, default=Path("bench-out/search"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = [] if given.table else [{"search": sampler} for sampler in given.samplers]
    rows = complete(given.out, wanted, lambda row: searched(row, given), threads=1)
    found = next((row for row in rows if row.get("search") == "evolution"), None)
    if found is not None and not given.table:
        rows = complete(given.out, [{"step": "matched"}], lambda row: matched(found, given))
    arms = [{"arm": arm, "seed": seed} for arm in ARMS for seed in range(given.seeds)]
    if given.part is not None:
        of = networks(rows)
        part = arms[given.part :: given.processes]
        complete(given.out, part, lambda row: trained(row, of[row["arm"]], given))
        return
    if not given.table and not given.searches:
        again = [sys.executable, "-m", "benchmarks.search", *sys.argv[1:]]
        wait_for([started([*again, "--part", str(k)], k) for k in range(given.processes)])
        rows = complete(given.out, [], lambda row: row)
    print(tables(rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
