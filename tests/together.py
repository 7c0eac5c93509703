"""Trainings that several real processes share, or one makes alone: run by torchrun in tests.

python together.py OUT [name …]: every case is trained, and its weights and metrics are in OUT/name.
By all processes together, trainings also stop and go on, and optimizers work on parts of weights.
"""

import json
import shutil
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchrun import lose_patience

from tutelage.catalog import kind_of, names
from tutelage.core import Batch, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.distributed import orders
from tutelage.distributed.collectives import rank, world
from tutelage.distributed.crew import everywhere, joined, serve
from tutelage.distributed.launcher import is_launched
from tutelage.distributed.shards import part_like, spread_with, whole
from tutelage.ends import end_at_once
from tutelage.errors import Interrupted
from tutelage.loop import fit
from tutelage.methods.method import Method
from tutelage.networks.build import Net, build
from tutelage.optimizers import SHARDABLE, make_optimizer
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.training_settings import Spread

CLASSES, SIDE, STEPS, BATCH, RATIO = 4, 16, 4, 8, 2
VIT = Net(name="test_vit", num_classes=CLASSES, img_size=SIDE)
ALL = {"shard": "all"}
RESNET = Net(name="test_resnet", num_classes=CLASSES, img_size=SIDE, small_stem=True)


@dataclass(frozen=True)
class Case:
    """A training, but for its length."""

    method: str
    net: Net = VIT
    options: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    stage: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    spread: dict[str, Any] = field(default_factory=dict)


CASES = {name: Case(name) for name in names()} | {
    "uda-annealed": Case("uda", options={"tsa": "linear", "threshold": 0.2}),
    "fixmatch-aligned": Case("fixmatch", options={"align": True, "threshold": 0.2}),
    "flexmatch-low": Case("flexmatch", options={"threshold": 0.3}),
    "mpl-difference": Case("meta-pseudo-labels", options={"feedback": "difference",
                                                          "labels": "argmax"}),
    "mixed": Case("noisy-student", stage={"mixup": 0.5, "cutmix": 0.5}),
    "mixed-each": Case("supervised", stage={"mixup": 0.5}, noise={"mix_each": True}),
    "erased": Case("supervised", noise={"erase": 0.5, "policy": "trivialaugment"}),
    "learned-policy": Case("supervised", noise={"erase": 0.5, "erase_fill": "color",
                                                "policy": "autoaugment:cifar10"}),
    "accumulated": Case("supervised", optim={"accumulate": 4}),
    "synced": Case("fixmatch", RESNET, options={"threshold": 0.2}, spread={"sync_bn": True}),
    "synced-mpl": Case("meta-pseudo-labels", RESNET, spread={"sync_bn": True}),
    "sharded": Case("supervised", spread=ALL),
    "sharded-noisy": Case("noisy-student", spread={"shard": "student"}),
    "sharded-fixmatch": Case("fixmatch", options={"threshold": 0.2}, spread={"shard": "student"}),
    "sharded-hinton": Case("hinton", spread={"shard": "teacher"}),
    "sharded-usi": Case("usi", spread=ALL),
    "sharded-deit": Case("deit", spread=ALL),
    "sharded-mpl": Case("meta-pseudo-labels", options={"feedback": "difference",
                                                       "labels": "argmax"}, spread=ALL),
    "sharded-mpl-teacher": Case("meta-pseudo-labels", spread={"shard": "teacher"}),
    "sharded-mean": Case("mean-teacher", spread=ALL),
    "sharded-accumulated": Case("supervised", optim={"accumulate": 4, "clip": 0.1, "ema": None},
                                spread=ALL),
    "sharded-synced": Case("fixmatch", RESNET, options={"threshold": 0.2},
                           spread={"shard": "all", "sync_bn": True}),
    "statistics": Case("noisy-student", RESNET, options={"dropout_on_pool": False}),
}  # fmt: skip


# Stopped before an update whose gradients are half there.
STOPPED = Case("mean-teacher", RESNET, optim={"name": "adam", "lr": 0.001, "accumulate": 2})
STOP = 2  # the step in which it is asked to stop
GO_ON = (("sharded", "all"), ("sharded", "none"), ("replicated", "all"), ("alone", "all"))


class Stopping(Batches):
    """Somebody asks the leader to stop."""

    def at(self, step: int) -> Batch:
        if step == STOP and rank() == 0:
            signal.raise_signal(signal.SIGTERM)
        return super().at(step)


