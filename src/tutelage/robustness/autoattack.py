"""`--robust autoattack`: the ensemble AutoAttack, by the authors' code in an optional package.

Paper: Croce and Hein 2020 (arXiv 2003.01690), section 5: APGD on cross-entropy, targeted APGD on
the difference of logits ratio, targeted FAB, and Square, which needs no gradient; each on what the
ones before have left. Deviation: the targeted loss needs 4 classes and the untargeted one 3, so
that models of fewer classes are attacked by what is left, and this is said.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.core import Advance
from tutelage.data.operations import as_float
from tutelage.errors import UsageError
from tutelage.networks.build import device_of
from tutelage.robustness.attack_curve import answers_before, attack_curve, level, radii
from tutelage.robustness.attacked import PGD, batch_for
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
)

TARGETS = 9  # classes that targeted attacks try, at most
SQUARE = 0.002  # share of all images that Square may break alone; the authors' threshold
# forward passes an image at most: 100 steps of APGD, as many for each target of APGD and of FAB,
# and Square's queries; a backward pass counts two
COST = {"apgd-ce": 300, "apgd-dlr": 300, "apgd-t": 2700, "fab-t": 2700, "square": 5000}


@dataclass(frozen=True, kw_only=True)
class AutoAttacked(Suite):
    """AutoAttack in the L-infinity norm, in several sizes."""

    confident: ClassVar[bool] = False

    epsilon: tuple[float, ...] = ()  # levels of 255
    seed: int = 0

    @property
    def name(self) -> str:
        """As in --robust."""
        return "autoattack"

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on."""
        return {"epsilon": self.epsilon, "seed": self.seed, "version": 1}

    def check(self, subject: Subject) -> None:
        """Raises UsageError where the package is missing."""
        package()

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """An epsilon each, from small to large."""
        passes = sum(COST[name] for name in _ensemble(len(subject.classes)))
        found = [one for one in radii(self.epsilon, PGD) if one > 0]
        return tuple(Case(self.name, "epsilon", level(one), passes) for one in found)

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """One epsilon, on what no smaller one broke."""
        columns = answers_before(case, self.cases(subject), subject, before)
        columns["broken_by"] = torch.zeros(len(subject.labels), dtype=torch.int8)
        names = _ensemble(len(subject.classes))
        attack = self._attack(subject, float(case.level) / 255, names)
        total, batch = sum(COST[name] for name in names), batch_for(subject)
        for rows, images in subject.batches(columns["right"].nonzero()[:, 0], batch=batch):
            for number, name in enumerate(names, 1):
                left = columns["right"][rows].bool()
                if not left.any():
                    break
                attack.attacks_to_run = [name]
                inputs, labels = as_float(images)[left], subject.labels[rows[left]]
                predicted = _attacked(attack, inputs.contiguous(), labels)
                columns["predicted"][rows[left]] = predicted.to(torch.int32)
                broken = rows[left][predicted != labels]
                columns["right"][broken], columns["broken_by"][broken] = 0, number
            advance(len(rows) * total)
        return columns

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The accuracy over epsilon, and whether Square found what gradients did not."""
        cases, names = self.cases(subject), _ensemble(len(subject.classes))
        curve = attack_curve(
            cases, subject, found, unit="levels of 255", reference=reference
        )  # fmt: skip
        notes = []
        for case in cases:
            alone = int((found[case.key]["broken_by"] == len(names)).sum())
            if alone > SQUARE * len(subject.labels):
                notes.append(
                    f"gradient masking: at epsilon {case.level} Square, which needs no gradient, "
                    f"broke {alone:,} images that all attacks with gradients had not: the accuracy "
                    "under any attack with gradients looks too good"
                )
        if names != _ensemble(4):
            notes.append(
                f"this is not AutoAttack's standard version, whose losses need 4 classes: with "
                f"{len(subject.classes)} it was {', '.join(names)}"
            )
        return Summary(
            suite=self.name,
            title=f"AutoAttack in L-infinity ({', '.join(names)}), epsilon in levels of 255",
            numbers=curve.numbers,
            lines=(curve.line,),
            notes=tuple(notes),
            columns=curve.columns,
            rows=curve.rows,
            curve=curve.curve,
        )

    def _attack(self, subject: Subject, epsilon: float, names: tuple[str, ...]) -> Any:
        """The package's ensemble, with as many targets as there are other classes, and each attack
        as long as in the standard version."""
        attack = package().AutoAttack(
            subject.module, norm="Linf", eps=epsilon, seed=self.seed, version="custom",
            attacks=list(names), device=device_of(subject.module),
        )  # fmt: skip
        targets = min(TARGETS, len(subject.classes) - 1)
        attack.apgd.n_restarts = 1
        attack.apgd_targeted.n_target_classes = targets
        attack.fab.n_target_classes = targets
        return attack


def _ensemble(classes: int) -> tuple[str, ...]:
    """The attacks in turn for so many classes; from 4 on the standard version."""
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    if classes == 3:
        return ("apgd-ce", "apgd-dlr", "fab-t", "square")
    return ("apgd-ce", "fab-t", "square")


def _attacked(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    """The answers (B,) after the attack, which draws from torch's own generator and stops whatever
    traces Python, a debugger for one: both are put back."""
    devices = [images.device] if images.device.type == "cuda" else []
    trace = sys.gettrace()
    try:
        with torch.random.fork_rng(devices=devices):
            _, predicted = attack.run_standard_evaluation(
                images, labels.to(images.device), batch_size=len(images)
            )
    finally:
        sys.settrace(trace)
    return predicted.cpu()


def package() -> Any:
    """The package pyautoattack; raises UsageError where it is missing."""
    try:
        return importlib.import_module("pyautoattack")
    except ImportError:
        raise UsageError(
            "--robust autoattack is run by the package pyautoattack, which is not here: "
            "pip install 'tutelage[autoattack]'"
        ) from None
