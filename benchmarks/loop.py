"""What the training loop costs: time per step through `fit` over a bare hand-written loop.

python -m benchmarks.loop [--pairs 15] [--steps 100] [--batch 64]

Same images, network, initial weights, optimizer and order of images; pairs in turn, and the ratio
of each pair's mean step time, from the start of the sixth step to the start of the last, so that
logging counts. No augmentation and no average on either side: those are work, not overhead.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.journal import machine
from tutelage.core import Batch, Clock, Dice, Metrics, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.sets import LabeledSet, positions
from tutelage.learner import Learner
from tutelage.loop import fit
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State
from tutelage.networks.build import Net, build
from tutelage.progress import Screen
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.targets import one_hot

SKIPPED = 5  # first steps, which choose kernels
NET = Net(name="test_resnet", num_classes=10, img_size=32, small_stem=True)
OPTIM = Optim(ema=None).resolved(batch_norm=True, pretrained=False)
STARTS: list[float] = []  # when each step began


@dataclass(frozen=True, kw_only=True)
class Timed(Method):
    """Plain cross-entropy that writes down when each step begins."""

    labeled_view: str = "plain"

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update."""
        STARTS.append(time.perf_counter())
        loss = cross_entropy(state.student(batch.labeled.images), batch.labeled.targets)
        state.student.minimize(loss, clock)
        return {"loss": loss.detach()}


def ours(labeled: LabeledSet, steps: int, batch: int) -> float:
    """Mean seconds per step through `fit`."""
    recipe = Recipe(
        net=NET, method=Timed(), optim=OPTIM, noise=Noise(), batch=batch,
        stages=(Stage(steps=steps, size=32, magnitude=0),),
    )  # fmt: skip
    batches = Batches(
        labeled, None, stages=recipe.stages, views=("plain", ()), batch=batch, ratio=0,
        noise=recipe.noise, seed=0,
    )  # fmt: skip
    STARTS.clear()
    with tempfile.TemporaryDirectory() as folder:
        fit(recipe, batches, Path(folder), device=torch.device("cpu"), screen=Screen())
    return mean_step(STARTS)


def bare(labeled: LabeledSet, steps: int, batch: int) -> float:
    """Mean seconds per step of a loop as one would write it by hand."""
    module = build(NET).to(memory_format=torch.channels_last).train()
    optimizer = Learner(module, OPTIM).optimizer
    images, targets = labeled.pixels.images, labeled.targets  # type: ignore[attr-defined]
    starts = []
    for step in range(steps):
        rows = positions(step, batch, len(targets), seed=0, use=Dice.LABELED_ORDER)
        batch_images = images[rows].permute(0, 3, 1, 2).float().div_(255)
        starts.append(time.perf_counter())
        loss = functional.cross_entropy(module(batch_images), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mean_step(starts)


def mean_step(starts: list[float]) -> float:
    """Mean time between the starts of two steps, without the first few."""
    return (starts[-1] - starts[SKIPPED]) / (len(starts) - 1 - SKIPPED)


def main() -> None:
    """Print the ratio's median and spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1000, 32, 32, 3), dtype=torch.uint8)
    labeled = LabeledSet(InMemory(images), one_hot(torch.randint(0, 10, (1000,)), 10))
    ours(labeled, 10, given.batch)
    ratios = []
    for pair in range(given.pairs):
        order = (ours, bare) if pair % 2 else (bare, ours)
        times = {run.__name__: run(labeled, given.steps, given.batch) for run in order}
        ratios.append(times["ours"] / times["bare"])
        print(f"pair {pair}: fit {1e3 * times['ours']:.2f} ms, bare {1e3 * times['bare']:.2f} ms")
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"loop overhead: median ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}, "
        f"{given.pairs} pairs of {given.steps} steps, {NET.name} at 32 px, batch {given.batch}; "
        f"{machine()})"
    )


if __name__ == "__main__":
    main()
