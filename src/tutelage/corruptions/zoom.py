"""Blur towards the middle, as of a camera that moves towards it.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1: the mean of an image and its
zooms from 1 up, so that the image itself counts twice. The list of zooms ends where NumPy's arange
does, which by rounding has the end itself once, at 224 px in severity 1.
"""

from functools import lru_cache
from math import ceil

import numpy as np
from torch import Tensor

from tutelage.corruptions.banded import Banded, banded, mapped
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level


def zoom_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W), each the mean of its zooms; nothing is drawn."""
    factors = zooms(*level)
    total = images.clone()
    for factor in factors:
        total.add_(zoomed(images, factor))
    return total.div_(len(factors) + 1)


def zooms(end: float, step: float) -> list[float]:
    """Factors from 1 by steps, up to an end."""
    return np.arange(1, end, step).tolist()


def zoomed(images: Tensor, factor: float) -> Tensor:
    """The middle of images (B, C, H, W) float enlarged to the same size, bilinearly."""
    if factor == 1:
        return images
    down, across = (_zoom_map(side, factor) for side in images.shape[-2:])
    return mapped(images, down, across)


@lru_cache(256)
def _zoom_map(side: int, factor: float) -> Banded:
    """The middle of a side, its first and last pixel staying so, and the middle of the outcome."""
    kept = ceil(side / factor)
    size = round(kept * factor)
    places = np.arange(size) * ((kept - 1) / max(size - 1, 1))
    places = places[(size - side) // 2 :][:side]
    below = np.minimum(places.astype(np.int64), max(kept - 2, 0))
    share = places - below
    matrix = np.zeros((side, side))
    here, first = np.arange(side), (side - kept) // 2 + below
    matrix[here, first] = 1 - share
    matrix[here, np.minimum(first + 1, side - 1)] += share
    return banded(matrix)
