"""Random resized crops out of whole photos, each of a shape of its own, before anything is batched.

Paper: Szegedy et al. 2015, Going Deeper with Convolutions (arXiv 1409.4842), section 6: an area
uniform in a range of shares of the image, an aspect ratio between 3/4 and 4/3. As in torchvision
and timm the ratio is log-uniform, ten boxes are tried, and where none fits it is the center at the
nearest ratio. Resized bilinearly and antialiased in 8 bits, as Pillow does it, from a JPEG that was
decoded at a scale of at least the canvas.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

ATTEMPTS = 10
ASPECT = 4 / 3  # width over height, at most; and at least one over it


@dataclass(frozen=True)
class Photos:
    """Whole images on the CPU, and where their crops are to go."""

    images: Sequence[NDArray[np.uint8]]  # (H, W, 3), each of its own shape
    device: torch.device

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


def resized_crops(
    photos: Photos, generator: torch.Generator, *, size: int, min_area: float, flip: bool
) -> Tensor:
    """A crop of each photo, some of them mirrored: (B, 3, size, size) uint8 on their device."""
    shapes = torch.tensor([image.shape[:2] for image in photos.images]).view(-1, 2)
    found = boxes(shapes, generator, min_area=min_area).tolist()
    mirrored = (torch.rand(len(photos), generator=generator) < 0.5).tolist()
    cuda = photos.device.type == "cuda"
    made = torch.empty(len(photos), 3, size, size, dtype=torch.uint8, pin_memory=cuda)
    for row, (image, box) in enumerate(zip(photos.images, found, strict=True)):
        one = _resized(image, box, size)
        made[row] = one.flip(-1) if flip and mirrored[row] else one
    return made.to(photos.device, non_blocking=True)


def boxes(shapes: Tensor, generator: torch.Generator, *, min_area: float) -> Tensor:
    """(B, 4) int64, top, left, height and width, inside images of shapes (B, 2)."""
    area, aspect, top, left = torch.rand(
        4, ATTEMPTS, len(shapes), generator=generator, dtype=torch.float64
    )
    high, wide = shapes.T.double()
    area = (min_area + (1 - min_area) * area) * high * wide
    ratio = ((2 * aspect - 1) * math.log(ASPECT)).exp()
    rows = (area / ratio).sqrt().round().clamp(min=1)
    columns = (area * ratio).sqrt().round().clamp(min=1)
    fits = (rows <= high) & (columns <= wide)
    top, left = (top * (high - rows + 1)).floor(), (left * (wide - columns + 1)).floor()
    tried = torch.stack([top, left, rows, columns], -1)
    first = fits.int().argmax(0).view(1, -1, 1).expand(1, -1, 4)
    chosen = tried.gather(0, first)[0]
    return torch.where(fits.any(0)[:, None], chosen, _center(high, wide)).long()


def _center(high: Tensor, wide: Tensor) -> Tensor:
    """The largest box (B, 4) in the middle whose ratio is in range."""
    rows = torch.minimum(high, (wide * ASPECT).round().clamp(min=1))
    columns = torch.minimum(wide, (high * ASPECT).round().clamp(min=1))
    return torch.stack([(high - rows) // 2, (wide - columns) // 2, rows, columns], -1)


def _resized(image: NDArray[np.uint8], box: Sequence[int], size: int) -> Tensor:
    """A box of an image as (3, size, size) uint8."""
    top, left, rows, columns = box
    part = np.ascontiguousarray(image[top : top + rows, left : left + columns])
    pixels = torch.from_numpy(part).permute(2, 0, 1)
    if (rows, columns) == (size, size):
        return pixels
    shape = (size, size)
    return functional.interpolate(pixels[None], shape, mode="bilinear", antialias=True)[0]
