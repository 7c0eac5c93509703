"""Views: uint8 images on their canvas -> float images in [0, 1] at the stage's size.

A view is a pure function of (images, generator, stage, noise). A method names the views it wants;
`VIEWS` is the table of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.core import Stage
from tutelage.data.randaugment import cutout, randaugment
from tutelage.settings import Noise

View = Callable[[Tensor, torch.Generator, Stage, Noise], Tensor]


def as_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [0, 1]."""
    return images.float().div_(255)


def plain(images: Tensor, generator: torch.Generator, stage: Stage, noise: Noise) -> Tensor:
    """The center at the stage's size, without any randomness: how a model is asked."""
    return center(images, stage.size)


def center(images: Tensor, size: int) -> Tensor:
    """Center crop of uint8 (B, 3, C, C) where the canvas is larger, as float (B, 3, S, S)."""
    top = max(0, (images.shape[-1] - size) // 2)
    images = as_float(images[:, :, top : top + size, top : top + size])
    return resized(images, size)


def resized(images: Tensor, size: int) -> Tensor:
    """Bilinear and antialiased to (B, 3, size, size); untouched where it fits."""
    if images.shape[-1] == size:
        return images
    shape = (size, size)
    return functional.interpolate(images, shape, mode="bilinear", antialias=True).clamp_(0, 1)


def weak(images: Tensor, generator: torch.Generator, stage: Stage, noise: Noise) -> Tensor:
    """Flip and crop: FixMatch's weak augmentation (arXiv 2001.07685, section 2.3)."""
    if noise.crop_for(stage.size) == "pad":
        return resized(as_float(_shifted(images, generator, stage.size, noise)), stage.size)
    return _resized_crop(images, generator, stage.size, noise)


def strong(images: Tensor, generator: torch.Generator, stage: Stage, noise: Noise) -> Tensor:
    """Weak, then RandAugment, then Cutout."""
    images = weak(images, generator, stage, noise)
    if stage.magnitude:
        images = randaugment(images, generator, magnitude=stage.magnitude, num_ops=noise.num_ops)
    return cutout(images, generator, side=stage.cutout)


def _shifted(images: Tensor, generator: torch.Generator, size: int, noise: Noise) -> Tensor:
    """Center crop, shifted by up to an eighth with reflected border, and flip: one gather."""
    b, _, h, w = images.shape
    reach = max(1, h // 8)
    side = min(size, h)
    window = torch.arange(side) + (h - side) // 2
    shift = torch.randint(-reach, reach + 1, (2, b, 1), generator=generator)
    rows = _reflect(window + shift[0], h)
    columns = _reflect(window + shift[1], w)
    if noise.flip:
        flipped = torch.rand(b, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    image = torch.arange(b, device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)


def _reflect(index: Tensor, length: int) -> Tensor:
    """Mirror indices at both ends without repeating the edge."""
    index = index.abs()
    return torch.where(index >= length, 2 * (length - 1) - index, index).clamp_(0, length - 1)


def _resized_crop(images: Tensor, generator: torch.Generator, size: int, noise: Noise) -> Tensor:
    """Random resized crop (Szegedy et al. 2014) and flip, by one bilinear resampling.

    Area uniform in [noise.min_area, 1], aspect ratio log-uniform in [3/4, 4/3], clipped to the
    canvas.
    """
    b = len(images)
    area, aspect, x, y, flip = torch.rand(5, b, generator=generator)
    side = (noise.min_area + (1 - noise.min_area) * area).sqrt()
    ratio = torch.exp((2 * aspect - 1) * 0.5 * torch.log(torch.tensor(4 / 3)))
    width, height = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    sign = torch.where(flip < 0.5, -1.0, 1.0) if noise.flip else torch.ones(b)
    zero = torch.zeros(b)
    theta = torch.stack(
        [
            torch.stack([width * sign, zero, (2 * x - 1) * (1 - width)], -1),
            torch.stack([zero, height, (2 * y - 1) * (1 - height)], -1),
        ],
        1,
    ).to(images.device)
    grid = functional.affine_grid(theta, [b, 3, size, size], align_corners=False)
    pixels = functional.grid_sample(
        as_float(images), grid, padding_mode="reflection", align_corners=False
    )
    return pixels.clamp_(0, 1)


VIEWS: dict[str, View] = {"plain": plain, "weak": weak, "strong": strong}
