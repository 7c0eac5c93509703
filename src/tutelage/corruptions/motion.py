"""Blur along a line, as of a camera that moves.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1, whose authors call
ImageMagick's motion blur. This is its definition: half of a Gaussian bell over whole-pixel steps
from the pixel along the angle, beyond the edge the edge's pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level

TILT = 45.0  # degrees that the drawn angle is from horizontal, at most


def motion_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) blurred at an angle that is drawn for each."""
    radius, sigma = level
    angles = draws.uniform(1, low=-TILT, high=TILT)[:, 0]
    return motion_blurred(images, radius, sigma, angles)


def motion_blurred(images: Tensor, radius: float, sigma: float, angles: Tensor) -> Tensor:
    """Images (B, C, H, W) float, each blurred along its angle (B,) in degrees, down from right."""
    weights = line(radius, sigma).tolist()
    blurred = torch.empty_like(images, memory_format=torch.contiguous_format)
    for image, angle, out in zip(images, angles.tolist(), blurred, strict=True):
        _along(image, steps(len(weights), angle), weights, out)
    return blurred


def line(radius: float, sigma: float) -> NDArray[np.float64]:
    """Weights (2 radius + 1,) of a pixel and those after it along the line; they sum to 1."""
    weights = np.exp(-(np.arange(2 * int(np.ceil(radius)) + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def steps(count: int, angle: float) -> NDArray[np.int64]:
    """Rows down and columns right (2, count) from a pixel to each along the line, in pixels."""
    turn = np.deg2rad(angle)
    towards = np.array([[np.sin(turn)], [np.cos(turn)]])
    return np.ceil(towards * np.arange(count) - 0.5).astype(np.int64)


def _along(image: Tensor, places: NDArray[np.int64], weights: list[float], out: Tensor) -> None:
    """Write into `out` (C, H, W) the weighted sum of the image moved by all these places."""
    height, width = image.shape[-2:]
    top, left = -places.min(axis=1)  # the first place is the pixel itself: never below 0
    bottom, right = places.max(axis=1)
    wide = functional.pad(image[None], (left, right, top, bottom), mode="replicate")[0]
    out.zero_()
    for weight, (down, across) in zip(weights, (places.T - places.min(1)).tolist(), strict=True):
        out.add_(wide[:, down : down + height, across : across + width], alpha=weight)
