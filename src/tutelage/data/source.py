"""Where images come from, and images as a source lists them: their names, and their classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.issues import Issue
from tutelage.data.splits import split_name

Raw: TypeAlias = bytes | NDArray[np.uint8]  # an image file's bytes, or pixels (H, W[, 3])


@dataclass(frozen=True)
class Listing:
    """All rows of a source, before anything is split or left out."""

    names: tuple[str, ...]  # unique within the source
    labels: tuple[str, ...] | None = None  # class names; "": the source has none for the row
    splits: tuple[str, ...] | None = None  # as the source calls them; "": none
    groups: tuple[str, ...] | None = None  # rows of a group stay together; "": a group of its own
    classes: tuple[str, ...] = ()  # an order of its own, also of classes without rows
    issues: tuple[Issue, ...] = ()


class Source(ABC):
    """A place with images; each file of data/sources/ is one kind. Reading is safe in threads."""

    layout: ClassVar[str]  # what is expected there, as one line for a person

    def __init__(self, address: str) -> None:
        """Remember the address; nothing is read yet."""
        self.address = address

    @classmethod
    @abstractmethod
    def claims(cls, address: str) -> bool:
        """Whether the address is of this kind."""

    @abstractmethod
    def listing(self, part: str) -> Listing:
        """All rows; labels are read where the part is not the pool.

        Raises UsageError, with the expected layout, where there is nothing of this kind.
        """

    @abstractmethod
    def read(self, name: str) -> Raw:
        """One image; raises OSError where it is gone."""

    @abstractmethod
    def where(self, name: str) -> str:
        """The place of an image, for people: a path where there is one."""

    @abstractmethod
    def stamp(self, name: str) -> tuple[int, int]:
        """Bytes and time of change in ns of the file that holds the image.

        Raises FileNotFoundError where it is gone.
        """

    def holders(self, name: str) -> tuple[str, ...]:
        """Addresses of the files that `stamp` asks: images of the same ones have one stamp."""
        return (self.where(name),)

    def shards(self) -> tuple[str, ...]:
        """Names of the files that hold many images each, in order; none where there are no such."""
        return ()

    def splits_of_shards(self) -> tuple[str, ...] | None:
        """The split of each shard, as the source calls it; None where they have none."""
        return None

    def pool_shards(self) -> tuple[str, ...]:
        """The shards that a pool is made of: none of a validation or test split."""
        splits = self.splits_of_shards()
        if splits is None:
            return self.shards()
        both = zip(self.shards(), splits, strict=True)
        return tuple(shard for shard, split in both if split_name(split) not in ("val", "test"))

    def names_in(self, shard: str) -> tuple[str, ...]:
        """Names of a shard's images, in its order; the listing has them one shard after another."""
        raise NotImplementedError(f"{self.address} has no shards")


@dataclass(frozen=True)
class Images:
    """Images, labeled or not. A class is its name; its number is its place in `classes`."""

    source: Source
    names: tuple[str, ...]
    labels: tuple[int, ...] | None = None  # numbers in `classes`
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None  # "": a group of its own
    # (N, 2) bytes and times of change that the files must have when they are read; -1: any, as of
    # files elsewhere, for which the question takes as long as the image
    stamps: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def read(self, row: int) -> Raw:
        """An image's bytes or pixels; raises OSError where it is gone or another than before."""
        if self.stamps is not None and self.stamps[row, 0] >= 0:
            now = self.source.stamp(self.names[row])
            if now != tuple(self.stamps[row].tolist()):
                raise OSError("the file has changed since the command began")
        return self.source.read(self.names[row])

    def where(self, row: int) -> str:
        """The place of an image, for people."""
        return self.source.where(self.names[row])

    @property
    def places(self) -> list[str]:
        """The places of all images, for people."""
        return [self.source.where(name) for name in self.names]

    def keep(self, rows: Sequence[int]) -> "Images":
        """These rows alone, in this order."""
        labels = None if self.labels is None else tuple(self.labels[row] for row in rows)
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        names = tuple(self.names[row] for row in rows)
        stamps = None if self.stamps is None else self.stamps[np.asarray(rows, np.int64)]
        return replace(self, names=names, labels=labels, groups=groups, stamps=stamps)

    def label_tensor(self) -> Tensor:
        """Class numbers (N,) int64; a programmer's error for a pool."""
        assert self.labels is not None, "a pool has no labels"
        return torch.tensor(self.labels, dtype=torch.int64)

    def counts(self) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.label_tensor(), minlength=len(self.classes)).tolist()
