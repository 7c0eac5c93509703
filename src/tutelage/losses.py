"""Pure losses: logits (B, K), targets (B, K) -> scalar, always in float32."""

from typing import Literal

from torch import Tensor

Over = Literal["all", "kept"]


def cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, *, over: Over = "all"
) -> Tensor:
    """Soft-target cross-entropy -sum_c q_c log p_c, averaged over the batch: a scalar.

    `weight` (B,) scales each image. `over="all"` divides by B, so that masked images count
    in the mean (Pseudo-Label, FixMatch); `over="kept"` divides by the sum of the weights.
    """
    losses = -(targets * logits.float().log_softmax(-1)).sum(-1)
    if weight is None:
        return losses.mean()
    total = (losses * weight).sum()
    return total / (len(losses) if over == "all" else weight.sum().clamp(min=1e-12))
