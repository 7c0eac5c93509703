"""Mixing the images of a batch, and their targets by the same share: MixUp and CutMix.

Papers: Zhang et al. 2018, mixup (arXiv 1710.09412), equation 1; Yun et al. 2019, CutMix (arXiv
1905.04899), equation 1 and algorithm A1. One draw for the whole batch, as in both, or one for each
image. Each image is mixed with the one before it: batches come in random order, so that this is a
random partner, never the image itself, and a batch that holds everything twice is mixed as one that
holds it once. Where processes share a batch, it is the one before it in all of the batch.

Pure but for the draws, which come from a generator, or from torch's own, which a step of training
seeds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from tutelage.core import sent
from tutelage.distributed.collectives import moved_on


@dataclass(frozen=True, slots=True)
class Mix:
    """What is drawn for M = B images, or M = 1 for all of them alike."""

    blend: Tensor  # (M,) lambda of MixUp: of the image itself in every pixel, 0 to 1
    boxes: Tensor  # (M, 4) top, bottom, left, right of CutMix's pasted part; empty: nothing pasted
    size: int  # pixels, side of the images that the boxes are for

    @property
    def share(self) -> Tensor:
        """The image's own share of the pixels, and so of the targets: (M,)."""
        top, bottom, left, right = self.boxes.unbind(1)
        return self.blend * (1 - (bottom - top) * (right - left) / self.size**2)

    def part(self, rows: slice) -> "Mix":
        """The draws for some of the images alone, where each has its own."""
        return Mix(self.blend[rows], self.boxes[rows], self.size)

    def images(self, images: Tensor, partners: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W), each mixed with its partner: by default the one before it."""
        partners = moved_on(images) if partners is None else partners
        if bool((self.blend < 1).any()):
            blend = sent(self.blend, images.device).to(images)[:, None, None, None]
            images = torch.lerp(partners, images, blend)
        if bool((self.boxes[:, 1] > self.boxes[:, 0]).any()):
            images = torch.where(self._pasted(images), partners, images)
        return images

    def _pasted(self, images: Tensor) -> Tensor:
        """Which pixels come from the partner: (M, 1, H, W)."""
        top, bottom, left, right = sent(self.boxes, images.device)[:, :, None].unbind(1)
        row = torch.arange(images.shape[-2], device=images.device)
        column = torch.arange(images.shape[-1], device=images.device)
        rows, columns = (top <= row) & (row < bottom), (left <= column) & (column < right)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def targets(self, targets: Tensor) -> Tensor:
        """Targets (B, K), mixed by the same share."""
        share = sent(self.share, targets.device).to(targets)
        return torch.lerp(moved_on(targets), targets, share[:, None])


def mixup(alpha: float, *, count: int = 1, generator: Generator | None = None) -> Mix:
    """The share lambda ~ Beta(alpha, alpha) of all pixels; alpha 1 is uniform, 0 mixes nothing."""
    blend = _beta(alpha, count, generator) if alpha else torch.ones(count)
    return Mix(blend, torch.zeros(count, 4, dtype=torch.int64), 1)


def cutmix(size: int, alpha: float, *, count: int = 1, generator: Generator | None = None) -> Mix:
    """A pasted box with a share of 1 - lambda of the pixels, lambda ~ Beta(alpha, alpha).

    The box's center is anywhere in the image of `size` pixels, and what lies outside is cut off;
    the share is that of the pixels which are left. Alpha 0 mixes nothing.
    """
    nothing = Mix(torch.ones(count), torch.zeros(count, 4, dtype=torch.int64), size)
    if not alpha:
        return nothing
    half = ((1 - _beta(alpha, count, generator)).sqrt() * size).long() // 2
    center = torch.randint(size, (2, count), generator=generator)
    low, high = (center - half).clamp(min=0), (center + half).clamp(max=size)
    return Mix(nothing.blend, torch.stack([low[0], high[0], low[1], high[1]], 1), size)


def mixup_or_cutmix(
    size: int, *, mixup_alpha: float, cutmix_alpha: float, prob: float = 1.0, switch: float = 0.5,
    count: int = 1, generator: Generator | None = None,
) -> Mix:  # fmt: skip
    """With probability `prob` a mix: CutMix with probability `switch`, else MixUp.

    Where one alpha is 0, the other is always taken.
    """
    mixes, cuts = torch.rand(2, count, generator=generator) < torch.tensor([[prob], [switch]])
    blended = mixup(mixup_alpha, count=count, generator=generator)
    pasted = cutmix(size, cutmix_alpha, count=count, generator=generator)
    if not cutmix_alpha or not mixup_alpha:
        cuts = torch.full_like(cuts, bool(cutmix_alpha))
    blend = torch.where(mixes & ~cuts, blended.blend, 1.0)
    return Mix(blend, pasted.boxes * (mixes & cuts)[:, None], size)


def _beta(alpha: float, count: int, generator: Generator | None) -> Tensor:
    """Draws from Beta(alpha, alpha): (count,). NumPy's sampler, seeded by torch's generator, since
    torch's takes none."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()
