"""Random resized crops out of whole photos, each of a shape of its own, before anything is batched.

Paper: Szegedy et al. 2015, Going Deeper with Convolutions (arXiv 1409.4842), section 6: an area
uniform in a range of shares of the image, an aspect ratio between 3/4 and 4/3. As in torchvision
and timm the ratio is log-uniform, ten boxes are tried, and where none fits it is the center at the
nearest ratio. Resized bilinearly and antialiased in 8 bits, as Pillow does it, from a JPEG that was
decoded at a scale of at least the canvas.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutelage.data.draws import rand

ATTEMPTS = 10
ASPECT = 4 / 3  # width over height, at most; and at least one over it

Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Cropped:
    """What was cut out of photos, for a view to go on with."""

    pixels: Tensor  # (B, 3, S, S) uint8


@dataclass(frozen=True)
class Cut:
    """Where one view cuts its images, drawn before they are decoded."""

    size: int  # pixels, side of the crop in the end
    min_area: float  # smallest share of the image
    draws: list[list[list[float]]]  # (B, 4, ATTEMPTS) in [0, 1): area, aspect, top, left
    mirrored: list[bool]  # (B,)

    def of(self, row: int, image: NDArray[np.uint8]) -> Tensor:
        """The crop (3, size, size) uint8 of the batch's image `row`, given whole (H, W, 3)."""
        high, wide = image.shape[:2]
        top, left, rows, columns = box(high, wide, self.draws[row], min_area=self.min_area)
        part = np.ascontiguousarray(image[top : top + rows, left : left + columns])
        pixels = torch.from_numpy(part).permute(2, 0, 1)
        if (rows, columns) != (self.size, self.size):
            shape = (self.size, self.size)
            pixels = functional.interpolate(pixels[None], shape, mode="bilinear", antialias=True)[0]
        return pixels.flip(-1) if self.mirrored[row] else pixels


def cut(
    count: int, generator: torch.Generator, *, size: int, min_area: float, flip: bool
) -> Cut:  # fmt: skip
    """Crops of so many photos."""
    draws = rand(count, 4, ATTEMPTS, generator=generator, dtype=torch.float64)
    mirrored = rand(count, generator=generator) < 0.5
    return Cut(size, min_area, draws.tolist(), (mirrored & flip).tolist())


def box(high: int, wide: int, draws: list[list[float]], *, min_area: float) -> Box:
    """A box inside an image of that shape; `draws` are (4, ATTEMPTS) in [0, 1)."""
    for area, aspect, top, left in zip(*draws, strict=True):
        pixels = (min_area + (1 - min_area) * area) * high * wide
        ratio = ASPECT ** (2 * aspect - 1)
        rows = max(1, round(math.sqrt(pixels / ratio)))
        columns = max(1, round(math.sqrt(pixels * ratio)))
        if rows <= high and columns <= wide:
            return int(top * (high - rows + 1)), int(left * (wide - columns + 1)), rows, columns
    rows, columns = min(high, round(wide * ASPECT)), min(wide, round(high * ASPECT))
    return (high - rows) // 2, (wide - columns) // 2, rows, columns
