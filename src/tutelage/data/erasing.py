"""Parts of images taken away: Cutout and random erasing.

Papers: DeVries and Taylor 2017, Cutout (arXiv 1708.04552); Zhong et al. 2017, Random Erasing
(arXiv 1708.04896), algorithm 1, with timm's numbers: area 2 % to a third, aspect ratio log-uniform
from 0.3 to 1 / 0.3, 10 attempts, each probability for itself. Labels stay. Different from timm: the
images are not normalized yet, so noise is uniform in [0, 1], the paper's choice, and not normal;
`gray` is the middle of the range and not the mean of a data set.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tutelage.core import sent
from tutelage.data.draws import rand, whole
from tutelage.data.operations import around, as_bytes, as_float

GRAY = 0.5  # of images in [0, 1]
AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height over width
ATTEMPTS = 10


def cutout(images: Tensor, generator: torch.Generator, *, side: float) -> Tensor:
    """A gray square at a uniform center, `side` of the image's side: (B, 3, H, W)."""
    if not side:
        return images
    if images.dtype == torch.uint8:
        return as_bytes(cutout(as_float(images), generator, side=side))
    center = rand(2, len(images), generator=generator, axis=1).T
    sides = torch.full((len(images),), side)
    inside = around(sent(center, images.device), sent(sides, images.device), images.shape)
    return images.masked_fill(inside, GRAY)


def boxes(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """(count, 4) int64: top, left, height, width; 0 by 0 where no attempt fits in the image."""
    area, aspect, top, left = torch.rand(4, ATTEMPTS, count, generator=generator)
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * height * width
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    ratio = (low + (high - low) * aspect).exp()
    rows, columns = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (rows < height) & (columns < width)
    first = fits.int().argmax(0, keepdim=True)
    top, left = (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor()
    found = torch.stack([top, left, rows, columns], -1)
    found = found.gather(0, first[..., None].expand(1, count, 4))[0].long()
    return found * fits.any(0)[:, None]


def erase(
    images: Tensor, generator: torch.Generator, *, prob: float,
    fill: Literal["noise", "color", "gray"] = "noise",
) -> Tensor:  # fmt: skip
    """A rectangle filled, with probability `prob` an image: (B, 3, H, W), [0, 1] or uint8.

    noise: each value at random; color: one random color; gray: the middle of the range.
    """
    if not prob:
        return images
    if images.dtype == torch.uint8:
        return as_bytes(erase(as_float(images), generator, prob=prob, fill=fill))
    b, c, h, w = images.shape
    total, part = whole(generator, b)
    rows = (torch.rand(total, generator=generator) < prob).nonzero()[:, 0]
    box = boxes(len(rows), h, w, generator)
    new = _fills(len(rows), (c, h, w), generator, fill)
    own = ((rows >= part.start) & (rows < part.stop)).nonzero()[:, 0]
    rows = sent(rows[own] - part.start, images.device)
    top, left, height, width = sent(box[own], images.device).T[..., None]
    y, x = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    inside = ((y >= top) & (y < top + height))[:, :, None]
    inside = inside & ((x >= left) & (x < left + width))[:, None]
    if not len(own):
        return images
    filled = sent(torch.stack([new(int(one)) for one in own]), images.device).to(images.dtype)
    return images.index_copy(0, rows, torch.where(inside[:, None], filled, images[rows]))


def _fills(
    count: int, shape: tuple[int, ...], generator: torch.Generator, fill: str
) -> Callable[[int], Tensor]:
    """What each of `count` rectangles is filled with: a number -> (C, H, W) or (C, 1, 1).

    Noise is as large as the images, so that only what is asked for is drawn.
    """
    if fill == "gray":
        return lambda number: torch.full((shape[0], 1, 1), GRAY)
    if fill == "color":
        colors = torch.rand(count, shape[0], 1, 1, generator=generator)
        return lambda number: colors[number]
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return lambda number: torch.rand(shape, generator=torch.Generator().manual_seed(seeds[number]))
