"""Pure gates: which images count in a loss, and how much: probabilities (B, K) -> weights (B,)."""

import torch
from torch import Tensor


def reaches(probs: Tensor, threshold: float | Tensor) -> Tensor:
    """1[max p >= threshold], with one threshold or with one a class (K,): (B, K) -> (B,)."""
    confidence, guess = probs.max(-1)
    return (confidence >= _of_class(threshold, guess)).float()


def exceeds(probs: Tensor, threshold: float | Tensor) -> Tensor:
    """1[max p > threshold], with one threshold or with one a class (K,): (B, K) -> (B,)."""
    confidence, guess = probs.max(-1)
    return (confidence > _of_class(threshold, guess)).float()


def _of_class(threshold: float | Tensor, guess: Tensor) -> float | Tensor:
    """The threshold of each image's surest class, where classes have their own."""
    return threshold[guess] if isinstance(threshold, Tensor) else threshold


def unlearned(probs: Tensor, targets: Tensor, limit: float) -> Tensor:
    """1[p(true class) <= limit], for one-hot targets: (B, K), (B, K) -> (B,)."""
    return ((probs * targets).sum(-1) <= limit).float()


def truncated_gaussian(
    probs: Tensor, mean: Tensor, variance: Tensor, *, sigmas: float = 2.0
) -> Tensor:
    """exp(-max(0, mean - max p)^2 / (2 variance / sigmas^2)), 1 above the mean: (B, K) -> (B,)."""
    short = (mean - probs.amax(-1)).clamp(min=0)
    return torch.exp(-(short**2) * sigmas**2 / (2 * variance.clamp(min=1e-12)))


def learning_status(remembered: Tensor, num_classes: int) -> Tensor:
    """How well each class is learned, beta in [0, 1]: classes of images (N,), -1 for none -> (K,).

    A class's images over those of the largest class, or over the images without a class while
    these are more (threshold warm-up).
    """
    none_or_class = remembered + 1
    counts = torch.zeros(num_classes + 1, dtype=torch.int64, device=remembered.device)
    counts.scatter_add_(0, none_or_class, torch.ones_like(none_or_class))
    return counts[1:] / counts.max()


def convex(status: Tensor) -> Tensor:
    """beta / (2 - beta): slow at first and 1 at 1."""
    return status / (2 - status)


def class_thresholds(overall: Tensor, marginal: Tensor) -> Tensor:
    """overall p_c / max p: the overall threshold for the likeliest class, lower for others (K,)."""
    return overall * marginal / marginal.max()
