"""Clouds of fog: heights by midpoint displacement on a square that repeats on all sides.

Paper: Fournier, Fussell and Carpenter 1982, Computer rendering of stochastic models (CACM 25.6), as
squares and diamonds in turn. Heights are linear in the noise, so the first steps, of few heights
each, are one product with a matrix.
"""

from functools import lru_cache

import torch
from torch import Tensor

ROUGHNESS = 100.0  # at the first step; its square is how far a height moves, either way
COARSE = 16  # side of what one product makes


def plasma(noise: Tensor, side: int, decay: float) -> Tensor:
    """Heights (B, side, side) from 0 to 1, of noise (B, side^2 - 1) from -1 to 1.

    The side is a power of two. The noise is used from its begin, step by step: that of the squares'
    centers, of the centers of their upper and of their left edges.
    """
    begin = min(COARSE, side)
    # in doubles, as the order of a product's sums depends on how many images there are; and on the
    # CPU, as not each device has doubles
    coarse = noise[:, : begin * begin - 1].cpu().double() @ _first_steps(begin, decay)
    heights = coarse.float().to(noise.device)
    heights = _finer(heights.view(-1, begin, begin), noise, side=side, decay=decay)
    heights -= heights.amin((1, 2), keepdim=True)
    return heights.div_(heights.amax((1, 2), keepdim=True))


@lru_cache(32)
def _first_steps(side: int, decay: float) -> Tensor:
    """What each number of noise adds to the heights: (side^2 - 1, side^2)."""
    each = torch.eye(side * side - 1, dtype=torch.float64)
    flat = each.new_zeros(len(each), 1, 1)
    return _finer(flat, each, side=side, decay=decay).flatten(1)


def _finer(heights: Tensor, noise: Tensor, *, side: int, decay: float) -> Tensor:
    """Heights (B, side, side) from those (B, n, n) of the steps before."""
    while (n := heights.shape[-1]) < side:
        moves = noise[:, n * n - 1 : 4 * n * n - 1].unflatten(1, (3, n, n))
        roughness = ROUGHNESS / decay ** (n.bit_length() - 1)
        heights = _between(heights, moves * roughness**2)
    return heights


def _between(corners: Tensor, moves: Tensor) -> Tensor:
    """Twice as many heights a side (B, 2n, 2n), from those (B, n, n) and moves (B, 3, n, n)."""
    count, n, _ = corners.shape
    finer = corners.new_empty(count, 2 * n, 2 * n)
    finer[:, ::2, ::2] = corners
    wide = torch.cat([corners, corners[..., :1]], 2)
    wide = torch.cat([wide, wide[:, :1]], 1)
    across = wide[..., :-1] + wide[..., 1:]
    along = wide[:, :-1, :-1] + wide[:, 1:, :-1]
    center, top, left = moves.unbind(1)
    center.add_(across[:, :-1] + across[:, 1:], alpha=0.25)
    finer[:, 1::2, 1::2] = center
    high = torch.cat([center[:, -1:], center], 1)
    across = across[:, :-1].add_(high[:, :-1]).add_(high[:, 1:])
    torch.add(top, across, alpha=0.25, out=finer[:, ::2, 1::2])
    wide = torch.cat([center[..., -1:], center], 2)
    along.add_(wide[..., :-1]).add_(wide[..., 1:])
    torch.add(left, along, alpha=0.25, out=finer[:, 1::2, ::2])
    return finer
