"""`--robust c`: accuracy under the corruptions of ImageNet-C, made as they are needed.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.core import Advance
from tutelage.corruptions.corrupt import corrupt
from tutelage.corruptions.levels import EXTRA, SEVERITIES, TEST, set_for
from tutelage.evaluation.intervals import Accuracy
from tutelage.robustness import grid as grids
from tutelage.robustness.imagenet import NUM_CLASSES, is_imagenet
from tutelage.robustness.scores import Mean
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
    answered,
    joined,
)

RELEASED = 224  # pixels of the published images, which AlexNet's errors are of


@dataclass(frozen=True)
class Corrupted(Suite):
    """The 15 corruptions to test on, or the 4 that are kept to validate on."""

    extra: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """As in --robust."""
        return "c-extra" if self.extra else "c"

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on."""
        return {"seed": self.seed, "version": 1}

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """Each corruption at each severity."""
        names = EXTRA if self.extra else TEST
        return tuple(
            Case(self.name, name, str(severity)) for name in names for severity in SEVERITIES
        )

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """The answers to all images under one corruption."""
        parts = []
        for rows, images in subject.batches():
            keys = subject.keys(rows)
            found = corrupt(images, case.name, int(case.level), keys=keys, seed=self.seed)
            parts.append(answered(subject.logits(found), subject.temperature))
            advance(len(rows))
        return joined(parts)

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The accuracy of each corruption at each severity, and their mean."""
        cases, labels = self.cases(subject), subject.labels
        grid = grids.grid_of(cases, found, labels)
        beside = None
        if reference is not None:
            other = grids.grid_of(cases, reference.found, labels)
            beside = grids.Beside(reference.name, other)
        alexnet, notes = self._alexnet(subject)
        clean = Accuracy(int((subject.clean["predicted"] == labels).sum()), len(labels))
        error = 1 - clean.value
        numbers = grids.numbers_of(grid, clean_error=error, beside=beside, alexnet=alexnet)
        columns, rows = grids.table(grid, beside=beside, alexnet=alexnet)
        return Summary(
            suite=self.name,
            title=f"corruptions, generated as for ImageNet-C at {set_for(subject.size)} px",
            numbers=numbers,
            lines=(f"clean accuracy {clean}", *grids.sentences(grid, numbers, beside=beside)),
            notes=(*self._notes(), *notes),
            columns=columns,
            rows=tuple(rows),
            curve=grids.curve_of(grid, Mean(clean.value, *clean.interval, clean.total)),
        )

    def _notes(self) -> tuple[str, ...]:
        """What is not as published."""
        textures = "" if self.extra else ", and frost has textures of our own"
        return (f"generated, not the published images: these have no JPEG step{textures}",)

    def _alexnet(self, subject: Subject) -> tuple[bool, tuple[str, ...]]:
        """Whether AlexNet's errors are of such images, and what to know of scores by them."""
        if not is_imagenet(subject.classes):
            return False, ()
        why = _unlike(subject.labels, subject.size)
        if why:
            return False, (f"no errors relative to AlexNet's: {why}",)
        what = "CE" if self.extra else "mCE"
        return True, (
            f"{what} of generated corruptions, not comparable with the published images, which "
            "the authors ask for: --robust c=FOLDER",
        )


def _unlike(labels: Tensor, size: int) -> str:
    """Why the images are not as those of AlexNet's errors; empty where they are."""
    if size != RELEASED:
        return f"they are of images of {RELEASED} px, and these have {size}"
    there = len(labels.unique())
    if there < NUM_CLASSES:
        return f"they are of all {NUM_CLASSES:,} classes, and the images are of {there:,}"
    return ""
