"""`--robust fgsm,pgd,pgd-l2`: accuracy where images are changed on purpose, by how much they are.

Paper: Xie et al. 2020, Noisy Student (arXiv 1911.04252), section 4.5, has the curve of FGSM; the
attacks themselves are in attacks.py. An image that is wrong without attack counts as wrong. For PGD
so does one that a smaller epsilon broke, without being attacked again: its ball is inside. The
first starts of PGD follow cross-entropy; what they leave is attacked once with each margin loss,
and counts as right only where all fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tutelage.core import Advance
from tutelage.corruptions.draws import Draws
from tutelage.data.operations import as_float
from tutelage.networks.build import device_of
from tutelage.robustness.alarms import Tried, alarms
from tutelage.robustness.attack_curve import answers_before, attack_curve, level, radii
from tutelage.robustness.attacks import Attack, noise, pgd, slope, stepped
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
)

FGSM = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # levels of 255; from 2 on as Noisy Student
PGD = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # 8: customary for defended networks on CIFAR, 4 on ImageNet
# At 32 px, where 0.5 and 1 are customary for defended networks; times side / 32 for others, as the
# length of a change of so many levels grows: at 224 px 0.35 to 7, around the customary 3
PGD_L2 = (0.05, 0.1, 0.25, 0.5, 1.0)
PIXELS = {"cpu": 2**19}  # of a batch at most, for what is kept for the gradient; elsewhere:
MANY_PIXELS = 2**21


@dataclass(frozen=True, kw_only=True)
class UnderAttack(Suite):
    """An attack with the gradients of the model itself, in several sizes."""

    confident: ClassVar[bool] = False

    kind: Literal["fgsm", "pgd", "pgd-l2"]
    epsilon: tuple[float, ...] = ()  # levels of 255, or Euclidean lengths for pgd-l2
    steps: int = 10
    restarts: int = 2
    seed: int = 0

    @property
    def name(self) -> str:
        """As in --robust."""
        return self.kind

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on: for PGD also the other epsilons, as what a smaller one
        broke stays broken."""
        if self.kind == "fgsm":
            return {"seed": self.seed, "version": 1}
        given = ("epsilon", "steps", "restarts", "seed")
        return {key: value for key, value in vars(self).items() if key in given} | {"version": 1}

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """An epsilon each, from small to large."""
        passes = 5 if self.kind == "fgsm" else 5 + len(self._attempts(subject)) * self._passes
        found = [one for one in self._radii(subject.size) if one > 0]
        return tuple(Case(self.kind, "epsilon", level(one), passes) for one in found)

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """One epsilon: noise of that size, a single step, and PGD on what is right still."""
        attack = Attack(
            epsilon=float(case.level) / (1 if self.kind == "pgd-l2" else 255),
            norm="l2" if self.kind == "pgd-l2" else "linf",
            steps=self.steps,
        )
        cases = () if self.kind == "fgsm" else self.cases(subject)
        columns = _columns(answers_before(case, cases or (case,), subject, before))
        self._noise(subject, attack, case, columns)
        self._step(subject, attack, columns)
        advance(5 * len(subject.labels))
        if self.kind != "fgsm":
            for number, loss in enumerate(self._attempts(subject)):
                given = Attack(**(vars(attack) | {"loss": loss}))
                self._attempt(subject, given, case, columns, number=number, advance=advance)
        return columns

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The accuracy over epsilon, and what looks like gradients that tell nothing."""
        cases = self.cases(subject)
        unit = "Euclidean length in [0, 1]" if self.kind == "pgd-l2" else "levels of 255"
        curve = attack_curve(cases, subject, found, unit=unit, reference=reference)
        notes = [*alarms(self._tried(subject, subject.clean, found))]
        if reference is not None:
            others = alarms(self._tried(subject, reference.clean, reference.found))
            notes += [f"of {reference.name}: {one}" for one in others]
        return Summary(
            suite=self.kind,
            title=self._title(unit),
            numbers=curve.numbers,
            lines=(curve.line,),
            notes=tuple(notes),
            columns=curve.columns,
            rows=curve.rows,
            curve=curve.curve,
        )

    def _title(self, unit: str) -> str:
        """The attack in words."""
        if self.kind == "fgsm":
            return f"FGSM, epsilon in {unit}"
        norm = "L2" if self.kind == "pgd-l2" else "L-infinity"
        starts = "1 start" if self.restarts == 1 else f"{self.restarts} starts"
        return f"PGD in {norm}, {self.steps} steps, {starts}, epsilon in {unit}"

    def _radii(self, size: int) -> tuple[float, ...]:
        """The epsilons for images of so many pixels, in the unit that users give."""
        default = {
            "fgsm": FGSM, "pgd": PGD, "pgd-l2": tuple(one * size / 32 for one in PGD_L2)
        }  # fmt: skip
        return radii(self.epsilon, default[self.kind])

    @property
    def _passes(self) -> int:
        """What an attempt costs an image, in forward passes."""
        return 3 * self.steps + 1

    def _attempts(self, subject: Subject) -> tuple[str, ...]:
        """The losses in turn; each attempt has a random start of its own."""
        margins = ("cw", "dlr") if len(subject.classes) > 2 else ("cw",)
        return ("cross-entropy",) * self.restarts + margins

    def _draws(self, subject: Subject, rows: Tensor, case: Case, use: str) -> Draws:
        """What is drawn for these images."""
        keys = [f"{self.seed}/{key}/{case.key}/{use}" for key in subject.keys(rows)]
        return Draws(keys, device_of(subject.module))

    def _noise(self, subject: Subject, attack: Attack, case: Case, columns: Columns) -> None:
        """Which of the images that are right clean are so under random noise of that size."""
        clean = subject.clean["predicted"] == subject.labels
        columns["noise_right"] = clean.byte()
        for rows, images in subject.batches(clean.nonzero()[:, 0]):
            noisy = noise(as_float(images), attack, self._draws(subject, rows, case, "noise"))
            right = subject.logits(noisy).argmax(1).cpu() == subject.labels[rows]
            columns["noise_right"][rows] = right.byte()

    def _step(self, subject: Subject, attack: Attack, columns: Columns) -> None:
        """The single step on all that is right still, for FGSM the attack itself."""
        alive = columns["right"].nonzero()[:, 0]
        for rows, images in subject.batches(alive, batch=batch_for(subject)):
            floats, labels = as_float(images), subject.labels[rows].to(images.device)
            here = slope(subject.module, floats, labels=labels, attack=attack)
            there = subject.logits(stepped(floats, here.gradient, attack))
            right = (there.argmax(1) == labels).byte().cpu()
            columns["loss_before"][rows] = here.loss.cpu()
            columns["zero_gradient"][rows] = (here.gradient == 0).flatten(1).float().mean(1).cpu()
            columns["step_right"][rows] = right
            if self.kind == "fgsm":
                columns["right"][rows] = right
                columns["predicted"][rows] = there.argmax(1).to(torch.int32).cpu()
                loss = torch.nn.functional.cross_entropy(there, labels, reduction="none")
                columns["loss_after"][rows] = loss.cpu()

    def _attempt(
        self, subject: Subject, attack: Attack, case: Case, columns: Columns,
        *, number: int, advance: Advance,
    ) -> None:  # fmt: skip
        """PGD once on what all attempts before have left."""
        alive = columns["right"].nonzero()[:, 0]
        for rows, images in subject.batches(alive, batch=batch_for(subject)):
            draws = self._draws(subject, rows, case, str(number))
            labels = subject.labels[rows].to(images.device)
            found = pgd(subject.module, as_float(images), labels=labels, attack=attack, draws=draws)
            reached = found.reached.cpu()
            columns["right"][rows] = (~reached).byte()
            columns["predicted"][rows] = found.predicted.to(torch.int32).cpu()
            if number == 0:
                columns["loss_after"][rows] = found.loss.cpu()
            elif attack.loss == "cross-entropy":
                columns["broken_by_restart"][rows] = reached.byte()
            else:
                columns["broken_by_margin"][rows] = reached.byte()
            advance(len(rows) * self._passes)

    def _tried(
        self, subject: Subject, clean: Columns, found: Mapping[str, Columns]
    ) -> list[Tried]:  # fmt: skip
        """The cases as the alarms see them."""
        large = PGD_L2[-1] * subject.size / 32 if self.kind == "pgd-l2" else PGD[-1]
        return [
            Tried(
                said=f"epsilon {case.level}",
                clean=clean["predicted"] == subject.labels,
                columns=found[case.key],
                one_step=self.kind == "fgsm",
                smallest=place == 0,
                telling=float(case.level) >= large,
            )
            for place, case in enumerate(self.cases(subject))
        ]


def batch_for(subject: Subject) -> int:
    """Images at once, of which everything is kept that the gradient needs."""
    device = device_of(subject.module).type
    most = 64 if device == "cpu" else 512
    return max(1, min(most, PIXELS.get(device, MANY_PIXELS) // subject.size**2))


def _columns(answers: Columns) -> Columns:
    """The columns of a case before it is run; what is not measured stays NaN."""
    right = answers["right"]
    unknown = torch.full((len(right),), torch.nan)
    return answers | {
        "loss_before": unknown.clone(),
        "loss_after": unknown.clone(),
        "zero_gradient": unknown.clone(),
        "step_right": right.clone(),
        "noise_right": right.clone(),
        "broken_by_restart": torch.zeros_like(right),
        "broken_by_margin": torch.zeros_like(right),
    }
