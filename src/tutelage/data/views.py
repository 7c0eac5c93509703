"""Views: uint8 images on their canvas -> float images in [0, 1] at the stage's size.

A view is a pure function of (images, generator, stage, noise). A method names the views it wants;
`VIEWS` is the table of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.core import Stage, sent
from tutelage.data.autoaugment import autoaugment
from tutelage.data.crops import Cropped
from tutelage.data.draws import rand, randint
from tutelage.data.erasing import cutout, erase
from tutelage.data.operations import as_float
from tutelage.data.randaugment import randaugment
from tutelage.data.through_pillow import through_pillow
from tutelage.data.trivialaugment import trivialaugment
from tutelage.settings import Noise

# of squares (B, 3, C, C) uint8; those that crop, also of what was cut out of photos before
View = Callable[[Tensor | Cropped, torch.Generator, Stage, Noise], Tensor]


def plain(
    images: Tensor | Cropped, generator: torch.Generator, stage: Stage, noise: Noise
) -> Tensor:
    """The center at the stage's size, without any randomness: how a model is asked."""
    assert isinstance(images, Tensor), "the plain view is one of squares"
    return resized(center(images, stage.crop or stage.size), stage.size)


def center(images: Tensor, size: int) -> Tensor:
    """Center crop of uint8 (B, 3, H, W) where the canvas is larger, as float (B, 3, S, S)."""
    top, left = (max(0, (side - size) // 2) for side in images.shape[-2:])
    return resized(as_float(images[:, :, top : top + size, left : left + size]), size)


def resized(images: Tensor, size: int) -> Tensor:
    """Bilinear and antialiased to (B, 3, size, size); untouched where it fits."""
    shape = (size, size)
    if not len(images):  # which torch can't resize
        return images.new_empty(0, 3, *shape)
    if images.shape[-2:] == shape:
        return images
    return functional.interpolate(images, shape, mode="bilinear", antialias=True).clamp_(0, 1)


def weak(
    images: Tensor | Cropped, generator: torch.Generator, stage: Stage, noise: Noise
) -> Tensor:
    """Flip and crop: FixMatch's weak augmentation (arXiv 2001.07685, section 2.3)."""
    return as_float(_cropped(images, generator, stage, noise))


def strong(
    images: Tensor | Cropped, generator: torch.Generator, stage: Stage, noise: Noise
) -> Tensor:
    """Weak, then the policy, then random erasing, then Cutout."""
    cropped = _cropped(images, generator, stage, noise)
    floats = as_float(_by_policy(cropped, generator, stage, noise))
    floats = erase(floats, generator, prob=noise.erase, fill=noise.erase_fill)
    return cutout(floats, generator, side=stage.cutout)


def _cropped(
    images: Tensor | Cropped, generator: torch.Generator, stage: Stage, noise: Noise
) -> Tensor:
    """The weak view, still in uint8 where nothing was resampled: the policies work on that.

    The crop is that of the last stage: an earlier one shows the same in fewer pixels.
    """
    if isinstance(images, Cropped):
        return images.pixels
    if not len(images):
        return images.new_empty(0, 3, stage.size, stage.size)
    side = stage.crop or stage.size
    if noise.crop_for(side) != "pad":
        images = _resized_crop(images, generator, side, noise)
    else:
        images = _shifted(images, generator, side, noise)
    if images.shape[-2:] == (stage.size, stage.size):
        return images
    return resized(as_float(images), stage.size)


def _by_policy(images: Tensor, generator: torch.Generator, stage: Stage, noise: Noise) -> Tensor:
    """What `noise.policy` names; the magnitude belongs to RandAugment alone."""
    policy, _, rest = noise.policy.partition(":")
    if policy == "randaugment":
        if not stage.magnitude:
            return images
        return randaugment(
            images, generator, magnitude=stage.magnitude, num_ops=noise.num_ops,
            scale=noise.scale, op_prob=noise.op_prob, magnitude_std=noise.magnitude_std,
        )  # fmt: skip
    if policy == "autoaugment":
        return autoaugment(images, generator, policy=rest or "v0")
    if policy == "trivialaugment":
        return trivialaugment(images, generator)
    return through_pillow(images, generator, name=noise.policy)


def _shifted(images: Tensor, generator: torch.Generator, size: int, noise: Noise) -> Tensor:
    """Center crop, shifted by up to an eighth with reflected border, and flip."""
    b, c, h, w = images.shape
    rows, columns = (_window(b, side, size, generator) for side in (h, w))
    if noise.flip:
        flipped = rand(b, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    first = torch.arange(b)[:, None]
    rows = sent(first * h + rows, images.device)
    columns = sent(first * w + columns, images.device)
    # whole rows, then whole columns as rows: copies of blocks, and not of single pixels
    pixels = images.permute(0, 2, 3, 1).reshape(b * h, w * c).index_select(0, rows.view(-1))
    pixels = pixels.view(b, -1, w, c).permute(0, 2, 3, 1).reshape(b * w, -1)
    pixels = pixels.index_select(0, columns.view(-1)).view(b, -1, c, rows.shape[1])
    return pixels.permute(0, 2, 3, 1).contiguous()


def _window(count: int, length: int, size: int, generator: torch.Generator) -> Tensor:
    """Indices (count, min(size, length)) of the middle, shifted by up to an eighth of `length`."""
    reach, side = max(1, length // 8), min(size, length)
    shift = randint(-reach, reach + 1, (count, 1), generator=generator)
    return _reflect(torch.arange(side) + (length - side) // 2 + shift, length)


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
    area, aspect, x, y, flip = rand(5, b, generator=generator, axis=1)
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
    )
    grid = functional.affine_grid(
        sent(theta, images.device), [b, 3, size, size], align_corners=False
    )
    pixels = functional.grid_sample(
        as_float(images), grid, padding_mode="reflection", align_corners=False
    )
    return pixels.clamp_(0, 1)


VIEWS: dict[str, View] = {"plain": plain, "weak": weak, "strong": strong}
