"""A model's answers to images that a suite brings itself, batch by batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Advance
from tutelage.data.check import BAD_SHARE
from tutelage.data.pixels import ahead
from tutelage.data.views import center
from tutelage.errors import DataProblem
from tutelage.evaluation.intervals import Accuracy
from tutelage.networks.build import device_of
from tutelage.robustness.grid import UNSEEN
from tutelage.robustness.matching import Match
from tutelage.robustness.suite import Columns, Subject, answered, joined

Load = Callable[[Tensor], Tensor]  # rows (B,) -> images (B, 3, C, C) uint8


class Unreadable:
    """Stands for images that can't be read, and remembers which."""

    def __init__(self, canvas: int) -> None:
        """Images are so many pixels wide and high."""
        self.canvas = canvas
        self.found: dict[int, Exception] = {}  # by row

    def __call__(self, row: int, error: Exception) -> NDArray[np.uint8]:
        """A black image in place of the row's."""
        self.found[row] = error
        return np.zeros((self.canvas, self.canvas, 3), np.uint8)


def ask(
    subject: Subject, rows: Tensor, load: Load, match: Match, advance: Advance, *,
    unreadable: Unreadable | None = None,
) -> Columns:  # fmt: skip
    """Answers to the images of rows (M,), limited to the classes that they can be of; -1 for those
    that can't be read."""
    device, parts = device_of(subject.module), []
    for some, images in ahead(rows, load, subject.batch):
        seen = center(images.to(device), subject.size)
        parts.append(answered(match.limited(subject.logits(seen)), subject.temperature))
        advance(len(some))
    columns = joined(parts)
    if unreadable is not None and unreadable.found:
        bad = torch.isin(rows, torch.tensor(list(unreadable.found)))
        columns["predicted"][bad] = UNSEEN
    return columns


def clean_rows(subject: Subject, match: Match) -> Tensor:
    """Rows (M,) of the subject's own images whose classes a release has."""
    return torch.isin(subject.labels, torch.tensor(match.asked)).nonzero()[:, 0]


def clean_accuracy(subject: Subject, match: Match, columns: Columns | None) -> Accuracy | None:
    """Of the answers that `ask_clean` gave to those rows; None where it was not asked."""
    if columns is None:
        return None
    labels = subject.labels[clean_rows(subject, match)]
    return Accuracy(int((columns["predicted"] == labels).sum()), len(labels))


def ask_clean(subject: Subject, rows: Tensor, match: Match, advance: Advance) -> Columns:
    """Answers to the subject's own images of rows (M,), limited alike."""
    if not match.masks:
        return {name: column[rows] for name, column in subject.clean.items()}
    parts = []
    for some, images in subject.batches(rows):
        parts.append(answered(match.limited(subject.logits(images)), subject.temperature))
        advance(len(some))
    return joined(parts)


def stop_if_many(lost: int, total: int, what: str, first: str) -> None:
    """Raises DataProblem where more than 1 % of images can't be used: that is no accident."""
    if lost > BAD_SHARE * total:
        raise DataProblem(
            f"{lost:,} of {total:,} images of {what} {first}, which is above {BAD_SHARE:.0%}: "
            "unpack or copy them again"
        )
