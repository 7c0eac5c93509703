"""Batch-norm statistics of finished weights, computed again from training images.

An average of weights has statistics of its own, which neither an average of statistics nor the last
ones are. Known as precise batch norm (Wu and Johnson 2021, arXiv 2105.07576).
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.frozen import answer
from tutelage.learner import modes
from tutelage.networks.build import Normalized


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], *, precision: str = "fp32") -> None:
    """Replace all batch-norm statistics by the means of those of the batches, each
    (B, 3, H, W) in [0, 1].

    Dropout and the like are off, as they will be; weights and modes stay, and so do the statistics
    of frozen layers. Raises UsageError where
    there is a batch norm and no batch.
    """
    resting = module.resting() if isinstance(module, Normalized) else set()
    norms = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer not in resting
    ]
    if not norms:
        return
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    count = 0
    with modes(module, noise=False, statistics=True):
        for images in batches:
            answer(module, images, precision)
            count += 1
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    if not count:
        raise UsageError("batch norm is recalibrated on training images: give at least one batch")
