"""RandAugment on whole batches: per-image operations and strengths, vectorized by operation.

Paper: Cubuk et al. 2020, RandAugment (arXiv 1909.13719), section 3: N operations drawn uniformly
with replacement, one shared magnitude M, each always applied. Magnitudes are on the 0-10 scale of
the reference code. Deviations: the geometric operations interpolate bilinearly and fill with gray;
Invert is left out, as FixMatch (arXiv 2001.07685, table 12) does, and Identity is in; Cutout is a
view of its own (`cutout`), so that its size doesn't hang on the magnitude; Posterize and Solarize
grow stronger with the magnitude, where the reference code has them grow weaker.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Operation = Callable[[Tensor, Tensor], Tensor]  # images (B, 3, H, W), signed level (B,) in [-1, 1]

GRAY = 0.5  # fill of what a geometric operation uncovers


def _column(level: Tensor) -> Tensor:
    return level[:, None, None, None]


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Pillow's enhance: factor 0 gives `other`, 1 the image, above 1 goes beyond it."""
    return torch.lerp(other, images, _column(factor)).clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    """ITU-R 601 gray (B, 1, H, W), as Pillow's mode L."""
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _warp(images: Tensor, rows: list[list[Tensor]]) -> Tensor:
    """Resample at matrix * (x, y, 1) in normalized coordinates; outside is gray."""
    theta = torch.stack([torch.stack(row, -1) for row in rows], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    shifted = functional.grid_sample(images - GRAY, grid, align_corners=False)
    return shifted.add_(GRAY).clamp_(0, 1)


def identity(images: Tensor, level: Tensor) -> Tensor:
    """The images as they are."""
    return images


def rotate(images: Tensor, level: Tensor) -> Tensor:
    """Rotation by up to 30 degrees."""
    angle = level * math.radians(30)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _warp(images, [[cos, -sin, zero], [sin, cos, zero]])


def shear_x(images: Tensor, level: Tensor) -> Tensor:
    """Horizontal shear by up to 0.3."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [[one, 0.3 * level, zero], [zero, one, zero]])


def shear_y(images: Tensor, level: Tensor) -> Tensor:
    """Vertical shear by up to 0.3."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [[one, zero, zero], [0.3 * level, one, zero]])


def translate_x(images: Tensor, level: Tensor) -> Tensor:
    """Horizontal shift by up to 0.3 of the width."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [[one, zero, 0.6 * level], [zero, one, zero]])


def translate_y(images: Tensor, level: Tensor) -> Tensor:
    """Vertical shift by up to 0.3 of the height."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    return _warp(images, [[one, zero, zero], [zero, one, 0.6 * level]])


def brightness(images: Tensor, level: Tensor) -> Tensor:
    """Blend with black, factor 0.1 to 1.9."""
    return _blend(images, torch.zeros_like(images), 1 + 0.9 * level)


def contrast(images: Tensor, level: Tensor) -> Tensor:
    """Blend with the image's mean gray, factor 0.1 to 1.9."""
    mean = _luma(images).mean((2, 3), keepdim=True)
    return _blend(images, mean.expand_as(images), 1 + 0.9 * level)


def color(images: Tensor, level: Tensor) -> Tensor:
    """Blend with the gray image, factor 0.1 to 1.9."""
    return _blend(images, _luma(images).expand_as(images), 1 + 0.9 * level)


def sharpness(images: Tensor, level: Tensor) -> Tensor:
    """Blend with Pillow's SMOOTH filter, factor 0.1 to 1.9; the border stays."""
    if min(images.shape[-2:]) < 3:
        return images
    kernel = images.new_tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    soft = images.clone()
    smoothed = functional.conv2d(images, kernel.expand(3, 1, 3, 3), groups=3)
    soft[:, :, 1:-1, 1:-1] = smoothed
    return _blend(images, soft, 1 + 0.9 * level)


def posterize(images: Tensor, level: Tensor) -> Tensor:
    """Keep 8 bits at level 0 down to 4 at level 1."""
    step = _column(2.0 ** (4 * level.abs()).round())  # gray levels that fall together
    return (((images * 255).round() / step).floor() * step / 255).clamp_(0, 1)


def solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert what reaches a threshold that falls from 256, above all gray levels, to 0."""
    above = (images * 255).round() >= _column(256 * (1 - level.abs()))
    return torch.where(above, 1 - images, images)


def autocontrast(images: Tensor, level: Tensor) -> Tensor:
    """Stretch each channel to the full range, as Pillow does; flat channels stay."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high - low < 0.5 / 255  # half a gray level: rounding error, not contrast
    return torch.where(flat, images, (images - low) / (high - low).clamp(min=1e-6)).clamp_(0, 1)


def equalize(images: Tensor, level: Tensor) -> Tensor:
    """Flatten each channel's histogram, with Pillow's integer rule."""
    b, c, h, w = images.shape
    flat = (images * 255).round().long().reshape(b * c, h * w)
    histogram = torch.zeros(b * c, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, flat, torch.ones_like(flat))
    last = histogram.gather(1, flat.amax(1, keepdim=True))  # pixels in the brightest used bin
    step = (h * w - last).div(255, rounding_mode="floor")
    before = histogram.cumsum(1) - histogram
    table = (before + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return (table.gather(1, flat).reshape(b, c, h, w) / 255).to(images.dtype)


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}


def randaugment(
    images: Tensor, generator: torch.Generator, *, magnitude: float, num_ops: int = 2
) -> Tensor:
    """`num_ops` random operations an image at strength magnitude / 10: (B, 3, H, W) in [0, 1].

    Each image draws its own operations and signs. The result depends on the generator alone.
    """
    b = len(images)
    operations = list(OPERATIONS.values())
    drawn = torch.randint(len(operations), (num_ops, b), generator=generator)
    signs = torch.randint(2, (num_ops, b), generator=generator) * 2 - 1
    levels = (signs * (magnitude / 10)).to(images.device, images.dtype)
    images = images.clone()
    for choice, level in zip(drawn, levels, strict=True):
        for index, operation in enumerate(operations):
            rows = (choice == index).nonzero()[:, 0].to(images.device)
            if len(rows) and operation is not identity:
                images[rows] = operation(images[rows], level[rows])
    return images


def cutout(images: Tensor, generator: torch.Generator, *, side: float) -> Tensor:
    """A gray square at a uniform center, `side` of the image's side: (B, 3, H, W).

    Paper: DeVries and Taylor 2017 (arXiv 1708.04552): the square is clipped at the border.
    """
    b, _, h, w = images.shape
    if not side:
        return images
    center = torch.rand(2, b, generator=generator).to(images.device)
    rows = (torch.arange(h, device=images.device) + 0.5)[None] / h - center[0][:, None]
    columns = (torch.arange(w, device=images.device) + 0.5)[None] / w - center[1][:, None]
    inside = (rows.abs() <= side / 2)[:, None, :, None] & (columns.abs() <= side / 2)[:, None, None]
    return images.masked_fill(inside, GRAY)
