"""`--robust a=FOLDER,r=FOLDER,v2=FOLDER,sketch=FOLDER`: natural images of a known release.

Papers: Hendrycks et al. 2021 (ImageNet-A, arXiv 1907.07174; ImageNet-R, arXiv 2006.16241), Recht et
al. 2019 (ImageNet V2, arXiv 1902.10811), Wang et al. 2019 (ImageNet-Sketch, arXiv 1905.13549).
Answers are limited to the release's classes before the softmax, and those to the clean images of
the same classes too, which the gap is to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from tutelage.core import Advance
from tutelage.data.find import Given, open_source
from tutelage.data.issues import stop_if_fatal
from tutelage.data.parts import labeled_images
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images
from tutelage.data.stamps import sizes_of
from tutelage.data.storage import absolute
from tutelage.evaluation.calibration import expected_error
from tutelage.evaluation.intervals import Accuracy, wilson
from tutelage.networks.build import device_of
from tutelage.robustness import scores
from tutelage.robustness.asking import (
    Unreadable,
    ask,
    ask_clean,
    clean_accuracy,
    clean_rows,
    stop_if_many,
)
from tutelage.robustness.choice import chosen
from tutelage.robustness.grid import UNSEEN
from tutelage.robustness.matching import Match, matched
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
)
from tutelage.values import digest, percent

CLEAN, OWN = "clean", "images"  # cases


@dataclass(frozen=True)
class Release:
    """What is published under a name in --robust."""

    title: str
    num_classes: int
    layout: str  # as a message says what was expected
    note: str = ""


RELEASES = {
    "a": Release(
        "ImageNet-A",
        200,
        "200 folders named by synset, as n01498041",
        "its images are those that a ResNet-50 got wrong, so a model like it may get few right",
    ),
    "r": Release("ImageNet-R", 200, "200 folders named by synset, as n01443537"),
    "v2": Release("ImageNet V2", 1000, "1,000 folders named by number, 0 to 999, or by synset"),
    "sketch": Release("ImageNet-Sketch", 1000, "1,000 folders named by synset, as n01440764"),
}


@dataclass(frozen=True)
class PublishedImages(Suite):
    """A release's images, or others in its layout."""

    release: str
    address: str
    most: int | None = None  # images
    seed: int = 0
    given: Given | None = None

    @property
    def name(self) -> str:
        """As in --robust."""
        return self.release

    @cached_property
    def _images(self) -> Images:
        """All images there, with the release's class numbers, in the order of their classes."""
        images, issues = labeled_images(open_source(self.address, self.given), "test")
        stop_if_fatal(issues, None)
        return images

    @cached_property
    def _content(self) -> str:
        """A digest of names and sizes."""
        names = self._images.names
        return digest(list(zip(names, sizes_of(self._images.source, names), strict=True)))

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on."""
        return {"address": absolute(self.address), "content": self._content, "most": self.most,
                "seed": self.seed, "version": 1}  # fmt: skip

    def check(self, subject: Subject) -> None:
        """Raises UsageError for classes that aren't the model's or the release's; DataProblem for a
        folder that holds no such images."""
        self._match(subject)

    def _match(self, subject: Subject) -> Match:
        return matched(
            self._images.classes, subject.classes, address=self.address, release=self.release,
            expected=RELEASES[self.release].layout,
        )  # fmt: skip

    def _chosen(self, match: Match) -> tuple[Tensor, Tensor]:
        """Rows (M,) that are asked about, and the model's class numbers of these."""
        labels = match.labels(self._images.label_tensor())
        known = (labels >= 0).nonzero()[:, 0]
        rows = known[chosen(labels[known], self.most, self.seed)]
        return rows, labels[rows]

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """The images, and the clean ones of the same classes where there are any."""
        clean = clean_rows(subject, self._match(subject))
        case = Case(self.name, OWN, "")
        return (Case(self.name, CLEAN, ""), case) if len(clean) else (case,)

    def num_images(self, case: Case, subject: Subject) -> int:
        """Images that a case asks about."""
        match = self._match(subject)
        return len(clean_rows(subject, match) if case.name == CLEAN else self._chosen(match)[0])

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """The answers to one kind of images; raises DataProblem where many can't be read."""
        match = self._match(subject)
        if case.name == CLEAN:
            return ask_clean(subject, clean_rows(subject, match), match, advance)
        rows, _ = self._chosen(match)
        canvas = subject.canvas or subject.size
        pixels = OnDisk(self._images, canvas, device_of(subject.module))
        bad = Unreadable(canvas)
        load = partial(pixels.at, instead=bad)
        columns = ask(subject, rows, load, match, advance, unreadable=bad)
        if bad.found:
            row, error = min(bad.found.items())
            why = f"can't be read (the first is {self._images.where(row)}: {error})"
            stop_if_many(len(bad.found), len(rows), self.address, why)
        return columns

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """Accuracy, the gap to clean images of the same classes, and calibration."""
        match = self._match(subject)
        labels = self._chosen(match)[1]
        columns = found[f"{self.name}-{OWN}"]
        seen = columns["predicted"] != UNSEEN
        right = (columns["predicted"] == labels)[seen]
        own = Accuracy(int(right.sum()), len(right))
        clean = clean_accuracy(subject, match, found.get(f"{self.name}-{CLEAN}"))
        title = RELEASES[self.release].title
        numbers = _numbers(own, clean, columns["confidence"][seen], right)
        lines = [f"accuracy {own}", *_gap(own, clean, numbers)]
        if reference is not None:
            both = seen & (reference.found[f"{self.name}-{OWN}"]["predicted"] != UNSEEN)
            other = (reference.found[f"{self.name}-{OWN}"]["predicted"] == labels)[both]
            mine = (columns["predicted"] == labels)[both]
            lines.append(_beside(mine, other, reference.name, numbers))
        rows = [_row(f"{title}", own)] + ([_row("clean, same classes", clean)] if clean else [])
        return Summary(
            suite=self.name,
            title=f"{title}: {self.address}",
            numbers=numbers,
            lines=tuple(lines),
            notes=self._notes(match, own, int((~seen).sum())),
            columns=("accuracy", "share", "from", "to"),
            rows=tuple(rows),
        )

    def _notes(self, match: Match, own: Accuracy, unread: int) -> tuple[str, ...]:
        """What was left out, and what may be wrong."""
        there, release = len(self._images), RELEASES[self.release]
        alarms = alarm(own.right, own.total, len(match.asked))
        notes = [*alarms, *([release.note] if alarms and release.note else []), *match.notes]
        if len(match.places) < release.num_classes:
            notes.append(f"{len(match.places):,} of the release's {release.num_classes:,} classes")
        if self.most is not None and own.total + unread == self.most < there:
            notes.append(f"{self.most:,} of its {there:,} images, drawn evenly from the classes")
        if unread:
            notes.append(f"{unread:,} images can't be read and are left out")
        return tuple(notes)


