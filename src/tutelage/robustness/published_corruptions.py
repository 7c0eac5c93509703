"""`--robust c=FOLDER,cifar-c=FOLDER`: accuracy on corrupted images as they are published.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4. ImageNet-C's images are 224 px
and cropped already, so a model of another size sees them resized; CIFAR's come without AlexNet's
errors, as the authors have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Advance
from tutelage.networks.build import device_of
from tutelage.robustness import grid as grids
from tutelage.robustness.asking import (
    Unreadable,
    ask,
    ask_clean,
    clean_accuracy,
    clean_rows,
    stop_if_many,
)
from tutelage.robustness.choice import chosen
from tutelage.robustness.corrupted import RELEASED
from tutelage.robustness.imagenet import NUM_CLASSES, is_imagenet
from tutelage.robustness.matching import Match
from tutelage.robustness.published_images import alarm
from tutelage.robustness.release import At, CorruptedRelease
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
)
from tutelage.values import digest

CLEAN = "clean"  # the case of the subject's own images


@dataclass(frozen=True)
class PublishedCorruptions(Suite):
    """A release's images under each corruption that is there."""

    kind: str  # imagenet-c or cifar-c
    release: CorruptedRelease
    most: int | None = None  # images of each case
    seed: int = 0

    @property
    def name(self) -> str:
        """The release; imagenet-c is c=FOLDER in --robust, as c alone generates its images."""
        return self.kind

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on; the files of each case are in its mark."""
        return {**self.release.marks, "most": self.most, "seed": self.seed, "version": 1}

    def check(self, subject: Subject) -> None:
        """Raises UsageError for classes that aren't the model's; DataProblem for images that are
        not as published."""
        self.release.match(subject.classes)

    def _chosen(self, match: Match) -> tuple[Tensor, Tensor]:
        """Rows (M,) that are asked about, the same in each case, and the model's class numbers."""
        labels = match.labels(self.release.labels)
        known = ((labels >= 0) & self.release.complete).nonzero()[:, 0]
        rows = known[chosen(labels[known], self.most, self.seed)]
        return rows, labels[rows]

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """Clean images of the same classes where there are any; each corruption and severity."""
        match = self.release.match(subject.classes)
        rows, _ = self._chosen(match)
        corrupted = [
            Case(self.name, at[0], str(at[1]), mark=self._mark(at, rows))
            for at in self.release.cases()
        ]
        clean = [Case(self.name, CLEAN, "")] if len(clean_rows(subject, match)) else []
        return (*clean, *corrupted)

    def _mark(self, at: At, rows: Tensor) -> str:
        """The files' mark as they were first seen: it names what is kept of them."""
        key = at, digest(rows.tolist())
        if key not in self._marks:
            self._marks[key] = self.release.mark(at, rows)
        return self._marks[key]

    @cached_property
    def _marks(self) -> dict[tuple[At, str], str]:
        return {}

    def num_images(self, case: Case, subject: Subject) -> int:
        """Images that a case asks about."""
        match = self.release.match(subject.classes)
        return len(clean_rows(subject, match) if case.name == CLEAN else self._chosen(match)[0])

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """The answers to all images of a case; raises DataProblem where many can't be read."""
        match = self.release.match(subject.classes)
        if case.name == CLEAN:
            return ask_clean(subject, clean_rows(subject, match), match, advance)
        at, device = (case.name, int(case.level)), device_of(subject.module)
        rows, _ = self._chosen(match)
        canvas = self.release.canvas(subject.size, subject.canvas or subject.size)
        bad = Unreadable(canvas)
        load = self.release.load(at, canvas, device, bad)
        columns = ask(subject, rows, load, match, advance, unreadable=bad)
        if bad.found:
            row, error = min(bad.found.items())
            why = f"can't be read (the first is {self.release.where(at, row)}: {error})"
            stop_if_many(len(bad.found), len(rows), f"{self.release.address} {at[0]} {at[1]}", why)
        return columns

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The accuracy of each corruption at each severity, their mean, and mCE where it is one."""
        match = self.release.match(subject.classes)
        labels = self._chosen(match)[1]
        cases = tuple(case for case in self.cases(subject) if case.name != CLEAN)
        grid = grids.grid_of(cases, found, labels)
        beside = None
        if reference is not None:
            other = grids.grid_of(cases, reference.found, labels)
            beside = grids.Beside(reference.name, other)
        alexnet = self._alexnet(subject, match)
        clean = clean_accuracy(subject, match, found.get(f"{self.name}-{CLEAN}"))
        # AlexNet's clean error is of all classes, too
        whole = clean is not None and (not alexnet or len(subject.labels.unique()) == NUM_CLASSES)
        error = 1 - clean.value if clean is not None and whole else None
        numbers = grids.numbers_of(grid, clean_error=error, beside=beside, alexnet=alexnet)
        columns, rows = grids.table(grid, beside=beside, alexnet=alexnet)
        lines = [f"clean images of the same classes {clean}"] if clean is not None else []
        return Summary(
            suite=self.name,
            title=self.release.title,
            numbers=numbers,
            lines=(*lines, *grids.sentences(grid, numbers, beside=beside)),
            notes=self._notes(subject, match, grid),
            columns=columns,
            rows=tuple(rows),
            curve=grids.curve_of(grid, None),
        )

    def _alexnet(self, subject: Subject, match: Match) -> bool:
        """Whether AlexNet's errors are of these images."""
        there = len(self._chosen(match)[1].unique())
        whole = is_imagenet(subject.classes) and there == NUM_CLASSES
        return self.kind == "imagenet-c" and whole and self.release.side == RELEASED

    def _notes(self, subject: Subject, match: Match, grid: grids.Grid) -> tuple[str, ...]:
        """What is missing or left out, and what may be wrong."""
        every = torch.stack(list(grid.right.values()))
        seen = int((~every.isnan()).sum())
        notes = [*alarm(int(every.nansum()), seen, len(match.asked)), *match.notes]
        lost, there = every.numel() - seen, len(self.release.labels)
        if grid.missing:
            few = ", ".join(grid.missing[:5]) + ", …" * (len(grid.missing) > 5)
            notes.append(f"no mean of all 15 corruptions: {len(grid.missing)} cases are not there "
                         f"({few})")  # fmt: skip
        side = self.release.side
        if self.kind == "imagenet-c" and side not in (0, subject.size):
            notes.append(f"the images of {side} px are resized to the model's {subject.size}")
        if self.most is not None and every.shape[1] == self.most < there:
            notes.append(f"{self.most:,} of its {there:,} images, drawn evenly from the classes")
        if gone := int((~self.release.complete).sum()):
            notes.append(f"{gone:,} images are not there in all cases, and are left out")
        if lost:
            notes.append(f"{lost:,} files can't be read, and are left out")
        return tuple(notes)
