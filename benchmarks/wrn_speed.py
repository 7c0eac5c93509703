"""How long a training step takes through `fit` and in a bare loop, and where the time goes.

Both sides are given the same batches, made by the package, and do the same work: forward, losses,
backward, update, and the weights' average. They run in turns; a pair's ratio is that of mean step
times from the sixth step to the last, with the device waited for at both ends. `fit` logs and looks
at the clock as it always does. A third one in the turn is `fit` with batches that a thread makes
ahead, as it does for images that are not in memory: whether that pays on a device is to be seen.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.journal import Row
from tutelage.begin import begin
from tutelage.core import Batch, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.files import write_json
from tutelage.frozen import autocast
from tutelage.loop import fit
from tutelage.meter import Meter
from tutelage.methods.fixmatch import FixMatch
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net, build
from tutelage.optimizers import make_optimizer
from tutelage.progress import Screen
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.speed.runners import wait_for

SKIPPED = 5  # first steps, which choose kernels and compile
PROFILED, TOP = 5, 10  # steps that are looked into; operations that are named
NOISE = Noise(magnitude=5.0, magnitude_std=3.0, cutout=0.5, crop="pad", dropout=0.0, drop_path=0.0)
OPTIM = Optim(name="sgd", lr=0.03, weight_decay=5e-4, schedule="fixmatch", warmup=0.0, ema=0.999)
METHODS = {"supervised": Supervised(smoothing=0.0), "fixmatch": FixMatch()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is timed."""

    net: Net
    device: torch.device
    method: str
    compile: bool
    batch: int
    ratio: int
    steps: int
    pairs: int
    images: int  # of labels, and ten times as many of the pool

    @property
    def recipe(self) -> Recipe:
        """Of the training that is timed."""
        return Recipe(
            net=self.net, method=METHODS[self.method], optim=OPTIM, noise=NOISE,
            batch=self.batch, ratio=self.ratio if self.method == "fixmatch" else 0,
            stages=(Stage(steps=self.steps, size=self.net.img_size, magnitude=5.0, cutout=0.5),),
            precision="bf16", compile=self.compile,
        )  # fmt: skip

    @property
    def seen(self) -> int:
        """Images of a step, as metrics.jsonl counts them."""
        return self.batch * (1 + self.recipe.ratio)


class Watched(Batches):
    """Writes down when the first step that counts begins, and when the last one does."""

    def at(self, step: int) -> Batch:
        """The batch."""
        if step in (SKIPPED, self.total - 1):
            wait_for(self.labeled.labels.device)
            self.marks = [*vars(self).get("marks", []), time.perf_counter()]
        return super().at(step)

    @property
    def step_seconds(self) -> float:
        """Mean time of the steps that count."""
        first, last = self.marks
        return (last - first) / (self.total - 1 - SKIPPED)


def batches_of(case: Case) -> Watched:
    """Batches of random images, which are all on the device."""
    recipe, device, side = case.recipe, case.device, case.net.img_size
    torch.manual_seed(0)
    labels = torch.randint(0, case.net.num_classes, (case.images,))
    pixels = [
        InMemory(torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).to(device))
        for count in (case.images, 10 * case.images)
    ]
    rows = torch.arange(10 * case.images)
    labeled = LabeledSet(pixels[0], labels.to(device), case.net.num_classes)
    return Watched(
        labeled, PoolSet(pixels[1], rows, torch.ones_like(rows)) if recipe.ratio else None,
        stages=recipe.stages, views=(recipe.method.labeled_view, recipe.method.unlabeled_views),
        batch=recipe.batch, ratio=recipe.ratio, noise=recipe.noise, seed=0,
    )  # fmt: skip


def ours(case: Case, *, ahead: bool = False) -> float:
    """Mean seconds a step through `fit`."""
    batches = batches_of(case)
    if ahead:
        batches.threads = ThreadPoolExecutor(1)
    torch.compiler.reset()
    with tempfile.TemporaryDirectory() as folder:
        fit(case.recipe, batches, Path(folder), device=case.device, screen=Screen())
    return batches.step_seconds


