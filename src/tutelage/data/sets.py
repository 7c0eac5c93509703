"""The images that a training draws from: which of them come, in which order, with which targets."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from tutelage.core import Dice, generator, sent
from tutelage.data.pixels import InMemory, Pixels
from tutelage.data.pool import StoredTargets
from tutelage.distributed.collectives import part_of
from tutelage.errors import UsageError
from tutelage.targets import one_hot


@dataclass(frozen=True)
class LabeledSet:
    """Images with labels; targets (N, K) of many images and classes would fill the memory."""

    pixels: Pixels
    labels: Tensor  # (N,) int64, class numbers
    num_classes: int

    def __post_init__(self) -> None:
        """Reject sets that don't match."""
        if len(self.pixels) != len(self.labels) or not len(self.labels):
            raise UsageError(
                f"{len(self.pixels)} images with {len(self.labels)} labels: give one label an image"
            )

    def targets(self, rows: Tensor) -> Tensor:
        """Targets (B, K) float32 of these rows (B,), where the labels are."""
        return one_hot(self.labels[sent(rows, self.labels.device)], self.num_classes)


@dataclass(frozen=True)
class Drawn:
    """Pool images of a batch, before any view is made of them."""

    rows: Tensor  # (U,) int64
    pixels: Pixels  # what the images are decoded from,
    places: Tensor  # (U,) int64, and their rows there
    targets: Tensor | None  # (U, K) float32


class Pool(Protocol):
    """Unlabeled images in the order of a training; a draw depends on its arguments alone."""

    @property
    def in_memory(self) -> bool:
        """Whether images are at hand, so that nothing is won by drawing ahead."""

    def __len__(self) -> int:
        """Images of the whole pool, used or not."""

    def draw(self, start: int, count: int, *, seed: int) -> Drawn:
        """This process's part of `count` images after `start` earlier ones."""


@dataclass(frozen=True)
class PoolSet:
    """Pool images to train on, with how often each comes in an epoch."""

    pixels: Pixels  # the whole pool
    rows: Tensor  # (M,) int64, the pool's rows in use
    copies: Tensor  # (M,) int64, at least 1
    targets: StoredTargets | None = None  # of the rows in use

    def __post_init__(self) -> None:
        """Reject an empty selection."""
        if not len(self.rows):
            raise UsageError("no pool image was selected: select anew, with a lower threshold")

    def __len__(self) -> int:
        """Images of the whole pool, used or not."""
        return len(self.pixels)

    @property
    def in_memory(self) -> bool:
        """Whether the images are decoded already."""
        return isinstance(self.pixels, InMemory)

    @cached_property
    def entries(self) -> Tensor:
        """Each row in use as often as its copies, by its place among them (E,)."""
        return torch.repeat_interleave(torch.arange(len(self.rows)), self.copies)

    def draw(self, start: int, count: int, *, seed: int) -> Drawn:
        """The part of `count` images after `start` earlier ones; each epoch is a new order."""
        order = positions(start, count, len(self.entries), seed=seed, use=Dice.POOL_ORDER)
        entries = self.entries[order[part_of(count)]]
        rows = self.rows[entries]
        targets = None if self.targets is None else self.targets.at(entries)
        return Drawn(rows, self.pixels, rows, targets)


@lru_cache(maxsize=8)
def _permutation(length: int, seed: int, use: Dice, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator(seed, use, epoch))


def positions(
    start: int, count: int, length: int, *, seed: int, use: Dice, repeats: int = 1
) -> Tensor:
    """Indices (count,) into a set of `length`, after `start` earlier ones: each epoch is a new
    permutation of all of it.

    With repeated augmentation (Hoffer et al. 2020, arXiv 1901.09335) each index comes `repeats`
    times. The copies stand apart, as neighbors are mixed with each other.
    """
    index = torch.arange(start, start + count)
    apart = torch.argsort(index % repeats, stable=True)
    index = index // repeats
    epochs = index // length
    parts = [
        _permutation(length, seed, use, epoch)[index[epochs == epoch] % length]
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return torch.cat(parts)[apart]
