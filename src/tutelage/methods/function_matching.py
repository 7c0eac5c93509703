"""A student answers as the teacher does on mixed images, and no label is looked at.

Paper: Beyer et al. 2022, Knowledge distillation: A good teacher is patient and consistent
(arXiv 2106.05237), "function matching" in section 3: KL(p_teacher || p_student), both softened by
T, on one crop, flip and MixUp with lambda ~ U[0, 1] that both networks see. T^2 scales the loss as
in the authors' big_vision code. Patience is the method's other half: it loses to others in short
trainings and wins in very long ones.
One lambda a batch, and each image's partner is the one before it, as in that code. There lambda is
folded to max(lambda, 1 - lambda), which renames who is the partner and changes nothing without
labels.
Deviations: images are those of the pool, the labeled ones without their labels, or both as one
set. Several teachers are averaged (networks/teachers.py), where that code adds their losses up.
"""

from dataclasses import dataclass

from tutelage.core import Batch, Clock, Metrics
from tutelage.distributed.collectives import moved_on
from tutelage.losses import distillation
from tutelage.methods.method import Method, On, State, shown
from tutelage.mixing import mixup
from tutelage.settings import above, at_least


@dataclass(frozen=True, kw_only=True)
class FunctionMatching(Method):
    """The teacher's function, on images between images."""

    teacher = "frozen"
    unlabeled_views: tuple[str, ...] = ("weak",)  # of the pool, for both networks
    temperature: float = 1.0  # T
    mixup: float = 1.0  # alpha of Beta(alpha, alpha), MixUp's share; 1 is uniform, 0: no MixUp
    on: On = "both"  # both, labels or pool: the images that both networks see

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        above("temperature", self.temperature, 0)
        at_least("mixup", self.mixup, 0)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on the teacher's answers to mixed images."""
        images, labeled = shown(batch, self.on, self.unlabeled_views[0])
        partners = moved_on(images, labeled, len(images) - labeled)
        images = mixup(self.mixup, generator=state.dice).images(images, partners)
        loss = distillation(state.student(images), state.ask(images), self.temperature)
        state.student.minimize(loss, clock)
        return {"loss": loss.detach()}
