"""Blurs by a Gaussian bell and by a disk, as of a lens out of focus.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. As in the authors' code the
bell ends at 4 sigma and repeats the edge's pixels beyond the image, while the disk mirrors the
image; the disk lies on a grid that its smoothed edge may touch, where it is mirrored too, so that
some disks make images brighter: at 224 px those of radius 8 by 1.0130 and 10 by 1.0108.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.banded import Banded, banded, mapped
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level

GRID = 8  # pixels from the middle to the edge of the disk's grid, for disks up to that radius
NOTHING = 1e-12  # weights below it are none: what float32 leaves of a bell's far end
END = 4  # sigmas, where a Gaussian blur's bell ends
FAST = 16  # sides of Fourier transforms are multiples of it, and of no prime but 2, 3 and 5


def gaussian_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) blurred by a Gaussian bell; nothing is drawn."""
    (sigma,) = level
    return gaussian_blurred(images, sigma)


def gaussian_blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) float under a bell that ends at 4 sigmas; edges repeated."""
    down, across = (bell_map(side, sigma, END) for side in images.shape[-2:])
    return mapped(images, down, across)


def bell(sigma: float, radius: int) -> NDArray[np.float64]:
    """Weights (2 radius + 1,) of a Gaussian bell, which sum to 1."""
    if radius == 0:
        return np.ones(1)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


@lru_cache(256)
def bell_map(side: int, sigma: float, end: int, *, mirrored: bool = False) -> Banded:
    """A Gaussian bell along a side that ends at `end` sigmas: what would lie beyond the edges is
    given to the pixels there, or mirrored as often as the bell is longer than the side."""
    radius = int(end * sigma + 0.5)
    matrix = np.zeros((side, side))
    here = np.arange(side)
    for offset, weight in enumerate(bell(sigma, radius), -radius):
        place = here + offset
        if mirrored:
            place = np.minimum(place % (2 * side), -(place + 1) % (2 * side))
        matrix[here, place.clip(0, side - 1)] += weight
    return banded(matrix)


def defocus_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) blurred by a disk with a soft edge; nothing is drawn."""
    radius, sigma = level
    return defocused(images, radius, sigma)


def defocused(images: Tensor, radius: float, sigma: float) -> Tensor:
    """Images (B, C, H, W) float, each pixel spread over a disk whose edge a bell smooths."""
    height, width = images.shape[-2:]
    kernel = _kernel(radius, sigma)
    reach = len(kernel) // 2
    sides = _fast(height + 2 * reach), _fast(width + 2 * reach)
    wide = functional.pad(images, (reach, reach, reach, reach), mode="reflect")
    spread = torch.fft.rfft2(wide, s=sides)
    spread.mul_(_spectrum(radius, sigma, sides).to(images.device))
    return torch.fft.irfft2(spread, s=sides)[..., :height, :width]


@lru_cache(64)
def _spectrum(radius: float, sigma: float, sides: tuple[int, int]) -> Tensor:
    """What the transform of an image is multiplied by, to be correlated with the disk."""
    weights = torch.from_numpy(_kernel(radius, sigma))
    return torch.fft.rfft2(weights, s=sides).conj().resolve_conj().to(torch.complex64)


@lru_cache(64)
def _kernel(radius: float, sigma: float) -> NDArray[np.float64]:
    """The disk without rows and columns around it that weigh nothing."""
    kernel = disk(radius, sigma)
    empty = int(np.flatnonzero((kernel > NOTHING).any(axis=0))[0])
    return kernel[empty : len(kernel) - empty, empty : len(kernel) - empty]


def disk(radius: float, sigma: float) -> NDArray[np.float64]:
    """Weights (N, N) of a disk on its grid under a small bell, the grid mirrored at its edge."""
    reach, taps = (GRID, 1) if radius <= GRID else (int(radius), 2)
    along = np.arange(-reach, reach + 1)
    inside = (along**2 + along[:, None] ** 2 <= radius**2).astype(np.float64)
    matrix = np.zeros((len(along), len(along)))
    here = np.arange(len(along))
    for offset, weight in enumerate(bell(sigma, taps), -taps):
        place = np.abs(here + offset)
        matrix[here, np.minimum(place, 2 * (len(along) - 1) - place)] += weight
    return matrix @ (inside / inside.sum()) @ matrix.T


def _fast(side: int) -> int:
    """A length of at least that many pixels at which Fourier transforms are fast."""
    length = -(-side // FAST) * FAST
    while not _smooth(length):
        length += FAST
    return length


def _smooth(length: int) -> bool:
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length == 1
