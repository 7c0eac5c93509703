"""Label tables for tests, out of probabilities."""

from torch import Tensor

from tutelage.data.label_parts import TOP
from tutelage.data.pool import PseudoLabels


def from_probs(
    names: tuple[str, ...], probs: Tensor, classes: tuple[str, ...], teacher: str
) -> PseudoLabels:
    """The top answers out of probabilities (N, K)."""
    top = probs.topk(min(TOP, probs.shape[-1]))
    return PseudoLabels(names, top.indices, top.values, classes, teacher)