def bare(case: Case) -> float:
    """Mean seconds a step of a loop as one would write it by hand."""
    batches = batches_of(case)
    torch.compiler.reset()
    module = build(case.net).to(case.device, memory_format=torch.channels_last).train()
    average = deepcopy(module)
    slow, fast = (
        [t for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()]
        for m in (average, module)
    )
    optimizer = make_optimizer(module, OPTIM)
    forward = torch.compile(module, dynamic=False) if case.compile else module
    for step in range(case.steps):
        batch = batches.at(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.03 * (1 - step / case.steps)
        loss = _loss(forward, batch, case)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(slow, fast, 0.001)
    return batches.step_seconds


def _loss(forward: Callable[[Tensor], Tensor], batch: Batch, case: Case) -> Tensor:
    """Cross-entropy of the labels, and FixMatch's of the pool, in plain torch."""
    images, targets = batch.labeled.images, batch.labeled.targets
    views = [] if batch.unlabeled is None else list(batch.unlabeled.views.values())
    everything = torch.cat([images, *views]).contiguous(memory_format=torch.channels_last)
    with autocast(case.device, "bf16"):
        logits = forward(everything)
    on_labels, *on_views = logits.float().split([len(part) for part in (images, *views)])
    loss = functional.cross_entropy(on_labels, targets)
    if not on_views:
        return loss
    weak, strong = on_views
    confidence, guess = weak.detach().softmax(-1).max(-1)
    losses = functional.cross_entropy(strong, guess, reduction="none")
    return loss + (losses * (confidence >= 0.95)).mean()


def syncs(run: Callable[[], object], device: torch.device) -> int | None:
    """How often a piece of work waited for the device; None where there is none that counts."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in said)


def inside(case: Case, file: Path) -> Row:
    """Times of batches and steps apart, how often a step waits, and a profile in a file."""
    batches = batches_of(case)
    torch.compiler.reset()
    state = begin(case.recipe, batches, case.device)
    meter = Meter()

    def learn(step: int, batch: Batch) -> None:
        metrics = case.recipe.method.step(state, batch, case.recipe.clock(step))
        meter.add(state, metrics, data_seconds=0.0, images=0)

    for step in range(SKIPPED):
        learn(step, Batches.at(batches, step))
    batch = Batches.at(batches, SKIPPED)
    left = range(SKIPPED, case.steps - 1)
    found: Row = {
        "data_ms": 1e3 * _seconds(lambda n: Batches.at(batches, n), left, case.device),
        "learn_ms": 1e3 * _seconds(lambda n: learn(n, batch), left, case.device),
        "syncs": syncs(lambda: learn(SKIPPED, Batches.at(batches, SKIPPED)), case.device),
    }
    write_json(file, _profiled(lambda n: learn(n, Batches.at(batches, n)), case.device))
    return found


def _seconds(run: Callable[[int], object], steps: range, device: torch.device) -> float:
    """Mean time of some work."""
    wait_for(device)
    start = time.perf_counter()
    for step in steps:
        run(step)
    wait_for(device)
    return (time.perf_counter() - start) / len(steps)


def _profiled(run: Callable[[int], object], device: torch.device) -> dict[str, Any]:
    """The operations that take longest a step: of the processor, and of the device."""
    on_device = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=kinds, acc_events=True) as profiler:
        wall = 1e3 * _seconds(run, range(SKIPPED, SKIPPED + PROFILED), device)
    events = profiler.key_averages()
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    calls = [event for event in events if event.device_type == DeviceType.CPU]
    busy = sum(event.self_device_time_total for event in kernels) / PROFILED / 1e3
    return {
        "wall_ms": wall,
        "device_busy_ms": busy if on_device else None,
        "device": _top([(e.key, e.count, e.self_device_time_total) for e in kernels]),
        "processor": _top([(e.key, e.count, e.self_cpu_time_total) for e in calls]),
    }


def _top(events: list[tuple[str, int, float]]) -> list[dict[str, Any]]:
    """Those with the most microseconds."""
    ordered = sorted(events, key=lambda event: -event[2])[:TOP]
    return [
        {"name": name[:120], "calls": calls / PROFILED, "ms": spent / PROFILED / 1e3}
        for name, calls, spent in ordered
    ]


def speed_row(case: Case, folder: Path, most: float) -> Row:
    """`fit` over the bare loop, in turns; `most` images a second are the floor's."""
    runs = {"bare": bare, "ours": ours, "ahead": partial(ours, ahead=True)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for pair in range(case.pairs):
        for name in runs if pair % 2 else reversed(runs):
            times[name].append(runs[name](case))
    ratios = [one / other for one, other in zip(times["ours"], times["bare"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    step = statistics.median(times["ours"])
    kind = "compiled" if case.compile else "eager"
    name = f"profile-{case.method}-{case.batch}-{kind}.json"
    return {
        "fit_ms": 1e3 * step,
        "bare_ms": 1e3 * statistics.median(times["bare"]),
        "ahead_ms": 1e3 * statistics.median(times["ahead"]),
        "ratio": [round(value, 4) for value in (low, middle, high)],
        "images_per_second": case.seen / step,
        "share_of_floor": case.seen / step / most,
        "pairs": case.pairs,
        "steps": case.steps,
        "profile": name,
    } | inside(case, folder / name)
