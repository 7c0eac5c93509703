"""Pure losses: logits (B, K), targets (B, K) -> scalar, always in float32."""

from typing import Literal

import torch
from torch import Tensor

from tutelage.distributed.collectives import mean_over_ranks

Over = Literal["all", "kept"]


def cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, *, over: Over = "all"
) -> Tensor:
    """Soft-target cross-entropy -sum_c q_c log p_c, averaged over the batch: a scalar.

    `weight` (B,) scales each image. `over="all"` divides by B, so that masked images count
    in the mean (Pseudo-Label, FixMatch); `over="kept"` divides by the sum of the weights.
    """
    losses = -(targets * logits.float().log_softmax(-1)).sum(-1)
    return _mean(losses, weight, over)


def kl(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the answer from the targets, sum_c q_c (log q_c - log p_c),
    averaged over the batch, with masked images in the mean: a scalar."""
    losses = torch.xlogy(targets, targets) - targets * logits.float().log_softmax(-1)
    return _mean(losses.sum(-1), weight, "all")


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """||softmax(z) - q||^2, summed over classes and averaged over the batch: a scalar."""
    return (logits.float().softmax(-1) - targets).square().sum(-1).mean()


def _mean(losses: Tensor, weight: Tensor | None, over: Over) -> Tensor:
    """The mean of losses (B,), with weights (B,) over all images or over those kept, of all
    processes' images where several share the batch."""
    if weight is None:
        return losses.mean()
    total = (losses * weight).sum()
    return total / (len(losses) if over == "all" else _kept(weight))


def _kept(weight: Tensor) -> Tensor:
    """The sum of all weights over the number of processes."""
    return mean_over_ranks(weight.sum()).clamp(min=1e-12)


def distillation(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), a mean over the batch: a scalar.

    Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), section 2: T^2 keeps the gradient's size. Divided
    by the images, not by images times classes as `kl_div`'s "mean" does.
    """
    wanted = (teacher.float() / temperature).softmax(-1)
    return temperature**2 * kl(logits.float() / temperature, wanted)
