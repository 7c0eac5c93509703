"""Linear maps along the two sides of images, such as blurs and resizes, as blocks of matrices.

Each output pixel depends on input pixels nearby, so the matrix of a side has a narrow band; its
blocks are products that any device is fast at, and what happens at the edges is in the matrix.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 32  # output pixels at once: the fastest of 28 to 224 on a CPU (November 2026)


@dataclass(frozen=True)
class Block:
    """Some neighboring output pixels, and the input pixels that they depend on."""

    outputs: slice
    inputs: slice
    weights: Tensor  # (outputs, inputs) float32


Banded = tuple[Block, ...]


def banded(matrix: NDArray[np.float64]) -> Banded:
    """The blocks of a matrix (outputs, inputs) in which each output depends on something."""
    blocks = []
    for start in range(0, len(matrix), BLOCK):
        part = matrix[start : start + BLOCK]
        used = np.flatnonzero(part.any(axis=0))
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        weights = torch.from_numpy(part[:, inputs].astype(np.float32))
        blocks.append(Block(slice(start, start + len(part)), inputs, weights))
    return tuple(blocks)


def mapped(images: Tensor, down: Banded, across: Banded) -> Tensor:
    """Images (B, C, H, W) with the first map along H and the second along W."""
    *counts, height, width = images.shape
    lines = images.reshape(-1, width)
    wide = lines.new_empty(len(lines), across[-1].outputs.stop)
    for block in across:
        weights = block.weights.to(images.device)
        torch.mm(lines[:, block.inputs], weights.T, out=wide[:, block.outputs])
    planes = wide.view(-1, height, wide.shape[1])
    done = planes.new_empty(len(planes), down[-1].outputs.stop, planes.shape[2])
    for block in down:
        weights = block.weights.to(images.device)
        done[:, block.outputs] = torch.matmul(weights, planes[:, block.inputs])
    return done.view(*counts, *done.shape[1:])
