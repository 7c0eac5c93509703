"""`--robust c`: accuracy under the corruptions of ImageNet-C, made as they are needed.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.evaluation.intervals import Accuracy
from tutelage.robustness.corruptions import corrupt
from tutelage.robustness.levels import EXTRA, SEVERITIES, TEST, set_for
from tutelage.robustness.suite import (
    Advance,
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
    answered,
    joined,
)


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

    def check(self, subject: Subject) -> None:
        """Nothing can be wrong."""

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
            parts.append(answered(subject.logits(found)))
            advance(len(rows))
        return joined(parts)

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The accuracy of each corruption at each severity, and their mean."""
        right = {key: columns["predicted"] == subject.labels for key, columns in found.items()}
        rows: list[tuple[str | float, ...]] = []
        numbers: dict[str, float] = {}
        names = EXTRA if self.extra else TEST
        for name in names:
            shares = [float(right[f"{self.name}-{name}-{s}"].double().mean()) for s in SEVERITIES]
            mean = sum(shares) / len(shares)
            numbers[f"error_{name}"] = 1 - mean
            rows.append((name.replace("_", " "), *shares, mean))
        clean = Accuracy(
            int((subject.clean["predicted"] == subject.labels).sum()), len(subject.labels)
        )
        mean_error = sum(numbers.values()) / len(names)
        numbers["mean_error"] = mean_error
        return Summary(
            suite=self.name,
            title=f"corruptions, generated as for ImageNet-C at {set_for(subject.size)} px",
            numbers=numbers,
            lines=(f"clean {clean}; mean under corruption {1 - mean_error:.1%}",),
            columns=("accuracy at severity", *map(str, SEVERITIES), "mean"),
            rows=tuple(rows),
        )
