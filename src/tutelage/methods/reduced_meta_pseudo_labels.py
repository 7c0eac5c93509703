"""Meta Pseudo Labels for large teachers, whose stored labels a small network corrects.

Paper: Pham, Dai, Xie, Luong, Le 2021, Meta Pseudo Labels (arXiv 2003.10580), section 4: the large
teacher's distributions are computed before; a small multi-layer perceptron takes them as input,
gives the student its labels, and learns from the feedback, so that two large networks are never in
memory together. Not said there and chosen here: one hidden layer; a residual on the logarithms with
a last layer of zeros, so that training begins with the stored labels; no loss for this teacher but
the feedback.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Clock, Dice, Metrics, fold
from tutelage.errors import UsageError
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
from tutelage.methods.method import Method, State
from tutelage.networks.build import Net

HIDDEN = 128  # units of the small teacher


class Calibrator(nn.Module):
    """A distribution over K classes, as an "image" (B, K, 1, 1), to corrected logits (B, K)."""

    def __init__(self, num_classes: int) -> None:
        """Begin as the identity."""
        super().__init__()
        self.hidden, self.out = nn.Linear(num_classes, HIDDEN), nn.Linear(HIDDEN, num_classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, stored: Tensor) -> Tensor:
        """log q + a correction that is learned."""
        probs = stored.flatten(1)
        correction: Tensor = self.out(self.hidden(probs).relu())
        return probs.clamp(min=1e-8).log() + correction


@dataclass(frozen=True, kw_only=True)
class ReducedMetaPseudoLabels(Method):
    """Joint training of a student and of the small network that corrects its stored labels."""

    teacher = "trained"
    stored = True
    finetuned = True
    unlabeled_views: tuple[str, ...] = ("strong",)  # that the student learns
    feedback: Estimator = "exact"  # or sampled, difference; none: the stored labels as they are
    labels: Kind = "auto"  # soft, sampled or argmax; auto: as suits the feedback
    baseline: float = 0.99  # decay of the mean of h; without use in exact feedback

    def __post_init__(self) -> None:
        """Reject what is out of range or does not go together."""
        check_feedback(self.feedback, self.labels, self.baseline)

    @property
    def differentiates(self) -> bool:
        """Whether feedback comes through the derivative of a lesson."""
        return differentiates(self.feedback)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """The moving mean of h ()."""
        return {"baseline": torch.zeros(())}

    def make_teacher(self, net: Net, *, seed: int) -> nn.Module:
        """The small teacher."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold(seed, Dice.INIT, 0))
            return Calibrator(net.num_classes)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One lesson for the student, then one update of the small teacher."""
        teacher, pool = state.learning_teacher(), batch.pool()
        if pool.targets is None:
            raise UsageError("the pool has no labels yet: label it with a teacher first")
        images = pool.views[self.unlabeled_views[0]]
        logits = teacher(pool.targets[:, :, None, None])
        given = pseudo_labels(logits, label_kind(self.feedback, self.labels))
        lesson = teach(state.student, images, given, batch.labeled, clock, estimator=self.feedback)
        h, told = feedback(
            self.feedback, state.student, lesson, logits, state.memory["baseline"],
            decay=self.baseline,
        )  # fmt: skip
        if self.feedback != "none":
            teacher.minimize(told, clock)
        return {"loss": lesson.loss, "exam": lesson.after.detach(), "feedback": h.detach()}
