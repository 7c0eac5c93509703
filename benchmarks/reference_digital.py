"""The published definitions of six corruptions for one image, with the libraries of the authors.

Hendrycks and Dietterich 2019 (arXiv 1903.12261).
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian

Bytes = NDArray[np.uint8]  # (H, W, 3)
Floats = NDArray[Any]
Level = tuple[float, ...]


def _bytes(floats: Floats) -> Bytes:
    """Clipped and cut off."""
    return (np.clip(floats, 0, 1) * 255).astype(np.uint8)


def brightness(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """V of HSV plus a constant."""
    hsv = rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + level[0], 0, 1)
    return _bytes(hsv2rgb(hsv))


def saturate(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """S of HSV times a factor, plus a constant."""
    hsv = rgb2hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * level[0] + level[1], 0, 1)
    return _bytes(hsv2rgb(hsv))


def contrast(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """Nearer to the mean of each channel."""
    floats = image / 255
    mean = floats.mean((0, 1), keepdims=True)
    return _bytes((floats - mean) * level[0] + mean)


def jpeg_compression(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """Through Pillow's encoder and decoder."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(level[0]))
    return np.asarray(Image.open(file))


def pixelate(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """Pillow's BOX, down and up."""
    h, w = image.shape[:2]
    small = Image.fromarray(image).resize(
        (int(w * level[0]), int(h * level[0])), Image.Resampling.BOX
    )
    return np.asarray(small.resize((w, h), Image.Resampling.BOX))


def elastic_transform(image: Bytes, level: Level, dice: np.random.Generator) -> Bytes:
    """OpenCV's affine map of three points, then SciPy's displacement."""
    h, w = image.shape[:2]
    moved = dice.uniform(-level[2], level[2], (3, 2))
    noise = dice.uniform(-1, 1, (2, h, w))
    return _bytes(elastic(image / 255, level, moved, noise))


def elastic(floats: Floats, level: Level, moved: Floats, noise: Floats) -> Floats:
    """The same for points moved by (3, 2) pixels and a displacement of smoothed noise (2, H, W)."""
    alpha, sigma, _ = level
    h, w = floats.shape[:2]
    middle, reach = np.float32((w // 2, h // 2)), min(h, w) // 3
    start = middle + reach * np.float32(((1, 1), (1, -1), (-1, -1)))
    matrix = cv2.getAffineTransform(start, np.float32(start + moved))
    floats = cv2.warpAffine(floats, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101)
    if alpha == 0:
        return floats
    dx, dy = (gaussian(one, sigma, mode="reflect", truncate=3) * alpha for one in noise)
    y, x, channel = np.meshgrid(np.arange(h), np.arange(w), np.arange(3), indexing="ij")
    places = [y + dy[..., None], x + dx[..., None], channel]
    return map_coordinates(floats, places, order=1, mode="reflect")


REFERENCE: dict[str, Callable[[Bytes, Level, np.random.Generator], Bytes]] = {
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "saturate": saturate,
}
