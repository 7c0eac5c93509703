"""Entries of a pool in shards: where their images lie, what their labels are, and their pixels."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import sent
from tutelage.data import storage
from tutelage.data.decode import decode, whole
from tutelage.data.pixels import Decoder, WhenAsked, unreadable
from tutelage.data.shard_labels import Parts
from tutelage.data.source import Raw
from tutelage.data.sources.webdataset import WebDataset
from tutelage.errors import UsageError


@dataclass(frozen=True)
class ShardedPool:
    """A pool in shards with its labels, as a recipe may draw from it."""

    source: WebDataset
    parts: Parts
    entries: NDArray[np.int64]  # (S,) of each shard; 0: it is not read
    sums: NDArray[np.int64]  # (S,) checksums of labels and copies when the run began
    numbers: NDArray[np.int64]  # class number of the labels -> that of the student
    num_images: int  # in all shards
    soft: bool = True  # targets are the teacher's probabilities, else its surest class
    temperature: float = 1.0  # of soft targets

    def __post_init__(self) -> None:
        """Reject an empty selection."""
        if not self.entries.sum():
            raise UsageError("no pool image was selected: select anew, with a lower threshold")


@dataclass(frozen=True)
class Entries:
    """Images by their place, each as often as it is drawn, with their labels."""

    shards: NDArray[np.int32]  # (E,) numbers
    offsets: NDArray[np.int64]  # (E,) bytes
    sizes: NDArray[np.int64]  # (E,) bytes
    rows: NDArray[np.int64]  # (E,) ids
    top_classes: NDArray[np.int64]  # (E, k)
    top_probs: NDArray[np.float16]  # (E, k)

    def at(self, index: Any) -> "Entries":
        """Some of the entries, in that order."""
        return Entries(*(values[index] for values in vars(self).values()))


def joined(several: list[Entries]) -> Entries:
    """Entries one after the other."""
    columns = zip(*(vars(one).values() for one in several), strict=True)
    return Entries(*(np.concatenate(column) for column in columns))


class EntryPixels(WhenAsked):
    """The images of some entries, of which none is kept."""

    def __init__(
        self, pool: ShardedPool, entries: Entries, *, canvas: int, device: torch.device,
        threads: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        """Nothing is read yet."""
        super().__init__(canvas, device, threads)
        self.pool, self.entries = pool, entries

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.entries.rows)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of entries (B,).

        Raises DataProblem, naming shard and member, for an image that can't be read.
        """
        images = list(self.threads.map(self._square, rows.tolist()))
        return sent(torch.from_numpy(np.stack(images)), self.device).permute(0, 3, 1, 2)

    def read(self, index: int) -> Raw:
        """The bytes of one entry's image."""
        entries, source = self.entries, self.pool.source
        address = storage.join(source.root, source.pool_shards()[entries.shards[index]])
        return storage.read_range(address, int(entries.offsets[index]), int(entries.sizes[index]))

    def where(self, index: int) -> str:
        """The place of an entry's image, for people."""
        row = int(self.entries.rows[index])
        name = self.pool.parts.name(row >> 32, row & 0xFFFFFFFF)
        return self.pool.source.where(name)

    def whole(self, row: int, least: int) -> NDArray[np.uint8]:
        """One whole image (H, W, 3)."""
        return self._decoded(row, least, whole)

    def _square(self, row: int) -> NDArray[np.uint8]:
        """One image at a square canvas (C, C, 3)."""
        return self._decoded(row, self.canvas, decode)

    def _decoded(self, row: int, side: int, by: Decoder) -> NDArray[np.uint8]:
        """One image by a decoder."""
        try:
            return by(self.read(row), side)
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
            raise unreadable(self.where(row), error) from error
