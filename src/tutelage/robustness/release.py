"""What a release of corrupted images is, however it lies on a disk."""

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from torch import Tensor

from tutelage.robustness.asking import Load, Unreadable
from tutelage.robustness.matching import Match, matched

At: TypeAlias = tuple[str, int]  # a corruption and its severity


class CorruptedRelease(ABC):
    """N images under several corruptions. Subclasses are frozen dataclasses of their address."""

    address: str

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, for people."""

    @abstractmethod
    def cases(self) -> tuple[At, ...]:
        """Those that are there, in order; quick. Raises UsageError where there is none."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; raises DataProblem where the images are not as published."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """Class numbers (N,) int64, in `classes`."""

    @property
    @abstractmethod
    def marks(self) -> dict[str, object]:
        """What tells these images from others, as plain values."""

    @abstractmethod
    def mark(self, at: At, rows: Tensor) -> str:
        """A digest that tells a case's files from others."""

    @property
    @abstractmethod
    def complete(self) -> Tensor:
        """Which images (N,) bool all cases have."""

    @abstractmethod
    def load(self, at: At, canvas: int, device: torch.device, bad: Unreadable) -> Load:
        """A case's images by row; `bad` stands for those that can't be read."""

    @abstractmethod
    def where(self, at: At, row: int) -> str:
        """The place of an image, for people."""

    @abstractmethod
    def canvas(self, size: int, usual: int) -> int:
        """Pixels to resize the images to for a model of that size, with that canvas for photos."""

    @property
    @abstractmethod
    def side(self) -> int:
        """Pixels of the images as published; 0 where that isn't known."""

    def match(self, classes: tuple[str, ...]) -> Match:
        """Where its classes are among the model's; raises UsageError where they are not."""
        return matched(
            self.classes, classes, address=self.address, expected="folders named as its classes, "
            "or by synset for ImageNet's",
        )  # fmt: skip
