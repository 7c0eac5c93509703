"""What a model's answers on labeled images come to."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.evaluation.accuracy import accuracy, confusion
from tutelage.evaluation.intervals import Accuracy


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Measures of one model on one set of labeled images."""

    accuracy: Accuracy  # top-1
    per_class: tuple[tuple[str, Accuracy], ...]  # classes that have images, worst first

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "accuracy": vars(self.accuracy),
            "per_class": [[name, vars(found)] for name, found in self.per_class],
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            f"accuracy {self.accuracy}",
            *(f"  {name:<20} {found}" for name, found in self.per_class),
        ]


def judged(probs: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Judgement:
    """The measures of probabilities (N, K) against labels (N,)."""
    table = confusion(probs, labels)
    counts = table.sum(1)
    per_class = [
        (name, Accuracy(int(table[k, k]), int(counts[k])))
        for k, name in enumerate(classes)
        if counts[k]
    ]
    return Judgement(
        accuracy=accuracy(probs, labels),
        per_class=tuple(sorted(per_class, key=lambda pair: pair[1].value)),
    )
