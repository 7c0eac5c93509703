"""Fog: clouds that lie over the image.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. Images of a size that the
authors have no map for get one of the next power of two, as theirs of 224 pixels.
"""

from torch import Tensor

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level
from tutelage.corruptions.plasma import plasma


def fog(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) under clouds, the same in all channels, as bright as before at most."""
    side = 1 << (max(images.shape[-2:]) - 1).bit_length()
    return fogged(images, draws.uniform(side * side - 1, low=-1.0, high=1.0), level)


def fogged(images: Tensor, noise: Tensor, level: Level) -> Tensor:
    """Images (B, 3, H, W) under the clouds of noise (B, N) from -1 to 1, N + 1 heights."""
    weight, decay = level
    height, width = images.shape[-2:]
    clouds = plasma(noise, round((noise.shape[1] + 1) ** 0.5), decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    return images.add(clouds, alpha=weight).mul_(brightest / (brightest + weight))
