"""Pixels that take the place of their neighbors', as seen through glass with a rough surface.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. The authors' code goes from
the last pixel to the first and means to exchange each with a neighbor, but the neighbor's value is
gone when it is written back: each pixel takes the value that its neighbor has by then, and the
neighbor stays. These images are made the same way. Where a pixel's value comes from at last is
found for all pixels at once, by jumps along the chain of neighbors that double in length.
"""

import torch
from torch import Tensor

from tutelage.corruptions.blur import gaussian_blurred
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import SLACK, Level
from tutelage.data.operations import cut_off


def glass_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W): blurred, cut to whole levels, exchanged in passes, blurred again."""
    sigma, reach, passes = level[0], int(level[1]), int(level[2])
    height, width = images.shape[-2:]
    soft = gaussian_blurred(images, sigma)
    pixels = cut_off(soft.clamp_(0, 1).mul_(255).add_(SLACK)).float().div_(255).flatten(2)
    sides = max(height - 2 * reach, 0), max(width - 2 * reach, 0)
    for _ in range(passes):
        moves = draws.integers(-reach, reach, 2, *sides)
        origin = origins(moves, height, width, reach=reach)
        pixels = pixels.gather(2, origin[:, None].expand_as(pixels))
    return gaussian_blurred(pixels.view_as(images), sigma)


def origins(moves: Tensor, height: int, width: int, *, reach: int) -> Tensor:
    """The pixel (B, H * W) that each one's value comes from at last, counted along the rows.

    `moves` (B, 2, H - 2 reach, W - 2 reach) are rows down and columns right, from -reach to reach
    - 1, to the neighbor of each pixel from row and column reach + 1 on.
    """
    count = height * width
    pixels = torch.arange(count, device=moves.device).view(height, width)
    inner = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    targets = pixels.expand(len(moves), -1, -1).clone()
    targets[:, inner[0], inner[1]] += moves[:, 0] * width + moves[:, 1]
    settled = torch.zeros_like(pixels, dtype=torch.bool)
    settled[inner] = True  # those that take a value at all
    targets = targets.flatten(1)
    # the last pixel is the first to take: a neighbor behind it in the rows has taken already
    follows = settled.flatten().expand_as(targets).gather(1, targets)
    follows &= targets > pixels.flatten()
    jumps = torch.where(follows, targets, targets + count)  # from count on: the value itself
    while bool((jumps < count).any()):
        both = torch.cat([jumps, (pixels.flatten() + count).expand_as(jumps)], 1)
        jumps = both.gather(1, jumps)
    return jumps - count
