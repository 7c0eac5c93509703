"""Mixing the images of a batch, and their targets by the same share: MixUp and CutMix.

Pure but for the draw, which comes from torch's own generators: a step of training seeds them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mix:
    """One draw: with whom each image is mixed, and how much of each image is its own."""

    partner: Tensor  # (B,) int64, a row of the batch
    share: float  # lambda, of the image itself
    box: tuple[int, int, int, int] | None = None  # top, bottom, left, right of a pasted part

    def images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), mixed."""
        if self.box is None:
            return torch.lerp(images[self.partner], images, self.share)
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[self.partner][:, :, top:bottom, left:right]
        return mixed

    def targets(self, targets: Tensor) -> Tensor:
        """Targets (B, K), mixed by the same share."""
        return torch.lerp(targets[self.partner], targets, self.share)
