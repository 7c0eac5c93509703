"""Answers of a network on images, and how sure the resulting accuracy is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.data.pixels import Pixels
from tutelage.data.views import center
from tutelage.learner import answer
from tutelage.networks.build import device_of

Z = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers with its 95 % interval."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval (Wilson 1927)."""
        return wilson(self.right, self.total)

    def __str__(self) -> str:
        """As in '83.1 % (81.4 to 84.7, 2,000 images)'."""
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%} to {high:.1%}, {self.total:,} images)".replace(
            "%", " %"
        )


def wilson(right: int, total: int, *, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927): always inside [0, 1]."""
    share, scale = right / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


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
