"""Random numbers for each image of a batch, of which this process may make a part alone.

What is drawn for an image must not depend on how many processes share the batch. So each draws for
the whole batch, which costs next to nothing, and keeps what belongs to its part.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Dice, fold
from tutelage.distributed.collectives import part_of


class OfBatch(torch.Generator):
    """A generator of the draws for a whole batch; those below keep a part of them."""

    total: int  # images of the batch
    part: slice  # of them, those of this process


def of_batch(seed: int, use: Dice, step: int, *, total: int) -> OfBatch:
    """The generator for one use at one step, for this process's part of `total` images."""
    made = OfBatch()
    made.manual_seed(fold(seed, use, step))
    made.total, made.part = total, part_of(total)
    return made


def whole(generator: torch.Generator, count: int) -> tuple[int, slice]:
    """Images of the whole batch, and which of them are the `count` images of this process."""
    if isinstance(generator, OfBatch):
        return generator.total, generator.part
    return count, slice(0, count)


def rand(*shape: int, generator: torch.Generator, axis: int = 0, **more: Any) -> Tensor:
    """torch.rand of a shape whose `axis` counts this process's images."""
    return _drawn(
        lambda size: torch.rand(size, generator=generator, **more), shape, generator, axis
    )


def randn(*shape: int, generator: torch.Generator, axis: int = 0) -> Tensor:
    """torch.randn of a shape whose `axis` counts this process's images."""
    return _drawn(lambda size: torch.randn(size, generator=generator), shape, generator, axis)


def randint(
    low: int, high: int, shape: tuple[int, ...], *, generator: torch.Generator, axis: int = 0
) -> Tensor:
    """torch.randint of a shape whose `axis` counts this process's images."""
    return _drawn(
        lambda size: torch.randint(low, high, size, generator=generator), shape, generator, axis
    )


def _drawn(
    draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...],
    generator: torch.Generator, axis: int,
) -> Tensor:  # fmt: skip
    """The part of what is drawn for the whole batch."""
    total, part = whole(generator, shape[axis])
    found = draw((*shape[:axis], total, *shape[axis + 1 :]))
    return found.narrow(axis, part.start, shape[axis])
