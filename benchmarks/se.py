"""Squeeze-and-excitation against none in the same training time: three families of networks.

python -m benchmarks.se CIFAR [--seeds 3] [--control 0] [--share 1] [--threads 1] [--table]
    [--out bench-out/se]

CIFAR is the folder that has labelled_4000.csv, its images, and test/. First the processor time of a
training step with gates and without is taken in turns, each family by itself. Then each network is
trained on the labels alone; the one with gates gets the steps that the other's time leaves it, and
all else is the same: seed, first weights but those of the gates, order of images, schedule over its
own steps. With --control the network without gates is also trained for as few steps, which tells
what the gates are worth from what their time costs.
The reduction is 16 or, where the narrowest map would have fewer than 4 hidden units, the largest
that leaves it 4. Nothing is chosen on the test images.
A row is kept in rows.jsonl as soon as it is there, so that a stopped benchmark goes on.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.gains import SEED, bits, over_images, over_seeds, right_of
from benchmarks.journal import Row, complete, machine
from tutelage.begin import begin
from tutelage.catalog import make
from tutelage.core import Clock
from tutelage.data.find import open_source
from tutelage.data.loader import Batches
from tutelage.data.parts import labeled_images
from tutelage.data.pixels import open_pixels
from tutelage.data.sets import LabeledSet
from tutelage.evaluation.paired import compare
from tutelage.jobs import TrainSettings
from tutelage.methods.method import State
from tutelage.networks.build import has_batch_norm
from tutelage.networks.squeeze_excite import sites_of
from tutelage.pipelines.prepare import canvas_for
from tutelage.recipes.make import recipe_of
from tutelage.values import digest
from tutelage.verbs import train

MOST, FEWEST_UNITS = 16, 4  # the paper's reduction, and hidden units of the narrowest gate
TURNS, TURN = 10, 8  # of steps; the first of a turn is not counted
ARMS = ("no SE", "SE")
CONTROL = "no SE, steps of SE"


@dataclass(frozen=True)
class Family:
    """A network without gates, and the steps that it is trained for."""

    network: str
    steps: int

    @property
    def reduction(self) -> int:
        """The largest that leaves the narrowest gate its hidden units, at most the paper's."""
        narrowest = min(site.channels for site in sites_of(self.network, "auto"))
        return min(MOST, narrowest // FEWEST_UNITS)


# Steps: about 105 s of one quiet core each, by times taken before anything was trained.
FAMILIES = {
    "residual": Family("test_resnet", 750),
    "DenseNet": Family("densenet-bc-22-12", 560),
    "inverted residual": Family(
        "efficientnet+stem24+ir_r2_k3_s1_e4_c24+ir_r3_k3_s2_e4_c32+ir_r3_k3_s2_e4_c64+head256",
        600,
    ),
}


def settings(family: Family, arm: str, given: argparse.Namespace) -> dict[str, Any]:
    """What both arms share, and the gates of one."""
    return {
        "model": family.network, "data": str(given.data / "labelled_4000.csv"),
        "test": str(given.data / "test"), "val_fraction": 0.0, "img_size": 32,
        "precision": "bf16", "device": "cpu", "se": family.reduction if arm == "SE" else None,
    }  # fmt: skip


def learner(
    family: Family, arm: str, labeled: LabeledSet, given: argparse.Namespace
) -> tuple[State, Batches]:
    """A network before its first step, and its batches."""
    asked = settings(family, arm, given) | {"steps": 10**6, "out": given.out}
    job = TrainSettings(**asked)
    optim = job.optim.resolved(batch_norm=has_batch_norm(job.model), pretrained=False)
    method = make("supervised", (), {"smoothing": job.smoothing})
    recipe = recipe_of(
        replace(job, optim=optim), model=job.model, method=method,
        num_classes=labeled.num_classes,
    )  # fmt: skip
    batches = Batches(
        labeled, None, stages=recipe.stages, views=(method.labeled_view, ()), batch=recipe.batch,
        ratio=0, noise=recipe.noise, seed=0,
    )  # fmt: skip
    return begin(recipe, batches, torch.device("cpu")), batches


def step_times(family: Family, given: argparse.Namespace) -> Row:
    """Processor time of a step with its views, median of both arms in turns; and parameters."""
    source = open_source(str(given.data / "labelled_4000.csv"))
    images, _ = labeled_images(source, "labeled")
    pixels = open_pixels(images, canvas_for(32), torch.device("cpu"), in_memory=True)
    labeled = LabeledSet(pixels, images.label_tensor(), len(images.classes))
    method = make("supervised", (), {})
    both = {arm: learner(family, arm, labeled, given) for arm in ARMS}
    times: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for turn in range(TURNS + 1):  # the first one chooses kernels
        for arm in ARMS if turn % 2 else ARMS[::-1]:
            state, batches = both[arm]
            taken = []
            for step in range(turn * TURN, (turn + 1) * TURN):
                start = time.process_time()
                method.step(state, batches.at(step), Clock(step, 10**6))
                taken.append(time.process_time() - start)
            times[arm].append(taken[1:])
    counted = {arm: [one for turn in times[arm][1:] for one in turn] for arm in ARMS}
    plain, gated = (statistics.median(counted[arm]) for arm in ARMS)
    pairs = zip(times[ARMS[0]][1:], times[ARMS[1]][1:], strict=True)
    ratios = [statistics.median(b) / statistics.median(a) for a, b in pairs]
    weights = [sum(p.numel() for p in both[arm][0].student.module.parameters()) for arm in ARMS]
    return {
        "network": family.network, "reduction": family.reduction,
        "gates": len(sites_of(family.network, "auto")), "parameters": weights,
        "step_seconds": [plain, gated], "ratio": gated / plain,
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
    }  # fmt: skip


def run(row: Row, ratio: float, given: argparse.Namespace) -> Row:
    """One training; which test images it is right on, as bits in hexadecimal digits."""
    family = FAMILIES[row["family"]]
    steps = round(family.steps * row["share"] / (ratio if row["arm"] != "no SE" else 1.0))
    name = f"{row['family']}-{row['arm']}-{row['seed']}".replace(", ", " ").replace(" ", "-")
    asked = settings(family, row["arm"], given)
    start = time.process_time()
    outcome = train(**asked, steps=steps, seed=row["seed"], out=given.out / name)
    spent = time.process_time() - start
    table = pq.read_table(
        outcome.run / "rounds" / "00-supervised" / "predictions-test.parquet",
        columns=["path", "label", "predicted"],
    ).to_pydict()
    right = np.array(table["label"]) == np.array(table["predicted"])
    return {
        "steps": steps, "accuracy": float(right.mean()), "processor_seconds": round(spent, 1),
        "seconds": outcome.content["stages"]["00-supervised"]["seconds"],
        "images": digest(table["path"]), **bits(right),
    }  # fmt: skip


def gains_table(found: dict[str, NDArray[np.float64]]) -> list[str]:
    """Mean gain of each family with both intervals; the gains are (seeds, images)."""
    lines = [
        "| family | gain, points | test images drawn again | t over seeds | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    pooled = np.stack(list(found.values())).mean(0)
    for name, gains in (found | {"mean of them": pooled}).items():
        spans = over_images(gains.mean(0)), over_seeds(gains.mean(1).tolist())
        cells = " | ".join(
            f"{100 * low:+.1f} to {100 * high:+.1f}" if high < 1 else "one seed"
            for low, high in spans
        )
        pays, costs = all(low > 0 for low, _ in spans), all(high < 0 for _, high in spans)
        said = "pays" if pays else "costs" if costs else "no gain or loss shown"
        lines.append(f"| {name} | {100 * gains.mean():+.2f} | {cells} | {said} |")
    return lines


def seeds_table(
    rows: list[Row], arms: tuple[str, str]
) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Each seed's paired comparison of two arms, and of each family the gains (seeds, images)."""
    lines = [
        f"| family | seed | steps | {arms[0]} | {arms[1]} | gain, 95 % interval | processor time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    trained = {(r["family"], r["arm"], r["seed"]): r for r in rows if "right" in r}
    seeds = sorted({seed for _, arm, seed in trained if arm == arms[0]})
    found = {}
    for name in FAMILIES:
        gains = []
        for seed in seeds:
            if not all((name, arm, seed) in trained for arm in arms):
                continue
            plain, gated = (trained[name, arm, seed] for arm in arms)
            assert plain["images"] == gated["images"], "both saw the same test images"
            before, after = right_of(plain), right_of(gated)
            one = compare(torch.from_numpy(before), torch.from_numpy(after), seed=SEED)
            gains.append(after.astype(float) - before)
            lines.append(
                f"| {name} | {seed} | {plain['steps']:,}, {gated['steps']:,} | "
                f"{100 * plain['accuracy']:.1f} % | {100 * gated['accuracy']:.1f} % | "
                f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f}), "
                f"p = {one.p_value:.2g} | "
                f"{plain['processor_seconds']:.0f}, {gated['processor_seconds']:.0f} s |"
            )
        if gains and len(gains) == len(seeds):
            found[name] = np.stack(gains)
    return lines, found


def times_table(rows: list[Row]) -> list[str]:
    """What gates cost a step."""
    lines = [
        "| family | gates, reduction | parameters | step, processor time | ratio (quartiles) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in (row for row in rows if "ratio" in row):
        (plain, gated), (few, more) = row["step_seconds"], row["parameters"]
        low, high = row["ratio_quartiles"]
        lines.append(
            f"| {row['family']}, `{row['network']}` | {row['gates']}, {row['reduction']} | "
            f"{few:,}, {more:,} | {1e3 * plain:.0f}, {1e3 * gated:.0f} ms | "
            f"{row['ratio']:.3f} ({low:.3f} to {high:.3f}) |"
        )
    return lines


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--control", type=int, default=0, help="seeds of no SE in the steps of SE")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps, to try it out")
    parser.add_argument("--out", type=Path, default=Path("bench-out/se"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--times", action="store_true", help="take the times, train nothing")
    given = parser.parse_args()
    timed = [] if given.table else [{"measure": "step", "family": name} for name in FAMILIES]
    rows = complete(
        given.out, timed, lambda row: step_times(FAMILIES[row["family"]], given),
        threads=given.threads,
    )  # fmt: skip
    ratios = {row["family"]: row["ratio"] for row in rows if "ratio" in row}
    wanted = [] if given.table or given.times else [
        {"family": name, "arm": arm, "seed": seed, "share": given.share}
        for arms, seeds in ((ARMS, given.seeds), ((CONTROL,), given.control))
        for seed in range(seeds) for name in FAMILIES for arm in arms
    ]  # fmt: skip
    rows = complete(given.out, wanted, lambda row: run(row, ratios[row["family"]], given))
    rows = [row for row in rows if row.get("share", given.share) == given.share]
    parts = [times_table(rows)]
    for arms in (ARMS, (CONTROL, "SE")):
        lines, found = seeds_table(rows, arms)
        parts += [lines, gains_table(found)] if found else []
    print("\n\n".join("\n".join(part) for part in parts))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
