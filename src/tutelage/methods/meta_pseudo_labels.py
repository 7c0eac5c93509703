"""The teacher learns from how its student does on the labels after each lesson.

Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), section 2, with the teacher's own
losses: labels and UDA (Xie et al. 2020, arXiv 1904.12848). This is the joint training; before it
comes a teacher that is trained by UDA, after it the student's fine-tuning on the labels.
The student sees pool images alone, and the labels only in its exams. The teacher's feedback is
sampled: h CE(y^, T(x)) with the paper's h = lr <grad L(theta'), grad CE(y^, S(x; theta))>;
difference: the same with h = L(theta) - L(theta'), the paper's approximation; exact: for soft
labels, the gradient of L(theta') through the student's step, by forward-mode derivatives; none:
nothing, so that the teacher is trained by UDA and the student by a UDA teacher's answers.

The reference code is not followed where it departs from the paper's derivation. It has new minus
old, which rewards lessons that did harm. It reinforces soft labels on the logits they came from,
whose gradient is 0; here soft labels go with `exact` alone. It compares a loss from a joint forward
in train mode with one from a forward on labels alone, which differ by batch statistics and dropout
even for a student that stands still; here both exams are in eval mode, after the lesson's forward
moved the statistics. A port in wide use rewards other labels, of another view, than the student
learned. As in the code, the baseline moves before it is subtracted, which scales h - b by 0.99.

Deviations: UDA's mask looks at p before it is sharpened, and asks p > threshold; the code masks by
the sharpened p, with >=. Pseudo-labels are not smoothed; the code's are. The student is not shown
labels in the lesson's forward, where they would share its batch statistics. One schedule and one
optimizer's settings serve both networks, without a wait for the student. h has the plain gradient
step's size: with momentum 0.9 a lesson moves the student about ten times as far in the end.
`exact` has, in expectation, U times the gradient of the others, whose cross-entropy is a mean over
U pool images; `feedback_weight` evens that out.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.errors import UsageError
from tutelage.feedback import (
    Estimator,
    Lesson,
    credit,
    exact,
    exam,
    kind_of_labels,
    prepare,
    pseudo_labels,
    reinforce,
    reward,
)
from tutelage.gates import exceeds
from tutelage.learner import Learner
from tutelage.losses import cross_entropy, kl
from tutelage.methods.method import Method, State
from tutelage.schedules import linear_ramp
from tutelage.settings import at_least, between
from tutelage.targets import smooth, temper


@dataclass(frozen=True, kw_only=True)
class MetaPseudoLabels(Method):
    """A teacher that learns beside its student, from labels, UDA and the student's exams."""

    teacher = "trained"
    finetuned = True
    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # UDA's label; UDA's input, the lesson
    feedback: Estimator = "exact"
    labels: Literal["auto", "soft", "sampled", "argmax"] = "auto"  # argmax is biased
    feedback_weight: float = 1.0  # of the feedback in the teacher's loss
    baseline: float = 0.99  # decay of h's running mean, for sampled and difference; 1: none
    smoothing: float = 0.1  # epsilon of the teacher's labels
    temperature: float = 0.7  # T of UDA; below 1 sharpens
    threshold: float = 0.6  # of UDA, a probability
    weight: float = 8.0  # of UDA's loss after the ramp
    ramp_end: float = 0.02  # share of the run after which UDA's weight is full

    def __post_init__(self) -> None:
        """Reject what is out of range, and labels that the feedback can't judge."""
        for name in ("baseline", "smoothing", "threshold", "ramp_end"):
            between(name, getattr(self, name), 0, 1)
        for name in ("feedback_weight", "weight"):
            at_least(name, getattr(self, name), 0)
        if not self.temperature > 0:
            raise UsageError(f"temperature is above 0, got {self.temperature:g}")
        kind_of_labels(self.feedback, self.labels)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """The running mean of h."""
        return {"baseline": torch.zeros(())}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One lesson for the student, and what the teacher learns from it."""
        student, teacher = state.student, state.teacher
        assert isinstance(teacher, Learner)  # the role that is declared above
        labeled, views = batch.labeled, batch.pool().views
        weak, strong = (views[name] for name in self.unlabeled_views)
        b, u = len(labeled.images), len(weak)

        joint = teacher(torch.cat([labeled.images, weak, strong]))
        on_labels, on_weak, on_strong = joint.split([b, u, u])
        labels = cross_entropy(on_labels, smooth(labeled.targets, self.smoothing))
        probs = on_weak.detach().softmax(-1)
        sure = exceeds(probs, self.threshold)
        uda = kl(on_strong, temper(probs, self.temperature), sure)

        kind = kind_of_labels(self.feedback, self.labels)
        lesson = prepare(student, strong, pseudo_labels(on_strong, kind))
        loss = cross_entropy(student(lesson.images), lesson.labels)
        old = exam(student, labeled).detach()
        student.minimize(loss, clock)
        new = exam(student, labeled)

        weight = self.weight * linear_ramp(clock.fraction, start=0, end=self.ramp_end)
        own = labels + weight * uda
        h, feedback = torch.zeros_like(old), None
        if self.feedback == "none":
            teacher.minimize(own, clock)
        else:
            h, feedback = self._feedback(state, lesson, on_strong, student.rate(clock))
            teacher.minimize(own + self.feedback_weight * feedback, clock)