def recipe_of(case: Case) -> Recipe:
    """Small, without dropout, whose masks each process draws for itself."""
    method: Method = kind_of(case.method)(**case.options)
    stage = {"size": SIDE, "magnitude": 5.0, "cutout": 0.3} | case.stage
    return Recipe(
        net=replace(case.net, two_heads=method.two_heads and case.net.two_heads),
        method=method,
        stages=(Stage(steps=STEPS, **stage),),
        optim=Optim(
            **{"name": "sgd", "lr": 0.05, "weight_decay": 0.01, "ema": 0.9, "warmup": 0.0}
            | case.optim
        ),
        noise=Noise(**case.noise),
        batch=BATCH,
        ratio=RATIO if method.unlabeled_views else 0,
        spread=Spread(**case.spread),
    )


def batches_of(recipe: Recipe) -> Batches:
    """Random images with random labels."""
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, SIDE, SIDE, 3), generator=dice, dtype=torch.uint8)
    labels = torch.arange(20) % CLASSES
    pool = None
    if recipe.ratio:
        top = torch.rand(40, 2, generator=dice) / 2
        classes = torch.stack([torch.randperm(CLASSES, generator=dice)[:2] for _ in range(40)])
        pool = PoolSet(
            InMemory(images[20:]), torch.arange(40), torch.ones(40, dtype=torch.int64),
            StoredTargets(classes, top, CLASSES) if recipe.method.stored else None,
        )  # fmt: skip
    return Batches(
        LabeledSet(InMemory(images[:20]), labels, CLASSES), pool, stages=recipe.stages,
        views=(recipe.method.labeled_view, recipe.method.unlabeled_views),
        batch=recipe.batch, ratio=recipe.ratio, noise=recipe.noise, seed=recipe.seed,
    )  # fmt: skip


def train(case: Case, out: Path, kind: type[Batches] = Batches) -> None:
    """From the leader, or alone."""
    recipe = recipe_of(case)
    batches = batches_of(recipe)
    batches.__class__ = kind
    teacher: nn.Module | None = None
    if recipe.method.teacher == "frozen":
        teacher = build(replace(case.net, two_heads=False), seed=9).eval()
    fit(recipe, batches, out, device=torch.device("cpu"), teacher=teacher)


def stop(out: Path, shard: str) -> None:
    """A training that stops before its end."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        train(replace(STOPPED, spread={"shard": shard, "sync_bn": True}), out, Stopping)
    except Interrupted:
        return
    raise AssertionError("it wasn't stopped")


def go_on(stopped: Path, out: Path, shard: str) -> None:
    """To its end."""
    shutil.copytree(stopped, out, dirs_exist_ok=True)
    train(replace(STOPPED, spread={"shard": shard, "sync_bn": True}), out)


class Tiny(nn.Module):
    """Weights of several shapes, of which processes have several, few, or none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(6, 5)
        self.norm, self.token = nn.LayerNorm(3), nn.Parameter(torch.randn(1, 1, 6))


def differences(own: bool | None) -> dict[str, float]:
    """Of each optimizer's weights from parts of weights and from whole ones, at most."""
    found = {}
    for name in SHARDABLE:
        optim = Optim(name=name, weight_decay=0.1, lr=0.01)
        one, two = Tiny(), Tiny()
        alone, shared = make_optimizer(one, optim), make_optimizer(two, optim)
        for number in range(4):
            if number == 2:
                spread_with(two, shared, ["linear"], torch.device("cpu"))
            dice = torch.Generator().manual_seed(number)
            for weight, part in zip(one.parameters(), two.parameters(), strict=True):
                weight.grad = torch.randn(weight.shape, generator=dice)
                part.grad = weight.grad if number < 2 else part_like(weight.grad, part)
            alone.step()
            shared.step()
        pairs = [(a, whole(b)) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
        found[name] = 0.0 if rank() else max(float((a - b).abs().max()) for a, b in pairs)
    return found


def more(out: Path) -> None:
    """What several processes do beyond the cases."""
    train(replace(STOPPED, spread={"shard": "all", "sync_bn": True}), out / "whole")
    stop(out / "stopped-sharded", "all")
    stop(out / "stopped-replicated", "none")
    for before, shard in GO_ON:
        go_on(out / f"stopped-{before}", out / f"{before}-{shard}", shard)
    (out / "optimizers.json").write_text(json.dumps(everywhere(differences, own=True)))


def main(out: Path, wanted: list[str]) -> None:
    """All cases, or those wanted."""
    if is_launched():
        lose_patience()
        orders.EVERY = 0.0  # seconds, so that a stop is heard after each step
    with joined():
        if rank():
            serve()
            return
        for name in wanted or CASES:
            train(CASES[name], out / name)
        if world() > 1 and not wanted:
            more(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    end_at_once(0)
