"""Brightness, contrast and saturation, without a detour by way of HSV.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. The authors change V or S of
HSV and go back to RGB. For a color with largest channel V and chroma V S the way back is
V (1 - S' (V - x) / (V S)) for each channel x, which needs no hue. No deviation but rounding.
"""

import torch
from torch import Tensor

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level

TINY = 1e-12  # stands for 0 where something is divided by it; vanishes beside any gray level


def brightness(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) with a constant added to V, up to 1; black becomes gray of that value."""
    (added,) = level
    return brightened(images, added)


def brightened(images: Tensor, added: float) -> Tensor:
    """Images (B, 3, H, W) with what is added to V, from 0 to 1; it may be negative."""
    floats = images.clamp(min=TINY)  # so that black is a gray with a ratio, too
    value = _largest(floats)
    return floats.mul_((value + added).clamp_(0, 1).div_(value))


def contrast(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) nearer to the mean of each of their channels."""
    (share,) = level
    return torch.lerp(images.mean((2, 3), keepdim=True), images, share)


def saturate(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) with S changed to factor S + summand, from 0 to 1.

    A gray pixel's hue is 0, red, so that a summand makes it reddish, as the authors' code does.
    """
    factor, added = level
    value = _largest(images).clamp_(min=TINY)
    below = value - images
    below[:, 1:] += TINY  # gray has this chroma, in red
    chroma = _largest(below)
    scale = (chroma / value).mul_(factor).add_(added).clamp_(0, 1).mul_(value).div_(chroma)
    return torch.sub(value, below.mul_(scale), out=below)


def _largest(images: Tensor) -> Tensor:
    """The largest of the three channels (B, 1, H, W)."""
    red, green, blue = images.split(1, 1)
    largest = torch.maximum(red, green)
    return torch.maximum(largest, blue, out=largest)
