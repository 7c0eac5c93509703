"""The training loop: time of a step through `fit` over that of a bare hand-written loop.

Same images, network, initial weights, optimizer and order of images; mean time from the start of
the sixth step to the start of the last, so that logging counts. No augmentation and no average on
either side: those are work, not overhead.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.paired import Case
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
    images = labeled.pixels.images  # type: ignore[attr-defined]
    targets = labeled.targets(torch.arange(len(images)))
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


def cases(folder: Path) -> Iterator[Case]:
    """A usual batch, and one so small that what a step costs besides its sums shows."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (1000, 32, 32, 3), dtype=torch.uint8)
    labeled = LabeledSet(InMemory(images), torch.randint(0, 10, (1000,)), 10)
    for batch, steps in ((64, 20), (4, 150)):
        yield Case(
            what=f"a step of {NET.name} at 32 px, batch {batch}", peer="a bare loop", unit="ms",
            ours=lambda s=steps, b=batch: 1e3 * ours(labeled, s, b),  # type: ignore[misc]
            theirs=lambda s=steps, b=batch: 1e3 * bare(labeled, s, b),  # type: ignore[misc]
            goal=1.03,
        )  # fmt: skip
