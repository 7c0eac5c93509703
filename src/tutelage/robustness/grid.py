"""What corruptions at several severities come to: the table, the scores and their intervals.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4. The mean is over the corruptions
to test on; those that are kept to validate on have rows of their own, and are in it where they are
all that there is. An image that was left out of a case is left out of all means over images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.corruptions.levels import EXTRA, SEVERITIES, TEST
from tutelage.evaluation.calibration import expected_error
from tutelage.robustness import scores
from tutelage.robustness.suite import Case, Columns, Curve

NONE = "-"  # a cell without a number
UNSEEN = -1  # `predicted` of an image that can't be read or is not there

Row = tuple[str | float, ...]


@dataclass(frozen=True)
class Grid:
    """The answers under each corruption at each severity."""

    right: dict[tuple[str, int], Tensor]  # (N,) float64: 1, 0, or NaN for an image left out
    confidence: dict[tuple[str, int], Tensor]  # (N,)

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions, those to test on first."""
        there = {name for name, _ in self.right}
        return tuple(name for name in (*TEST, *EXTRA) if name in there)

    @property
    def meant(self) -> tuple[str, ...]:
        """The corruptions that the mean is of."""
        return tuple(name for name in self.names if name in TEST) or self.names

    @property
    def missing(self) -> list[str]:
        """Cases of the 15 corruptions to test on that are not there."""
        return [f"{one} {s}" for one in TEST for s in SEVERITIES if (one, s) not in self.right]

    def errors(self, name: str) -> dict[int, float]:
        """Severity -> error of a corruption."""
        return {s: self.error(name, s) for s in SEVERITIES if (name, s) in self.right}

    def error(self, name: str, severity: int) -> float:
        """The share of wrong answers."""
        return 1 - float(self.right[name, severity].nanmean())

    def all_errors(self) -> dict[str, list[float]]:
        """The errors of each corruption that the mean is of, by severity."""
        return {name: list(self.errors(name).values()) for name in self.meant}

    def of_images(self, severity: int | None = None) -> Tensor:
        """Each image's mean error (N,), over corruptions and all or one severity; NaN where it was
        left out of a case."""
        means = []
        for name in self.meant:
            its = [s for s in SEVERITIES if (name, s) in self.right and severity in (None, s)]
            if its:
                means.append(torch.stack([1 - self.right[name, s] for s in its]).mean(0))
        return torch.stack(means).mean(0)

    def calibration(self, severity: int) -> float:
        """Expected calibration error at a severity, the mean over corruptions."""
        found = []
        for name in self.meant:
            if (name, severity) in self.right:
                right = self.right[name, severity]
                seen = ~right.isnan()
                confidence = self.confidence[name, severity]
                found.append(expected_error(confidence[seen], right[seen] > 0.5))
        return sum(found) / len(found)

    @property
    def severities(self) -> list[int]:
        """Those that a corruption of the mean has."""
        return [s for s in SEVERITIES if any((name, s) in self.right for name in self.meant)]


def grid_of(cases: tuple[Case, ...], found: Mapping[str, Columns], labels: Tensor) -> Grid:
    """The grid of finished cases by key: their names are corruptions, their levels severities."""
    right, confidence = {}, {}
    for case in cases:
        columns = found[case.key]
        at = case.name, int(case.level)
        was_right = (columns["predicted"] == labels).double()
        right[at] = torch.where(columns["predicted"] == UNSEEN, torch.nan, was_right)
        confidence[at] = columns["confidence"]
    return Grid(right, confidence)


@dataclass(frozen=True)
class Beside:
    """Another model's answers to the same."""

    name: str
    grid: Grid


