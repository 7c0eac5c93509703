"""Answers of a network on images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tutelage.data.pixels import Pixels
from tutelage.data.views import center
from tutelage.evaluation.intervals import Accuracy
from tutelage.learner import answer
from tutelage.networks.build import device_of


def predict(
    module: nn.Module,
    pixels: Pixels,
    size: int,
    *,
    precision: str = "fp32",
    batch: int = 256,
    advance: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Probabilities (N, K) on the CPU, from the clean center view in eval mode.

    The module is left in the mode that it came in.
    """
    was_training = module.training
    module.eval()
    parts = []
    for start in range(0, len(pixels), batch):
        rows = torch.arange(start, min(start + batch, len(pixels)))
        parts.append(_probs(module, pixels.at(rows), size, precision))
        advance(len(rows))
    module.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def _probs(module: nn.Module, images: Tensor, size: int, precision: str) -> Tensor:
    """Probabilities of one batch of uint8 images."""
    images = center(images.to(device_of(module)), size)
    return answer(module, images, precision).softmax(-1).cpu()


def accuracy(probs: Tensor, labels: Tensor) -> Accuracy:
    """Top-1 accuracy of probabilities (N, K) against labels (N,)."""
    return Accuracy(int((probs.argmax(-1) == labels).sum()), len(labels))


def confusion(probs: Tensor, labels: Tensor) -> Tensor:
    """Counts (K, K): row is the true class, column the answer."""
    k = probs.shape[-1]
    return torch.bincount(labels * k + probs.argmax(-1), minlength=k * k).reshape(k, k)
