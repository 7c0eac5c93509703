"""Snow: flakes that are blown downwards, over an image that is paler.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. Of the flakes' layer only the
middle is seen, as it is enlarged, so only that is drawn.
"""

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import SLACK, Level
from tutelage.corruptions.motion import motion_blurred
from tutelage.corruptions.zoom import zoomed

STEEPEST, FLATTEST = -135.0, -45.0  # degrees
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # shares of gray


def snow(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) behind snow that falls at an angle drawn for each."""
    mean, sd, zoom = level[:3]
    sides = images.shape[-2:]
    (above, kept_down), (before, kept_across) = (_middle(side, zoom) for side in sides)
    noise = draws.normal(1, kept_down, kept_across).mul_(sd).add_(mean)
    below, behind = sides[0] - above - kept_down, sides[1] - before - kept_across
    layer = functional.pad(noise, (before, behind, above, below))
    angles = draws.uniform(1, low=STEEPEST, high=FLATTEST)[:, 0]
    return snowed(images, layer, angles, level)


def _middle(side: int, zoom: float) -> tuple[int, int]:
    """The first pixel and the number of those of a side that are seen."""
    kept = ceil(side / zoom)
    return (side - kept) // 2, kept


def snowed(images: Tensor, layer: Tensor, angles: Tensor, level: Level) -> Tensor:
    """Images (B, 3, H, W) in the snow of a normal layer (B, 1, H, W), at angles (B,) in degrees."""
    _, _, zoom, threshold, radius, sigma, mix = level
    flakes = functional.threshold(zoomed(layer, zoom), threshold, 0.0)
    flakes = flakes.clamp_(0, 1).mul_(255).add_(SLACK).floor_()
    flakes = motion_blurred(flakes, radius, sigma, angles).round_()  # both are stored as bytes
    flakes = flakes.add_(flakes.flip(2, 3)).div_(255)
    gray = images[:, :1].mul(1.5 * RED).add_(images[:, 1:2], alpha=1.5 * GREEN)
    gray.add_(images[:, 2:], alpha=1.5 * BLUE).add_(0.5)
    return torch.maximum(images, gray).lerp_(images, mix).add_(flakes)
