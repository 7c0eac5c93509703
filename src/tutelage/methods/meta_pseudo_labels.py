"""A teacher learns from how its student does on the labels after each lesson.

Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), section 2, with UDA (Xie et al.
2020, arXiv 1904.12848) as the teacher's own loss beside the labels. This is the joint training:
before it comes a teacher trained by UDA alone, after it the student's fine-tuning on the labels,
which the student sees in its exams only. What the teacher gets back is
sampled: h CE(y^, T(x)), h = lr <grad L(theta'), grad CE(y^, S(x; theta))>, as the paper derives it;
difference: the same with h = L(theta) - L(theta'), the paper's approximation, old minus new;
exact: for soft labels, the gradient of L(theta') through the student's step;
none: nothing, for comparison: UDA's teacher, and a student that learns its answers.

The reference code is not followed in these points. Its h is new minus old, which rewards harm. It
reinforces soft labels on the logits they come from, where the gradient is 0; here soft labels go
with `exact`. Its old loss is of a forward together with pool images and its new one of the labels
alone, both in train mode, so that they differ for a student that stands still; here both exams are
in eval mode, after the lesson's forward has moved the batch-norm statistics. A port in wide use
rewards labels of the strong view where the student learned those of the weak one.
Like the code, h moves the baseline before it is compared with it, which scales h - b by its decay.

Deviations: UDA's mask is p > threshold before sharpening; the code's is >= after it. Pseudo-labels
are not smoothed, and labels take no part in the lesson's batch statistics, as both do in the code.
One set of optimizer settings serves both networks. h is that of a plain gradient step, without
momentum and the like, except for `difference`. Cross-entropies are means over the batch, so that
sampled and difference have, in expectation, 1/U of the gradient of exact, for U pool images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.feedback import (
    Estimator,
    Kind,
    check_feedback,
    differentiates,
    feedback,
    label_kind,
    pseudo_labels,
    teach,
)
from tutelage.gates import exceeds
from tutelage.losses import cross_entropy, kl
from tutelage.methods.method import Method, State, on_both_views
from tutelage.schedules import linear_ramp
from tutelage.settings import above, at_least, between
from tutelage.targets import smooth, temper


@dataclass(frozen=True, kw_only=True)
class MetaPseudoLabels(Method):
    """A student learns a teacher's labels of the pool; the teacher learns to give better ones."""

    teacher = "trained"
    finetuned = True
    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # UDA's label; what both learn on
    feedback: Estimator = "exact"  # or sampled, difference; none is the control run
    labels: Kind = "auto"  # soft, sampled or argmax, which is biased; auto: as suits the feedback
    feedback_weight: float = 1.0  # of the feedback in the teacher's loss
    baseline: float = 0.99  # decay of the running mean of h that is subtracted; 1: none is
    smoothing: float = 0.1  # epsilon of the teacher's labels
    temperature: float = 0.7  # T of UDA; below 1 sharpens
    threshold: float = 0.6  # of UDA, for the probability before sharpening
    weight: float = 8.0  # of UDA's loss after the ramp
    ramp_end: float = 0.02  # share of the run after which UDA's weight is full

    def __post_init__(self) -> None:
        """Reject what is out of range, and labels that the feedback can't judge."""
        check_feedback(self.feedback, self.labels, self.baseline)
        between("smoothing", self.smoothing, 0, 1)
        between("threshold", self.threshold, 0, 1)
        between("ramp_end", self.ramp_end, 0, 1)
        at_least("feedback_weight", self.feedback_weight, 0)
        at_least("weight", self.weight, 0)
        above("temperature", self.temperature, 0)

    @property
    def differentiates(self) -> bool:
        """Whether feedback comes through the derivative of a lesson."""
        return differentiates(self.feedback)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """The running mean of h."""
        return {"baseline": torch.zeros(())}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One lesson for the student, and one update of the teacher."""
        student, teacher = state.student, state.learning_teacher()
        labeled, strong = batch.labeled, batch.pool().views[self.unlabeled_views[1]]
        on_labels, on_weak, on_strong = on_both_views(teacher, batch, self.unlabeled_views)
        labels = cross_entropy(on_labels, smooth(labeled.targets, self.smoothing))
        probs = on_weak.softmax(-1)
        sure = exceeds(probs, self.threshold)
        uda = kl(on_strong, temper(probs, self.temperature), sure)
        weight = self.weight * linear_ramp(clock.fraction, start=0, end=self.ramp_end)
        own = labels + weight * uda

        given = pseudo_labels(on_strong, label_kind(self.feedback, self.labels))
        lesson = teach(student, strong, given, labeled, clock, estimator=self.feedback)
        baseline = state.memory["baseline"]
        h, told = feedback(self.feedback, student, lesson, on_strong, baseline, decay=self.baseline)
        teacher.minimize(own + self.feedback_weight * told, clock)
        return {
            "loss": lesson.loss,
            "exam": lesson.after.detach(),
            "feedback": h,
            "labels": labels.detach(),
            "uda": uda.detach(),
            "sure": sure.mean(),
        }
