"""The memory that a training step needs in any case, told by shapes alone."""

import torch
from torch import Tensor

from tutelage.networks.build import Normalized, build, mixes_images
from tutelage.networks.freeze import freeze
from tutelage.recipe import Recipe


def images_learned(recipe: Recipe) -> int:
    """Images that the backward pass of the last stage's step goes through, at least: of two views
    of the pool one, unless batch norm has to see both."""
    labeled, method = recipe.stages[-1].batch or recipe.batch, recipe.method
    views = len(method.unlabeled_views)
    if not recipe.ratio or not views or vars(method).get("on") == "labels":
        return labeled
    together = not method.averaged and mixes_images(_network(recipe))
    return labeled * (1 + recipe.ratio * (views if together else 1))


def _network(recipe: Recipe) -> Normalized:
    """The network as it trains, without numbers."""
    with torch.device("meta"):
        module = build(recipe.net).train()
    freeze(module, recipe.freeze)
    return module


def least_bytes(recipe: Recipe, *, among: int = 1) -> int:
    """Bytes of weights, gradients, and what the backward pass of a step needs, in one of so many
    processes.

    A lower bound: kernels, the optimizer and teachers need more. 0 where it isn't known: a compiled
    network may keep less, and some operations need numbers.
    """
    if recipe.compile:
        return 0
    side, module = recipe.stages[-1].size, _network(recipe)
    images = torch.zeros(images_learned(recipe) // among, 3, side, side, device="meta")
    weights = sum(one.nbytes * (2 if one.requires_grad else 1) for one in module.parameters())
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
