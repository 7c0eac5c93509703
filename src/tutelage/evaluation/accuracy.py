"""Answers of a network on images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tutelage.core import Advance
from tutelage.data.pixels import Pixels, ahead
from tutelage.data.views import center
from tutelage.evaluation.intervals import Accuracy
from tutelage.frozen import AT_ONCE, answer, in_turns
from tutelage.networks.build import device_of


def predict(
    module: nn.Module,
    pixels: Pixels,
    size: int,
    *,
    precision: str = "fp32",
    advance: Advance = lambda done: None,
) -> Tensor:
    """Probabilities (N, K) on the CPU, from the clean center view in eval mode.

    The module and each of its layers are left in the mode that they came in.
    """
    found, done = torch.empty(0), 0

    def take(probs: Tensor) -> None:
        nonlocal found, done
        if not done:  # room for all, as parts and what they are joined to would be twice as much
            found = probs.new_empty(len(pixels), probs.shape[-1])
        found[done : done + len(probs)] = probs
        done += len(probs)

    predict_each(module, pixels, size, take=take, precision=precision, advance=advance)
    return found


def predict_each(
    module: nn.Module,
    pixels: Pixels,
    size: int,
    *,
    take: Callable[[Tensor], None],
    precision: str = "fp32",
    advance: Advance = lambda done: None,
) -> None:
    """As `predict`, but `take` gets the probabilities (B, K) of one batch after another, of which
    none is kept."""
    with _eval_mode(module):
        for rows, images in ahead(torch.arange(len(pixels)), pixels.at, AT_ONCE):
            take(_probs(module, images, size, precision))
            advance(len(rows))


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while."""
    was_training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, mode in was_training.items():
            layer.training = mode


@torch.no_grad()
def _probs(module: nn.Module, images: Tensor, size: int, precision: str) -> Tensor:
    """Probabilities of one batch of uint8 images."""
    device = device_of(module)

    def ask(some: Tensor) -> Tensor:
        return answer(module, center(some.to(device), size), precision).softmax(-1).cpu()

    return in_turns(ask, images, size)


def accuracy(probs: Tensor, labels: Tensor) -> Accuracy:
    """Top-1 accuracy of probabilities (N, K) against labels (N,)."""
    return Accuracy(int((probs.argmax(-1) == labels).sum()), len(labels))


def confusion(probs: Tensor, labels: Tensor) -> Tensor:
    """Counts (K, K): row is the true class, column the answer."""
    k = probs.shape[-1]
    return torch.bincount(labels * k + probs.argmax(-1), minlength=k * k).reshape(k, k)
