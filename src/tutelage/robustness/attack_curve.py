"""Accuracy over the size of an attack: table, curve, and the difference from another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.paired import compare
from tutelage.robustness.suite import Case, Columns, Curve, Reference, Subject
from tutelage.values import percent


@dataclass(frozen=True)
class AttackCurve:
    """What of a summary all attacks have in common."""

    numbers: dict[str, float]
    line: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    curve: Curve


def radii(given: Sequence[float], default: Sequence[float]) -> tuple[float, ...]:
    """The sizes of an attack in increasing order, none twice."""
    return tuple(sorted(set(given or default)))


def level(radius: float) -> str:
    """A size as it stands in the name of a case."""
    return f"{radius:.9g}"


def answers_before(
    case: Case, cases: Sequence[Case], subject: Subject, before: Mapping[str, Columns]
) -> Columns:
    """The answers `predicted` (N,) and whether they are `right` (N,) uint8 under the attack that
    is next smaller, or to the clean images where there is none; copies, to be changed."""
    predicted = subject.clean["predicted"]
    right = predicted == subject.labels
    smaller = cases[: cases.index(case)]
    if smaller:
        found = before[smaller[-1].key]
        predicted, right = found["predicted"], found["right"].bool()
    return {"predicted": predicted.clone(), "right": right.byte()}


def attack_curve(
    cases: Sequence[Case],
    subject: Subject,
    found: Mapping[str, Columns],
    *,
    unit: str,
    reference: Reference | None,
) -> AttackCurve:
    """The accuracy without attack and in each case, with Wilson's intervals; beside the other
    model's, with the paired difference."""
    own = _right(cases, subject.labels, subject.clean, found)
    other = None
    if reference is not None:
        other = _right(cases, subject.labels, reference.clean, reference.found)
    numbers: dict[str, float] = {}
    rows: list[tuple[str | float, ...]] = []
    accuracies = []
    for name, right in own.items():
        accuracy = Accuracy(int(right.sum()), len(right))
        accuracies.append(accuracy)
        numbers[f"accuracy_{name}"] = accuracy.value
        row: tuple[str | float, ...] = (name, accuracy.value, *accuracy.interval)
        if other is not None:
            numbers[f"reference_{name}"] = float(other[name].double().mean())
            numbers[f"difference_{name}"] = (paired := compare(other[name], right)).difference
            row = (*row, numbers[f"reference_{name}"], paired.points)
        rows.append(row)
    beside = () if reference is None else (reference.name, "difference in points")
    return AttackCurve(
        numbers=numbers,
        line=_line(list(own), accuracies),
        columns=("epsilon", "accuracy", "low", "high", *beside),
        rows=tuple(rows),
        curve=Curve(
            xlabel=f"epsilon, {unit}",
            ylabel="accuracy",
            x=tuple(map(float, own)),
            y=tuple(one.value for one in accuracies),
            low=tuple(one.interval[0] for one in accuracies),
            high=tuple(one.interval[1] for one in accuracies),
        ),
    )


def _right(
    cases: Sequence[Case], labels: Tensor, clean: Columns, found: Mapping[str, Columns]
) -> dict[str, Tensor]:
    """By the size of the attack, which images (N,) bool are answered right; 0 is without one."""
    by_case = {case.level: found[case.key]["right"].bool() for case in cases}
    return {"0": clean["predicted"] == labels} | by_case


def _line(names: Sequence[str], accuracies: Sequence[Accuracy]) -> str:
    """The outcome in a sentence."""
    line = f"clean {accuracies[0]}; {percent(accuracies[-1].value)} at epsilon {names[-1]}"
    half = [name for name, one in zip(names, accuracies, strict=True)
            if 2 * one.value <= accuracies[0].value]  # fmt: skip
    if half and accuracies[0].right:
        line += f"; half of what was right is lost at epsilon {half[0]}"
    return line
