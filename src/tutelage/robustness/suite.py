"""What a robustness suite is: cases, an answer for every image in each, and what they come to.

A case is what is kept as soon as it is there, so a suite that was stopped goes on with the next.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from tutelage.core import Advance
from tutelage.data.operations import as_bytes, as_float
from tutelage.data.pixels import Pixels
from tutelage.data.views import center
from tutelage.frozen import answer
from tutelage.networks.build import device_of

Columns: TypeAlias = dict[str, Tensor]  # name -> one value an image (N,)
# how the names of numbers begin in which the reference has a part
RELATIVE = ("relCE", "relative_", "reference_", "difference_")


@dataclass(frozen=True)
class Case:
    """One thing that is done to every image."""

    suite: str  # as in --robust
    name: str  # such as gaussian_noise
    level: str  # such as 3
    passes: int = 1  # forward passes an image that it takes, about; a backward one counts two
    mark: str = ""  # digest of what it reads, where it has files of its own

    @property
    def key(self) -> str:
        """Its file's name."""
        return "-".join(part for part in (self.suite, self.name, self.level, self.mark) if part)


@dataclass(frozen=True)
class Subject:
    """The model that is judged, and the labeled images that it is judged on."""

    module: nn.Module  # images (B, 3, S, S) in [0, 1] -> logits (B, K); in eval mode, no gradients
    classes: tuple[str, ...]
    size: int  # pixels S
    pixels: Pixels
    labels: Tensor  # (N,) int64
    names: tuple[str, ...]  # of the images, which their randomness follows from
    clean: Columns  # `answered` of the images as they are
    batch: int = 64  # images
    temperature: float = 1.0  # of its calibration, for confidences
    canvas: int = 0  # pixels that an image's shorter side is resized to; 0: those of `size`

    def batches(
        self, among: Tensor | None = None, *, batch: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (B,), and their images (B, 3, S, S) uint8 as the model sees them, on its device; of
        all images, or of the rows among (M,)."""
        device = device_of(self.module)
        chosen = torch.arange(len(self.labels)) if among is None else among
        for rows in chosen.split(batch or self.batch) if len(chosen) else ():
            yield rows, as_bytes(center(self.pixels.at(rows).to(device), self.size))

    def keys(self, rows: Tensor) -> list[str]:
        """What tells these images apart."""
        return [self.names[row] for row in rows.tolist()]

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Answers (B, K) to images (B, 3, S, S), uint8 or float in [0, 1]."""
        return answer(self.module, as_float(images), "fp32")


def answered(logits: Tensor, temperature: float) -> Columns:
    """The surest class, and its probability at the model's temperature, of logits (B, K)."""
    confidence, predicted = (logits / temperature).softmax(-1).max(-1)
    return {"predicted": predicted.to(torch.int32).cpu(), "confidence": confidence.cpu()}


def joined(parts: list[Columns]) -> Columns:
    """The columns of all batches, one after another."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Curve:
    """A figure of a summary: one line over numbers, with its interval."""

    xlabel: str
    ylabel: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a suite came to, for the terminal, the report and other programs alike."""

    suite: str
    title: str
    numbers: dict[str, float]  # named results, by which two evaluations are compared
    lines: tuple[str, ...] = ()  # the outcome in sentences
    notes: tuple[str, ...] = ()  # what to know before quoting it, and alarms
    columns: tuple[str, ...] = ()  # heads of the table; the first column names the row
    rows: tuple[tuple[str | float, ...], ...] = ()  # floats are shares
    curve: Curve | None = None
    asked: str = ""  # digest of settings and images: the same of two models that can be compared
    reference: str = ""  # digest of the other model, where there is one

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Suite(ABC):
    """A way to make things hard for a model. Subclasses are frozen dataclasses of settings."""

    confident: ClassVar[bool] = True  # whether its columns have confidences, at a temperature

    @property
    @abstractmethod
    def name(self) -> str:
        """As in --robust."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on: a suite with other settings is another one."""

    def check(self, subject: Subject) -> None:  # noqa: B027  # most have nothing to check
        """Raises UsageError or DataProblem for what can't work, before anything is asked."""

    @abstractmethod
    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """All cases, in order."""

    def num_images(self, case: Case, subject: Subject) -> int:
        """Images that a case asks about: the subject's, but for suites that bring their own."""
        return len(subject.labels)

    @abstractmethod
    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """A case on all images; `before` are the finished cases of this suite, by key."""

    @abstractmethod
    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: "Reference | None"
    ) -> Summary:
        """What all cases, by key, come to; beside another model's, where there is one."""


@dataclass(frozen=True)
class Reference:
    """Another model on the same images and cases, to be compared with."""

    name: str
    clean: Columns
    found: Mapping[str, Columns]  # by the cases' keys
