"""A student learns the softened answers of a teacher, and the labels beside them.

Paper: Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network (arXiv 1503.02531),
section 2: with q(T) = softmax(z_teacher / T) and p(T) = softmax(z_student / T),
soft_weight T^2 KL(q(T) || p(T)) + hard_weight CE(y, p(1)).
KL differs from the paper's cross-entropy by the entropy of q, which has no gradient, and is 0 where
the student has matched the teacher. Both terms are means over images; torch's `reduction="mean"`
would also divide the soft one by the number of classes.
The two weights are independent of each other; other code often has (alpha, 1 - alpha), and the
defaults add to 1 as there. The paper advises a considerably lower weight for the labels and gives
no number; T = 4 is what timm's command line has.
Deviations: teacher and student see the same view of each image, noise and all, which Beyer et al.
2022 (arXiv 2106.05237) find to matter most; the paper has no such noise. Pool images have the soft
term alone and count in its mean like labeled ones. `on=pool` with `hard_weight=0` never looks at a
labeled image.
"""

from dataclasses import dataclass

import torch

from tutelage.core import Batch, Clock, Metrics
from tutelage.losses import cross_entropy, distillation
from tutelage.methods.method import Method, On, State, shown
from tutelage.settings import above, at_least


@dataclass(frozen=True, kw_only=True)
class Hinton(Method):
    """Softened answers of a frozen teacher, and the labels."""

    teacher = "frozen"
    labeled_view: str = "strong"
    unlabeled_views: tuple[str, ...] = ("strong",)  # of the pool, for both networks
    temperature: float = 4.0  # T, of both networks' answers in the soft term
    soft_weight: float = 0.9  # of the teacher's term
    hard_weight: float = 0.1  # of the labels' term; 0 to learn from the teacher alone
    on: On = "both"  # both, labels or pool: the images that the teacher is asked about

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        above("temperature", self.temperature, 0)
        at_least("soft_weight", self.soft_weight, 0)
        at_least("hard_weight", self.hard_weight, 0)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on the teacher's answers and on the labels."""
        labeled = batch.labeled
        asked, shared = shown(batch, self.on, self.unlabeled_views[0])
        seen = asked
        if self.hard_weight and not shared:  # labeled images that the teacher is not asked about
            seen = torch.cat([labeled.images, asked])
        logits = state.student(seen)
        soft = distillation(logits[-len(asked) :], state.ask(asked), self.temperature)
        loss, metrics = self.soft_weight * soft, {"soft": soft.detach()}
        if self.hard_weight:
            hard = cross_entropy(logits[: len(labeled.images)], labeled.targets)
            loss = loss + self.hard_weight * hard
            metrics["hard"] = hard.detach()
        state.student.minimize(loss, clock)
        return {"loss": loss.detach()} | metrics
