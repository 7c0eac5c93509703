"""What a model's answers on labeled images come to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.evaluation.accuracy import accuracy, confusion
from tutelage.evaluation.calibrated import Calibration
from tutelage.evaluation.calibration import (
    Bins,
    brier_scores,
    by_chance,
    log_losses,
    mass_bins,
    width_bins,
)
from tutelage.evaluation.intervals import Accuracy, share_of_classes
from tutelage.evaluation.reject import find_threshold
from tutelage.evaluation.temperature import resampled
from tutelage.values import percent

TOP = 5  # classes within which the true one has to be for top-5
RATES = (0.01, 0.02, 0.05, 0.1)  # stated error rates whose thresholds are tried


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in '0.412 (0.380 to 0.447)'."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Confidence:
    """How true the confidences are: calibration error with the bins that it comes from."""

    width: Bins  # of equal width
    mass: Bins  # of equal mass
    chance: tuple[float, float]  # error that a calibrated model would show: mean, and 95 % below
    mass_chance: tuple[float, float]  # the same for the bins of equal mass

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        pairs = (("width", self.width, self.chance), ("mass", self.mass, self.mass_chance))
        return {
            name: {
                "ece": bins.expected, "mce": bins.largest, "rms": bins.rms,
                "ece_by_chance": chance[0], "ece_by_chance_95": chance[1], "images": bins.total,
                "bins": bins.plain(),
            }
            for name, bins, chance in pairs
        }  # fmt: skip


@dataclass(frozen=True)
class Rejected:
    """What the model's threshold for a stated error rate does on these images."""

    rate: float  # stated
    threshold: float  # confidence from which on it answers
    answered: Accuracy  # images answered, of all
    wrong: Accuracy | None  # wrong ones among these; None where none is answered

    def __str__(self) -> str:
        """As a line."""
        wrong = "" if self.wrong is None else f", {self.wrong} of them wrong"
        return f"at most {100 * self.rate:.0f} % wrong: {self.answered} answered{wrong}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Measures of one model on one set of labeled images."""

    accuracy: Accuracy  # top-1
    top5: Accuracy | None  # None where there are at most five classes
    balanced: Measure  # the mean of the classes' accuracies
    per_class: tuple[tuple[str, Accuracy], ...]  # classes that have images, worst first
    nll: Measure  # negative log-likelihood, in nats
    brier: Measure  # 0 to 2
    confidence: Confidence  # all of these are of calibrated answers, where the model has them
    temperature: float | None = None  # None: the model has no calibration, and answers are raw
    raw_nll: float | None = None  # before calibration
    raw_ece: float | None = None
    rejected: tuple[Rejected, ...] = ()  # for each stated rate that the model can promise

    @property
    def ece(self) -> float:
        """Expected calibration error, 15 bins of equal width."""
        return self.confidence.width.expected

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "accuracy": vars(self.accuracy),
            "top5": None if self.top5 is None else vars(self.top5),
            "balanced": vars(self.balanced),
            "per_class": [[name, vars(found)] for name, found in self.per_class],
            "nll": vars(self.nll),
            "brier": vars(self.brier),
            "calibration": self.confidence.plain(),
            "temperature": self.temperature,
            "before_temperature": None
            if self.temperature is None
            else {"nll": self.raw_nll, "ece": self.raw_ece},
            "rejected": [
                {
                    "rate": one.rate,
                    "threshold": one.threshold,
                    "answered": vars(one.answered),
                    "wrong": None if one.wrong is None else vars(one.wrong),
                }
                for one in self.rejected
            ],
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        top5 = [] if self.top5 is None else [f"top-5 {self.top5}"]
        return [
            f"accuracy {self.accuracy}",
            *top5,
            f"balanced accuracy {percent(self.balanced.value)} "
            f"({percent(self.balanced.low)} to {percent(self.balanced.high)})",
            f"log loss {self.nll}, Brier score {self.brier}",
            *self._calibration(),
            *map(str, self.rejected),
            *(f"  {name:<20} {found}" for name, found in self.per_class),
        ]

    def _calibration(self) -> list[str]:
        """What is said of the confidences."""
        bins, (mean, most) = self.confidence.width, self.confidence.chance
        lines = [
            f"calibration error {percent(bins.expected)} ({len(bins.count)} bins of equal width; "
            f"{percent(self.confidence.mass.expected)} of equal mass); a calibrated model would "
            f"show {percent(mean)}, at most {percent(most)}, on {bins.total:,} images"
        ]
        if self.temperature is not None and self.raw_ece is not None:
            lines.append(
                f"  at temperature {self.temperature:.2f}; without it {percent(self.raw_ece)}, "
                f"log loss {self.raw_nll:.3f}"
            )
        return lines


def judged(
    probs: Tensor, labels: Tensor, classes: tuple[str, ...], *,
    calibration: Calibration | None = None,
) -> Judgement:  # fmt: skip
    """The measures of the network's probabilities (N, K), calibrated where there is a
    calibration, against labels (N,)."""
    table, raw = confusion(probs, labels), probs
    counts = table.sum(1)
    per_class = [
        (name, Accuracy(int(table[k, k]), int(counts[k])))
        for k, name in enumerate(classes)
        if counts[k]
    ]
    if calibration is not None:
        probs = calibration.probs(raw)
    right = raw.argmax(-1) == labels
    confidence = probs.gather(1, raw.argmax(-1)[:, None])[:, 0]
    nll, brier = _means(torch.stack([log_losses(probs, labels), brier_scores(probs, labels)], 1))
    before = None if calibration is None else raw
    return Judgement(
        accuracy=accuracy(raw, labels),
        top5=_top5(raw, labels) if len(classes) > TOP else None,
        balanced=Measure(*share_of_classes([found for _, found in per_class])),
        per_class=tuple(sorted(per_class, key=lambda pair: pair[1].value)),
        nll=nll,
        brier=brier,
        confidence=Confidence(
            width_bins(confidence, right), mass_bins(confidence, right), by_chance(confidence),
            by_chance(confidence, mass_bins),
        ),
        temperature=None if calibration is None else calibration.temperature.value,
        raw_nll=None if before is None else float(log_losses(before, labels).mean()),
        raw_ece=None if before is None else width_bins(before.max(-1).values, right).expected,
        rejected=() if calibration is None else _rejected(confidence, right, calibration),
    )  # fmt: skip


def _top5(probs: Tensor, labels: Tensor) -> Accuracy:
    """Images whose true class is among the five surest."""
    found = (probs.topk(TOP, -1).indices == labels[:, None]).any(-1)
    return Accuracy(int(found.sum()), len(labels))


def _means(values: Tensor) -> list[Measure]:
    """The mean of each column (N, C), with its interval by bootstrap over images."""
    columns = values.numpy()
    low, high = np.quantile(resampled(columns, seed=0), [0.025, 0.975], axis=0)
    triples = zip(columns.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [Measure(*triple) for triple in triples]


def _rejected(
    confidence: Tensor, right: Tensor, calibration: Calibration
) -> tuple[Rejected, ...]:  # fmt: skip
    """Each threshold that the model can promise something for, on these images."""
    found = []
    for rate in RATES:
        threshold = find_threshold(calibration.curve, rate)
        if threshold is None:
            continue
        taken = confidence.double() >= threshold.confidence
        answered = int(taken.sum())
        wrong = Accuracy(int((taken & ~right).sum()), answered) if answered else None
        found.append(Rejected(rate, threshold.confidence, Accuracy(answered, len(right)), wrong))
    return tuple(found)
