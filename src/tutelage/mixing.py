"""Mixing the images of a batch, and their targets by the same share: MixUp and CutMix.

Papers: Zhang et al. 2018, mixup (arXiv 1710.09412), equation 1; Yun et al. 2019, CutMix (arXiv
1905.04899), equation 1 and algorithm A1. One share a batch. Each image is mixed with the one before
it: batches come in random order, so that this is a random partner, never the image itself, and a
batch that holds everything twice is mixed as one that holds it once.

Pure but for the draws, which come from torch's own CPU generator: a step of training seeds it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mix:
    """One draw: how much of each image is its own, and which part is pasted."""

    share: float  # lambda, of the image itself, 0 to 1
    box: tuple[int, int, int, int] | None = None  # top, bottom, left, right of a pasted part

    def images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), each mixed with the one before it."""
        if self.share == 1:
            return images
        partners = images.roll(1, 0)
        if self.box is None:
            return torch.lerp(partners, images, self.share)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed

    def targets(self, targets: Tensor) -> Tensor:
        """Targets (B, K), mixed by the same share."""
        return torch.lerp(targets.roll(1, 0), targets, self.share)


NOTHING = Mix(1.0)


def mixup(alpha: float) -> Mix:
    """The share lambda ~ Beta(alpha, alpha) of all pixels; alpha 1 is uniform, 0 mixes nothing."""
    return Mix(_beta(alpha)) if alpha else NOTHING


def cutmix(size: int, alpha: float) -> Mix:
    """A pasted box with a share of 1 - lambda of the pixels, lambda ~ Beta(alpha, alpha).

    The box's center is anywhere in the image of `size` pixels, and what lies outside is cut off;
    the share is that of the pixels which are left. Alpha 0 mixes nothing.
    """
    if not alpha:
        return NOTHING
    half = int(size * math.sqrt(1 - _beta(alpha))) // 2
    y, x = torch.randint(size, (2,)).tolist()
    top, bottom = max(0, y - half), min(size, y + half)
    left, right = max(0, x - half), min(size, x + half)
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right))


def mixup_or_cutmix(
    size: int, *, mixup_alpha: float, cutmix_alpha: float, prob: float = 1.0, switch: float = 0.5
) -> Mix:
    """With probability `prob` a mix: CutMix with probability `switch`, else MixUp.

    Where one alpha is 0, the other is always taken.
    """
    mixes, switched = (torch.rand(2) < torch.tensor([prob, switch])).tolist()
    if not mixes:
        return NOTHING
    if cutmix_alpha and (switched or not mixup_alpha):
        return cutmix(size, cutmix_alpha)
    return mixup(mixup_alpha)


def _beta(alpha: float) -> float:
    """A draw from Beta(alpha, alpha)."""
    return float(torch.distributions.Beta(alpha, alpha).sample())
