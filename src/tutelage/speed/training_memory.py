"""The memory that a training step needs in any case, told by shapes alone."""

from functools import lru_cache

import torch
from torch import Tensor

from tutelage.core import Stage
from tutelage.networks.build import Net, Normalized, build, mixes_images
from tutelage.networks.freeze import Freeze, freeze
from tutelage.recipe import Recipe


def largest_stage(recipe: Recipe) -> Stage:
    """The stage whose steps see most pixels."""
    return max(recipe.stages, key=lambda one: (one.batch or recipe.batch) * one.size**2)


def images_learned(recipe: Recipe) -> int:
    """Images that the backward passes of a step of the largest stage go through, at least: of two
    views of the pool one, unless batch norm has to see both."""
    labeled, method = largest_stage(recipe).batch or recipe.batch, recipe.method
    on = vars(method).get("on", "both")  # of the distillations
    views = method.unlabeled_views if recipe.ratio and on != "labels" else ()
    if not views:
        return labeled
    together = not method.averaged and mixes_images(_network(recipe.net, recipe.freeze))
    seen = 0 if on == "pool" else labeled
    seen += labeled * recipe.ratio * (len(views) if together else 1)
    if _has_lessons(recipe):
        seen += labeled * (recipe.ratio + 1)  # of the student: its lesson and its exam
    return seen


def _has_lessons(recipe: Recipe) -> bool:
    """Whether a teacher of the student's size learns beside it."""
    return recipe.method.teacher == "trained" and not recipe.method.stored


@lru_cache(maxsize=8)  # as several batches of the same rounds are asked
def _network(net: Net, frozen: Freeze) -> Normalized:
    """The network as it trains, without numbers."""
    with torch.device("meta"):
        module = build(net).train()
    freeze(module, frozen)
    return module


def least_bytes(recipe: Recipe, *, among: int = 1) -> int:
    """Bytes of weights, gradients, and what the backward passes of a step need, in one of so many
    processes; weights that are spread over devices are left out.

    A lower bound: kernels, the optimizer and teachers need more. 0 where it isn't known: a compiled
    network may keep less, and some operations need numbers.
    """
    if recipe.compile:
        return 0
    side, module = largest_stage(recipe).size, _network(recipe.net, recipe.freeze)
    images = torch.zeros(images_learned(recipe) // among, 3, side, side, device="meta")
    weights = sum(one.nbytes * (2 if one.requires_grad else 1) for one in module.parameters())
    weights *= 0 if recipe.spread.shards("student") else 2 if _has_lessons(recipe) else 1
    own = {one.untyped_storage()._cdata for one in (*module.parameters(), *module.buffers())}
    kept: dict[int, Tensor] = {}  # which keeps storages alive, so that none is counted as another

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            module(images)
    except (NotImplementedError, RuntimeError):
        return 0
    needed = sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in own)
    return weights + (needed if recipe.precision == "fp32" else needed // 2)
