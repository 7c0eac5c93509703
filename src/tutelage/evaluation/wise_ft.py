"""Trained weights drawn back towards the given ones that the training began with: WiSE-FT.

Wortsman et al. 2022, Robust fine-tuning of zero-shot models (arXiv 2109.01903). There the given
network knows the classes by itself; here its new classifier is the one fitted before training.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional

from tutelage.data.pixels import Chosen
from tutelage.data.sets import LabeledSet
from tutelage.evaluation.accuracy import predict
from tutelage.evaluation.probe import evenly

TOLD = 512  # labeled images, at most, on which trained weights are compared with mixed ones
LEAST = 1e-7  # probability, of which the logarithm is taken


@torch.no_grad()
def interpolated(given: nn.Module, trained: nn.Module, alpha: float) -> nn.Module:
    """A copy of the trained network with the weights (1 - alpha) given + alpha trained; whole
    numbers, as counts are, stay as trained."""
    mixed, before, after = deepcopy(trained), given.state_dict(), trained.state_dict()
    for name, tensor in mixed.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(before[name].to(tensor).lerp(after[name], alpha))
    return mixed


def drawn_back(
    given: nn.Module, trained: nn.Module, alpha: float, labeled: LabeledSet, *, size: int,
    precision: str = "fp32",
) -> tuple[nn.Module, str]:  # fmt: skip
    """The network `interpolated` gives, or the trained one where that has the smaller loss on
    labeled images; and what was found in words.

    Both are asked for the clean center view, at `size` pixels, of at most `TOLD` labeled images.
    """
    rows = evenly(len(labeled.labels), TOLD)
    pixels, labels = Chosen(labeled.pixels, rows), labeled.labels.cpu()[rows]

    def loss(module: nn.Module) -> float:
        probs = predict(module, pixels, size, precision=precision)
        return float(functional.nll_loss(probs.clamp(min=LEAST).log(), labels))

    mixed = interpolated(given, trained, alpha)
    before, after = loss(trained), loss(mixed)
    kept = after <= before
    words = (
        f"loss on {len(rows):,} labeled images {before:.3f}, and {after:.3f} with {alpha:g} of "
        f"what training changed (WiSE-FT): {'that' if kept else 'all of it'} is kept"
    )
    return (mixed if kept else trained), words
