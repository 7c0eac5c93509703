"""Pure functions between labels, answers and targets: always (B, K) probabilities."""

import torch
from torch import Tensor
from torch.nn import functional


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices (B,) as targets (B, K)."""
    return functional.one_hot(labels, num_classes).float()


def hard(probs: Tensor) -> Tensor:
    """The surest class of each row as a one-hot target: (B, K) -> (B, K)."""
    return one_hot(probs.argmax(-1), probs.shape[-1])


def smooth(targets: Tensor, amount: float) -> Tensor:
    """Label smoothing q' = (1 - eps) q + eps / K, which keeps the rows' sum."""
    return (1 - amount) * targets + amount / targets.shape[-1]


def temper(probs: Tensor, temperature: float) -> Tensor:
    """p^(1/T) renormalized, which equals softmax(z/T); T < 1 sharpens."""
    if temperature == 1:
        return probs
    return torch.softmax(probs.clamp(min=1e-30).log() / temperature, -1)


def align(probs: Tensor, marginal: Tensor, wanted: Tensor) -> Tensor:
    """Distribution alignment p wanted / marginal, renormalized: (B, K), (K,), (K,) -> (B, K).

    `marginal` is the mean of what was predicted lately, `wanted` what it should be
    (ReMixMatch, arXiv 1911.09785, section 3.1).
    """
    scaled = probs * (wanted + 1e-6) / (marginal + 1e-6)
    return scaled / scaled.sum(-1, keepdim=True)


def from_top(classes: Tensor, probs: Tensor, num_classes: int) -> Tensor:
    """Rebuild targets (B, K) from the top k (B, k); the rest mass spreads over the others."""
    rest = (1 - probs.sum(-1, keepdim=True)).clamp(min=0)
    others = num_classes - classes.shape[-1]
    full = rest.expand(-1, num_classes) / others if others else rest.new_zeros(1, 1)
    full = full.expand(len(probs), num_classes).clone()
    full.scatter_(1, classes, probs)
    return full / full.sum(-1, keepdim=True)