def alarm(right: int, total: int, num_classes: int) -> tuple[str, ...]:
    """What a wrong order of classes would look like: accuracy that is not above chance."""
    chance = 1 / num_classes
    text = f"chance, which is 1 of {num_classes:,} classes: is the class mapping wrong?"
    if right / total < chance:
        return (f"BELOW {text}",)
    return (f"NOT ABOVE {text}",) if wilson(right, total)[0] <= chance else ()


def _numbers(
    own: Accuracy, clean: Accuracy | None, confidence: Tensor, right: Tensor
) -> dict[str, float]:  # fmt: skip
    """Named results, as shares of 1."""
    numbers = {
        "accuracy": own.value,
        "error": 1 - own.value,
        "calibration_error": expected_error(confidence, right),
        "rms_calibration_error": scores.rms_calibration_error(confidence, right),
        "aurra": scores.aurra(confidence, right),
    }
    if clean is not None:
        numbers |= {"clean_accuracy": clean.value, "gap": clean.value - own.value}
    return numbers


def _gap(own: Accuracy, clean: Accuracy | None, numbers: dict[str, float]) -> list[str]:
    """The gap to clean images, and calibration, in sentences."""
    lines = []
    if clean is not None:
        points = 100 * (clean.value - own.value)
        lines.append(f"clean images of the same classes {clean}: a gap of {points:.1f} points")
    lines.append(
        f"AURRA {percent(numbers['aurra'])}; RMS calibration error "
        f"{percent(numbers['rms_calibration_error'])}"
    )
    return lines


def _beside(mine: Tensor, other: Tensor, name: str, numbers: dict[str, float]) -> str:
    """The difference in accuracy from another model (M,) bool, and the relative error."""
    ratio = scores.relative_error([float((~mine).sum())], [float((~other).sum())])
    text = f"error relative to {name}: "
    if ratio is not None:
        numbers["relative_error"] = ratio
        text += f"{ratio:.1f} %, "
    change = (~mine).double() - (~other).double()
    return text + scores.mean_of(change).points()


def _row(name: str, found: Accuracy) -> tuple[str | float, ...]:
    return (name, found.value, *found.interval)
