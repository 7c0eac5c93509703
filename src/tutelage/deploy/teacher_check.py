"""Whether a teacher answers about these images and classes, as the labels see it.

A teacher whose classes stand in another order, or whose images are prepared in another way, would
quietly teach nonsense. So it must show on labeled images that it is no guess, that it doesn't take
some classes for each other throughout, and that it is about as good as its own run has noted.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.deploy.model_folder import run_of
from tutelage.errors import UsageError
from tutelage.evaluation.accuracy import accuracy, confusion
from tutelage.evaluation.intervals import Accuracy
from tutelage.files import as_written
from tutelage.run import read_run
from tutelage.values import percent

SIGMAS = 3.0  # below its recorded accuracy, from where on a teacher is refused
SWAPPED = 4.0  # sigmas by which exchanged classes would be right more often
CHECK = (
    "check that its classes are these in this order, and that it takes images in [0, 1] with "
    "channels red, green, blue and does its own normalization"
)


def check_teacher(name: str, probs: Tensor, labels: Tensor, recorded: Accuracy | None) -> str:
    """A sentence on how many of the labels (N,) the answers (N, K) meet.

    Raises UsageError where the labels show that the teacher is no better than chance (1), takes
    classes for each other (2), or is worse than was recorded of it (3):

    1. Its 95 % interval holds 1/K or lies below, and ends below twice that (for few classes,
       halfway from chance to 1). A useful teacher is refused for bad luck only where it is hardly
       better than that; with few labels the interval is wide and nobody is refused.
    2. Exchanging the classes that it mistakes for each other in a circle would make it right more
       often, by more than 4 sigmas of McNemar's test.
    3. It is more than 3 sigmas of the difference below (two-proportion test).
    """
    if not len(labels):
        return "too few labels to judge it"
    found, chance = accuracy(probs, labels), 1 / probs.shape[-1]
    low, high = found.interval
    if low <= chance and high < min(2 * chance, (1 + chance) / 2):
        raise UsageError(
            f"the teacher {name} gets {found.right} of {found.total} labeled images right, which "
            f"is chance for {probs.shape[-1]} classes: {CHECK}"
        )
    _check_exchanged(name, probs, labels)
    if recorded is not None:
        both = (found.right + recorded.right) / (found.total + recorded.total)
        sigma = (both * (1 - both) * (1 / found.total + 1 / recorded.total)) ** 0.5
        if found.value < recorded.value - SIGMAS * sigma:
            raise UsageError(
                f"the teacher {name} gets {percent(found.value)} of {found.total} labeled images "
                f"right, and its run noted {percent(recorded.value)} of {recorded.total}: these "
                "are other images than it knows, or their labels are wrong; look at --teacher and "
                "--data"
            )
    return f"right on {found} of the labels"


def _check_exchanged(name: str, probs: Tensor, labels: Tensor) -> None:
    """Raises UsageError where some classes are answered for each other throughout."""
    answers, num_classes = probs.argmax(-1), probs.shape[-1]
    usual = exchanged(confusion(probs, labels))
    odd = usual[labels] != labels
    gained = int((odd & (answers == usual[labels])).sum())
    lost = int((odd & (answers == labels)).sum())
    if gained - lost > SWAPPED * (gained + lost) ** 0.5:
        count = int((usual != torch.arange(num_classes)).sum())
        raise UsageError(
            f"the teacher {name} takes {count} of the {num_classes} classes for each other "
            f"throughout, on {gained} of {int(odd.sum())} images: {CHECK}"
        )


def exchanged(table: Tensor) -> Tensor:
    """For each class the one that is answered most, where these form a circle, else itself.

    Counts (K, K), true class in the row -> classes (K,).
    """
    itself = torch.arange(len(table))
    most = torch.where(table.sum(1) > 0, table.argmax(1), itself).tolist()
    result = itself.tolist()
    for start in range(len(most)):
        circle, at = {start}, most[start]
        while at not in circle:
            circle.add(at)
            at = most[at]
        if at == start:
            result[start] = most[start]
    return torch.tensor(result)


def recorded_accuracy(folder: Path) -> Accuracy | None:
    """What a run has noted of the network in its folder, its model's or a round's; None where it
    hasn't."""
    run = run_of(folder)
    if run is None:
        return None
    with as_written(run / "run.json"):
        return _recorded(folder, read_run(run)["stages"])


def _recorded(folder: Path, stages: dict[str, Any]) -> Accuracy | None:
    """The same, out of a run's stages."""
    outcome = stages.get("evaluate", {})
    rows = {row["name"]: row for row in outcome.get("rounds", ())}
    if not rows:
        return None
    kept = stages["guard"]["kept"] if "guard" in stages else next(reversed(rows))
    row = rows.get(folder.name if folder.absolute().parent.name == "rounds" else kept)
    return None if row is None else Accuracy(**row[outcome["judge"]])
