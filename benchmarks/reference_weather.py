"""Snow, frost, fog and spatter by their published definition, one image at a time on the CPU.

Hendrycks and Dietterich 2019 (arXiv 1903.12261), with NumPy, SciPy and OpenCV as everybody would
write it down; what is measured and tested against. Each comes in two parts: what is drawn, and what
follows from it, so that a test can give both sides the same numbers.
"""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from tutelage.corruptions.levels import Level
from tutelage.corruptions.textures import textures

Image = NDArray[np.uint8]  # (H, W, 3)
Floats = NDArray[np.float64]

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


def _bytes(image: Floats) -> Image:
    """Clipped and cut off."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def snow(image: Image, level: Level, dice: np.random.Generator) -> Image:
    """Blown flakes over a paler image."""
    layer = dice.normal(level[0], level[1], image.shape[:2])
    return snow_of(image, level, layer, dice.uniform(-135, -45))


def snow_of(image: Image, level: Level, layer: Floats, angle: float) -> Image:
    """The image in the snow of a normal layer (H, W) that falls at an angle in degrees."""
    _, _, factor, threshold, radius, sigma, mix = level
    layer = clipped_zoom(layer, factor)
    layer[layer < threshold] = 0
    flakes = (np.clip(layer, 0, 1) * 255).astype(np.uint8)
    flakes = np.rint(motion_blur(flakes / 1.0, radius, sigma, angle))[..., None] / 255
    x = image / 255
    gray = (x @ [0.299, 0.587, 0.114])[..., None]
    pale = mix * x + (1 - mix) * np.maximum(x, gray * 1.5 + 0.5)
    return _bytes(pale + flakes + np.rot90(flakes, 2))


def clipped_zoom(layer: Floats, factor: float) -> Floats:
    """The middle of a square layer, as large as the whole."""
    side = layer.shape[0]
    part = int(np.ceil(side / factor))
    start = (side - part) // 2
    found = zoom(layer[start : start + part, start : start + part], factor, order=1)
    start = (found.shape[0] - side) // 2
    return found[start : start + side, start : start + side].copy()


def motion_blur(layer: Floats, radius: float, sigma: float, angle: float) -> Floats:
    """Half a Gaussian along a line; the edge goes on outside, as in ImageMagick."""
    taps = np.arange(2 * int(radius) + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(angle)
    down = np.ceil(taps * np.sin(turn) - 0.5).astype(int)
    right = np.ceil(taps * np.cos(turn) - 0.5).astype(int)
    wide = np.pad(layer, len(taps), mode="edge")
    height, width = layer.shape
    found = np.zeros_like(layer)
    for weight, row, column in zip(weights, down + len(taps), right + len(taps), strict=True):
        found += weight * wide[row : row + height, column : column + width]
    return found


def frost(image: Image, level: Level, dice: np.random.Generator) -> Image:
    """Ice in front of the image."""
    texture = _shrunk(int(dice.integers(5)), level[2])
    top = int(dice.integers(texture.shape[0] - image.shape[0]))
    left = int(dice.integers(texture.shape[1] - image.shape[1]))
    crop = texture[top : top + image.shape[0], left : left + image.shape[1]]
    return frost_of(image, level, crop)


def frost_of(image: Image, level: Level, crop: Image) -> Image:
    """The image behind a crop of a texture."""
    return np.clip(level[0] * image + level[1] * crop, 0, 255).astype(np.uint8)


@cache
def _shrunk(index: int, scale: float) -> Image:
    """A texture (H, W, 3) at a scale."""
    return textures(scale)[index].permute(1, 2, 0).contiguous().numpy()


def fog(image: Image, level: Level, dice: np.random.Generator) -> Image:
    """Clouds in front of the image."""
    side = 2 ** int(np.ceil(np.log2(max(image.shape[:2]))))
    return fog_of(image, level, dice.uniform(-1, 1, side**2 - 1))


def fog_of(image: Image, level: Level, noise: Floats) -> Image:
    """The image in the fog that follows from noise (side^2 - 1,) from -1 to 1."""
    x = image / 255
    clouds = plasma(noise, level[1])[: image.shape[0], : image.shape[1], None]
    return _bytes((x + level[0] * clouds) * x.max() / (x.max() + level[0]))


def plasma(noise: Floats, decay: float) -> Floats:
    """Heights from 0 to 1 by squares and diamonds on a map that repeats."""
    side = round((len(noise) + 1) ** 0.5)
    heights = np.zeros((side, side))
    step, wibble, rest = side, 100.0, noise
    while step >= 2:
        half, count = step // 2, side // step
        moves = wibble * wibble * rest[: 3 * count**2].reshape(3, count, count)
        rest = rest[3 * count**2 :]
        corner = heights[::step, ::step]
        right, below = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        center = (corner + right + below + np.roll(right, -1, 0)) / 4 + moves[0]
        heights[half::step, half::step] = center
        heights[::step, half::step] = (corner + right + center + np.roll(center, 1, 0)) / 4 + moves[
            1
        ]
        heights[half::step, ::step] = (corner + below + center + np.roll(center, 1, 1)) / 4 + moves[
            2
        ]
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()


def spatter(image: Image, level: Level, dice: np.random.Generator) -> Image:
    """Drops of water or of mud on the image."""
    return spatter_of(image, level, dice.normal(level[0], level[1], image.shape[:2]))


def spatter_of(image: Image, level: Level, layer: Floats) -> Image:
    """The image behind drops that follow from a normal layer (H, W)."""
    _, _, sigma, threshold, strength, is_mud = level
    liquid = gaussian_filter(layer, sigma, mode="nearest")
    liquid[liquid < threshold] = 0
    if is_mud:
        return mud_of(image, liquid > threshold, strength)
    return water_of(image, liquid, strength)


def mud_of(image: Image, places: NDArray[np.bool_], sigma: float) -> Image:
    """The image behind mud at these places (H, W)."""
    mud = gaussian_filter(places.astype(np.float32), sigma, mode="nearest")[..., None]
    mud[mud < 0.8] = 0
    return _bytes(image / 255 * (1 - mud) + MUD * mud)


def water_of(image: Image, liquid: Floats, strength: float) -> Image:
    """The image behind drops (H, W)."""
    drops = (liquid * 255).astype(np.int32).astype(np.uint8)
    shine = drops * rims(drops).astype(np.float32)
    if shine.any():
        shine *= strength / shine.max()
    return _bytes(image / 255 + shine[..., None] * WATER)


def rims(drops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light from the lower right at the rims of drops (H, W)."""
    away = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    away = cv2.threshold(away, 20, 20, cv2.THRESH_TRUNC)[1]
    even = cv2.equalizeHist(cv2.blur(away, (3, 3)).astype(np.uint8))
    return cv2.blur(cv2.filter2D(even, cv2.CV_8U, EMBOSS), (3, 3))


REFERENCE: dict[str, Callable[[Image, Level, np.random.Generator], Image]] = {
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "spatter": spatter,
}
