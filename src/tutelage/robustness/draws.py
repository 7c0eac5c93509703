"""Random numbers for a batch, each image's from a generator of its own.

So a corrupted image depends on the seed, its name and the corruption, and not on its batch, on the
device or on how many threads work.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from os import cpu_count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.buffers import empty


class Draws:
    """What is drawn for the images of a batch, one draw after another."""

    def __init__(self, keys: Sequence[str], device: torch.device) -> None:
        """A generator for each key, such as 'seed/name of the image/corruption/severity'."""
        self.generators = [np.random.Generator(np.random.SFC64(_seed(key))) for key in keys]
        self.device = device

    def __len__(self) -> int:
        """Number of images B."""
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers (B, *shape) float32."""
        return self.fill(
            shape, lambda dice, room, _: dice.standard_normal(out=room, dtype=np.float32)
        )

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers (B, *shape) float32 from low to high."""
        unit = self.fill(shape, lambda dice, room, _: dice.random(out=room, dtype=np.float32))
        return unit.mul_(high - low).add_(low)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers (B, *shape) int64 from low to high - 1."""
        drawn = [dice.integers(low, high, size=shape) for dice in self.generators]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def poisson(self, rates: Tensor) -> Tensor:
        """Counts (B, ...) float32 with these expectations (B, ...)."""
        expected = rates.cpu().numpy()

        def fill(dice: np.random.Generator, room: NDArray[np.float32], row: int) -> None:
            room[...] = dice.poisson(expected[row])

        return self.fill(tuple(rates.shape[1:]), fill)

    def fill(
        self,
        shape: tuple[int, ...],
        draw: Callable[[np.random.Generator, NDArray[np.float32], int], object],
    ) -> Tensor:
        """(B, *shape) float32: `draw` fills each image's part from its generator, in threads."""
        room = empty((len(self), *shape), torch.float32)
        parts = room.numpy()

        def one(row: int) -> None:
            draw(self.generators[row], parts[row], row)

        for _ in threads().map(one, range(len(self))):
            pass
        return room.to(self.device)


def _seed(key: str) -> int:
    """A seed that depends on the whole key."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


@cache
def threads() -> ThreadPoolExecutor:
    """Those that work on single images."""
    return ThreadPoolExecutor(cpu_count() or 1)
