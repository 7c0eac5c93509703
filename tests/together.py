"""Trainings that several real processes share, or one makes alone: run by torchrun in tests.

python together.py OUT [name …]: every case is trained, and its weights and metrics are in OUT/name.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.catalog import kind_of, names
from tutelage.core import Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.distributed.collectives import rank
from tutelage.distributed.crew import joined, serve
from tutelage.loop import fit
from tutelage.methods.method import Method
from tutelage.networks.build import Net, build
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.targets import one_hot
from tutelage.training_settings import Spread

CLASSES, SIDE, STEPS, BATCH, RATIO = 4, 16, 4, 8, 2
VIT = Net(name="test_vit", num_classes=CLASSES, img_size=SIDE)
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
    "statistics": Case("noisy-student", RESNET, options={"dropout_on_pool": False}),
}  # fmt: skip


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
    labels = one_hot(torch.arange(20) % CLASSES, CLASSES)
    pool = None
    if recipe.ratio:
        top = torch.rand(40, 2, generator=dice) / 2
        classes = torch.stack([torch.randperm(CLASSES, generator=dice)[:2] for _ in range(40)])
        pool = PoolSet(
            InMemory(images[20:]), torch.arange(40), torch.ones(40, dtype=torch.int64),
            StoredTargets(classes, top, CLASSES) if recipe.method.stored else None,
        )  # fmt: skip
    return Batches(
        LabeledSet(InMemory(images[:20]), labels), pool, stages=recipe.stages,
        views=(recipe.method.labeled_view, recipe.method.unlabeled_views),
        batch=recipe.batch, ratio=recipe.ratio, noise=recipe.noise, seed=recipe.seed,
    )  # fmt: skip


def train(case: Case, out: Path) -> None:
    """From the leader, or alone."""
    recipe = recipe_of(case)
    teacher: nn.Module | None = None
    if recipe.method.teacher == "frozen":
        teacher = build(replace(case.net, two_heads=False), seed=9).eval()
    fit(recipe, batches_of(recipe), out, device=torch.device("cpu"), teacher=teacher)


def main(out: Path, wanted: list[str]) -> None:
    """All cases, or those wanted."""
    with joined():
        if rank():
            serve()
            return
        for name in wanted or CASES:
            train(CASES[name], out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
