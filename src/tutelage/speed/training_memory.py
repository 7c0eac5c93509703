"""The memory that a training step needs in any case, told by shapes alone."""

import torch
from torch import Tensor

from tutelage.networks.build import build
from tutelage.networks.freeze import freeze
from tutelage.recipe import Recipe


def least_bytes(recipe: Recipe) -> int:
    """Bytes of weights, gradients, and what the backward pass of a labeled batch needs.

    A lower bound: kernels, the optimizer, a pool and teachers need more. 0 where it isn't known:
    a compiled network may keep less, and some operations need numbers.
    """
    if recipe.compile:
        return 0
    stage = recipe.stages[-1]
    with torch.device("meta"):
        module = build(recipe.net).train()
        freeze(module, recipe.freeze)
        images = torch.zeros(stage.batch or recipe.batch, 3, stage.size, stage.size)
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