def table(grid: Grid, *, beside: Beside | None, alexnet: bool) -> tuple[tuple[str, ...], list[Row]]:
    """Heads and rows: accuracy by severity, its mean, CE where wanted, and error over another's,
    whose name may be too long for a terminal."""
    heads = ["accuracy at severity", *map(str, SEVERITIES), "mean"]
    heads += ["CE"] * alexnet + ["relCE"] * (beside is not None)
    rows: list[Row] = []
    for name in grid.names:
        errors = grid.errors(name)
        row: list[str | float] = [name.replace("_", " ")]
        row += [1 - errors[s] if s in errors else NONE for s in SEVERITIES]
        row.append(1 - sum(errors.values()) / len(errors))
        if alexnet:
            complete = len(errors) == len(SEVERITIES)
            row.append(
                scores.corruption_error(name, [*errors.values()]) / 100 if complete else NONE
            )
        if beside:
            ratio = scores.relative_error([*errors.values()], [*beside.grid.errors(name).values()])
            row.append(NONE if ratio is None else ratio / 100)
        rows.append(tuple(row))
    rest = [NONE] * (len(heads) - len(SEVERITIES) - 2)
    there = grid.severities
    by_severity = [_mean_accuracy(grid, s) if s in there else NONE for s in SEVERITIES]
    rows.append(("mean", *by_severity, 1 - scores.mean_error(grid.all_errors()), *rest))
    gaps = {s: grid.calibration(s) for s in there}
    row = ["calibration error", *(gaps.get(s, NONE) for s in SEVERITIES)]
    rows.append((*row, sum(gaps.values()) / len(gaps), *rest))
    return tuple(heads), rows


def _mean_accuracy(grid: Grid, severity: int) -> float:
    errors = [grid.error(name, severity) for name in grid.meant if (name, severity) in grid.right]
    return 1 - sum(errors) / len(errors)


def numbers_of(
    grid: Grid, *, clean_error: float | None, beside: Beside | None, alexnet: bool
) -> dict[str, float]:
    """Named results: errors are shares of 1; mCE, rCE, CE and relCE are in percent."""
    errors = grid.all_errors()
    numbers = {
        f"error_{name}": scores.mean_error({name: list(grid.errors(name).values())})
        for name in grid.names
    }
    numbers["mean_error"] = scores.mean_error(errors)
    gaps = [grid.calibration(s) for s in grid.severities]
    numbers["calibration_error"] = sum(gaps) / len(gaps)
    if clean_error is not None:
        numbers["clean_error"] = clean_error
    if alexnet:
        numbers |= {
            f"CE_{name}": scores.corruption_error(name, its)
            for name, its in errors.items()
            if len(its) == len(SEVERITIES)
        }
        if not grid.missing:
            numbers["mCE"] = scores.mean_corruption_error(errors)
            if clean_error is not None:
                numbers["rCE"] = scores.mean_relative_corruption_error(errors, clean_error)
    if beside:
        numbers |= _relative(errors, beside.grid.all_errors())
    return numbers


def _relative(errors: dict[str, list[float]], others: dict[str, list[float]]) -> dict[str, float]:
    """relCE of each corruption, and their mean where each has one."""
    ratios = {name: scores.relative_error(errors[name], others[name]) for name in errors}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    numbers = {f"relCE_{name}": ratio for name, ratio in known.items()}
    if len(known) == len(ratios):
        numbers["relCE"] = sum(known.values()) / len(known)
    return numbers


def sentences(grid: Grid, numbers: dict[str, float], *, beside: Beside | None) -> list[str]:
    """The mean error with its interval, the scores, and the difference from another model."""
    errors = grid.of_images()
    lines = [f"mean error under corruption {scores.mean_share(errors[~errors.isnan()])}"]
    if "mCE" in numbers:
        text = f"mCE {numbers['mCE']:.1f} %, of AlexNet's errors"
        lines.append(text + (f"; rCE {numbers['rCE']:.1f} %" if "rCE" in numbers else ""))
    if beside:
        change = errors - beside.grid.of_images()
        difference = scores.mean_of(change[~change.isnan()]).points()
        ratio = f"{numbers['relCE']:.1f} %, " if "relCE" in numbers else ""
        lines.append(f"relCE, error relative to {beside.name}: {ratio}{difference}")
    return lines


def curve_of(grid: Grid, clean: scores.Mean | None) -> Curve:
    """Accuracy over severity, with intervals; clean stands at 0, where it is of the same images."""
    points = {0: clean} if clean is not None else {}
    for severity in grid.severities:
        errors = grid.of_images(severity)
        found = scores.mean_share(errors[~errors.isnan()])
        points[severity] = scores.Mean(1 - found.value, 1 - found.high, 1 - found.low, found.total)
    return Curve(
        xlabel="severity",
        ylabel="accuracy, mean over corruptions",
        x=tuple(map(float, points)),
        y=tuple(one.value for one in points.values()),
        low=tuple(one.low for one in points.values()),
        high=tuple(one.high for one in points.values()),
    )
