"""The published definitions of the blurs, for one image, with scikit-image, OpenCV and SciPy.

Hendrycks and Dietterich 2019 (arXiv 1903.12261). Their motion blur is ImageMagick's, which isn't
needed here: its kernel is applied by OpenCV, which is the fastest of these libraries at it.
"""

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from skimage.filters import gaussian

from benchmarks.reference_noise import Floats, Image, Reference, finished


def gaussian_blur(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """A Gaussian filter on each channel."""
    return finished(gaussian(image / 255.0, sigma=level[0], channel_axis=-1))


def disk(radius: float, sigma: float) -> NDArray[np.float32]:
    """The kernel of a lens out of focus, its edge smoothed."""
    reach = 8 if radius <= 8 else int(radius)
    x, y = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    inside = (x**2 + y**2 <= radius**2).astype(np.float32)
    inside /= inside.sum()
    side = 3 if radius <= 8 else 5
    return cv2.GaussianBlur(inside, (side, side), sigmaX=sigma)


def defocused(values: Floats, radius: float, sigma: float) -> Floats:
    """The kernel on each channel."""
    kernel = disk(radius, sigma)
    return np.stack([cv2.filter2D(values[..., c], -1, kernel) for c in range(3)], axis=-1)


def defocus_blur(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """A lens out of focus."""
    return finished(defocused(image / 255.0, *level))


def exchange(pixels: Image, reach: int, moves: Iterator[NDArray[np.int64]]) -> None:
    """One pass over the pixels from the last to the first; a move is columns and rows."""
    height, width = pixels.shape[:2]
    for row in range(height - reach, reach, -1):
        for column in range(width - reach, reach, -1):
            across, down = next(moves)
            here, there = (row, column), (row + down, column + across)
            pixels[here], pixels[there] = pixels[there], pixels[here]  # as published: a copy


def glass_blur(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """Blurred, exchanged pixel by pixel, blurred."""
    sigma, reach, passes = level[0], int(level[1]), int(level[2])
    pixels = (gaussian(image / 255.0, sigma=sigma, channel_axis=-1) * 255).astype(np.uint8)
    draws = (dice.integers(-reach, reach, size=2) for _ in count())
    for _ in range(passes):
        exchange(pixels, reach, draws)
    return finished(gaussian(pixels / 255.0, sigma=sigma, channel_axis=-1))


def moved(values: Floats, radius: float, sigma: float, angle: float) -> Floats:
    """ImageMagick's motion blur: a half bell over whole-pixel steps along the angle in degrees."""
    taps = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2.0 * sigma**2))
    kernel = np.zeros((2 * taps - 1, 2 * taps - 1))
    for i, weight in enumerate(weights / weights.sum()):
        down = int(np.ceil(i * np.sin(np.deg2rad(angle)) - 0.5))
        across = int(np.ceil(i * np.cos(np.deg2rad(angle)) - 0.5))
        kernel[taps - 1 + down, taps - 1 + across] += weight
    return cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def motion_blur(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """A camera that moves."""
    return finished(moved(image / 255.0, level[0], level[1], dice.uniform(-45, 45)))


def enlarged(values: Floats, factor: float) -> Floats:
    """The middle of an image, enlarged to the size of the image."""
    side = values.shape[0]
    kept = int(np.ceil(side / factor))
    start = (side - kept) // 2
    middle = values[start : start + kept, start : start + kept]
    large = zoom(middle, (factor, factor, 1), order=1)
    start = (large.shape[0] - side) // 2
    return large[start : start + side, start : start + side]


def zoomed(values: Floats, level: tuple[float, ...]) -> Floats:
    """The mean of an image and its zooms."""
    factors = np.arange(1, *level)
    total = np.zeros_like(values)
    for factor in factors:
        total += enlarged(values, factor)
    return (values + total) / (len(factors) + 1)


def zoom_blur(image: Image, level: tuple[float, ...], dice: np.random.Generator) -> Image:
    """A camera that comes nearer."""
    return finished(zoomed(image / 255.0, level))


REFERENCE: dict[str, Reference] = {
    "gaussian_blur": gaussian_blur, "defocus_blur": defocus_blur, "glass_blur": glass_blur,
    "motion_blur": motion_blur, "zoom_blur": zoom_blur,
}  # fmt: skip
