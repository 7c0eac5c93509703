"""Room for large batches on the CPU that is used again once nobody holds the batch any more.

The system hands out new memory page by page, and clearing those of a batch of photos takes longer
than filling them: with 64 images of 224 px it took a quarter of the loader's time.
"""

import weakref
from collections import deque
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGE = 2**20  # bytes, above which it matters
SPARE = 4  # free blocks kept of a size
SIZES = 8  # sizes that are remembered: the last ones
ALIGNED = 64  # bytes

Block = NDArray[np.uint8]


class Buffers:
    """Blocks that wait for their next use; safe in threads, as each of the calls is atomic."""

    def __init__(self) -> None:
        """Begin with none."""
        self.free: dict[int, deque[Block]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with any content; its block comes back when the last view of it is gone."""
        size = int(np.prod(shape)) * dtype.itemsize
        if size < LARGE:
            return torch.empty(shape, dtype=dtype)
        try:
            block = self.free[size].pop()
        except (KeyError, IndexError):
            block = np.empty(size + ALIGNED, np.uint8)
        start = -block.ctypes.data % ALIGNED
        part = block[start : start + size]
        weakref.finalize(part, self._back, size, block).atexit = False
        return torch.from_numpy(part).view(dtype).view(shape)

    def _back(self, size: int, block: Block) -> None:
        """Nobody holds the block any more."""
        if size not in self.free and len(self.free) >= SIZES:
            self.free.pop(next(iter(list(self.free))), None)
        self.free.setdefault(size, deque(maxlen=SPARE)).append(block)


@cache
def _buffers() -> Buffers:
    return Buffers()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A CPU tensor with any content, in memory that was used before where there is some."""
    return _buffers().empty(shape, dtype)
