"""The published definitions of the noises, for one image, with NumPy and scikit-image.

Hendrycks and Dietterich 2019 (arXiv 1903.12261): float64 in [0, 1], clipped, times 255, cut off.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.util import random_noise

Image = NDArray[np.uint8]  # (H, W, 3)
Floats = NDArray[np.float64]
Reference = Callable[[Image, tuple[float, ...], np.random.Generator], Image]


def finished(values: Floats) -> Image:
    """Clipped to [0, 1] and cut off to bytes."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """The image and normal noise."""
    x = image / 255.0
    return finished(x + dice.normal(size=x.shape, scale=level[0]))


def shot_noise(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """Photons counted."""
    x = image / 255.0
    return finished(dice.poisson(x * level[0]) / level[0])


def impulse_noise(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """Values replaced by 0 and 1."""
    return finished(random_noise(image / 255.0, mode="s&p", amount=level[0], rng=dice))


def speckle_noise(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """The image and normal noise times the image."""
    x = image / 255.0
    return finished(x + x * dice.normal(size=x.shape, scale=level[0]))


REFERENCE: dict[str, Reference] = {
    "gaussian_noise": gaussian_noise, "shot_noise": shot_noise, "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
}  # fmt: skip
