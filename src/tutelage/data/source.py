"""Images as a source lists them: where they are, and for labeled ones, which class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """Image files, labeled or not. A class is its name; its number is its place in `classes`."""

    root: Path
    names: tuple[str, ...]  # relative to root, with forward slashes
    labels: tuple[int, ...] | None = None  # numbers in `classes`
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def paths(self) -> list[Path]:
        """Where the files are."""
        return [self.root / name for name in self.names]

    def keep(self, rows: Sequence[int]) -> "Images":
        """These rows alone, in this order."""
        labels = None if self.labels is None else tuple(self.labels[row] for row in rows)
        return replace(self, names=tuple(self.names[row] for row in rows), labels=labels)

    def label_tensor(self) -> Tensor:
        """Class numbers (N,) int64; a programmer's error for a pool."""
        assert self.labels is not None, "a pool has no labels"
        return torch.tensor(self.labels, dtype=torch.int64)

    def counts(self) -> list[int]:
        """Images of each class."""
        return torch.bincount(self.label_tensor(), minlength=len(self.classes)).tolist()
