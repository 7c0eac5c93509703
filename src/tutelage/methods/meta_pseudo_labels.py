"""A teacher learns from how well its student does on the labels after each lesson.

Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), section 2 and appendices A and B
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.feedback import (
    Estimator,
    Kind,
    credit,
    exact,
    exam,
    pseudo_labels,
    reinforce,
    reward,
    start_of,
)
from tutelage.gates import reaches
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State
from tutelage.schedules import linear_ramp
from tutelage.targets import smooth, temper


@dataclass(frozen=True, kw_only=True)
class MetaPseudoLabels(Method):
    """The joint training of teacher and student."""

    teacher = "trained"
    finetuned = True
    unlabeled_views: tuple[str, ...] = ("weak", "strong")
    feedback: Estimator = "exact"
    labels: Literal["auto"] | Kind = "auto"
    feedback_weight: float = 1.0
    baseline: float = 0.99
    smoothing: float = 0.15
    temperature: float = 0.7
    threshold: float = 0.6
    weight: float = 8.0
    ramp_end: float = 0.02

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        return {"baseline": torch.zeros(())}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        student, teacher = state.student, state.teacher
        labeled, views = batch.labeled, batch.pool().views
        weak, strong = (views[name] for name in self.unlabeled_views)
        b, u = len(labeled.images), len(weak)
        joint = teacher(torch.cat([labeled.images, weak, strong]))
        on_labels, on_weak, on_strong = joint.split([b, u, u])
        labels = cross_entropy(on_labels, smooth(labeled.targets, self.smoothing))
        probs = on_weak.detach().softmax(-1)
        sure = reaches(probs, self.threshold)
        uda = cross_entropy(on_strong, temper(probs, self.temperature), sure)

        kind = (
            self.labels
            if self.labels != "auto"
            else ("sampled" if self.feedback in ("sampled", "difference") else "soft")
        )
        pseudo = pseudo_labels(on_strong, kind)
        start = start_of(student)
        lesson = cross_entropy(student(strong), pseudo)
        old = exam(student, labeled).detach()
        student.minimize(lesson, clock)
        new = exam(student, labeled)
        lr = student.rate(clock)
        if self.feedback == "difference":
            h = old - new.detach()
        elif self.feedback == "none":
            h = torch.zeros_like(old)
        else:
            slopes = credit(student, start, strong, new)
            h = reward(pseudo, slopes, lr)
        if self.feedback == "exact":
            fb = exact(on_strong, slopes, lr)
        else:
            base = state.memory["baseline"].lerp_(h, 1 - self.baseline)
            fb = reinforce(on_strong, pseudo, h - base)
        w = self.weight * linear_ramp(clock.fraction, start=0, end=self.ramp_end)
        teacher.minimize(labels + w * uda + self.feedback_weight * fb, clock)
        return {
            "loss": lesson.detach(),
            "exam": new.detach(),
            "feedback": h,
            "labels": labels.detach(),
            "uda": uda.detach(),
            "sure": sure.mean(),
        }
