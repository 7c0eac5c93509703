"""The student agrees on the pool with the moving average of its own weights.

Paper: Tarvainen & Valpola 2017, Mean teachers are better role models (arXiv 1703.01780), section 2:
theta' <- alpha theta' + (1 - alpha) theta after each step, and a consistency cost
||f(x, theta') - f(x, theta)||^2 between softmaxes, with a weight that grows like
exp(-5 (1 - t)^2). The average is the one that is kept anyway: `--optim.ema` is alpha.
Public code takes the mean over classes; here the square is summed, as the paper writes it, so that
its weight w is w / K here.
Deviations: both networks see noise of one kind in the paper, each its own draw; here the teacher
sees the weak view and the student the strong one. The teacher answers in eval mode; theirs has
dropout and batch statistics. The cost counts pool images alone; theirs labeled ones as well.
Early on alpha is (1 + t) / (10 + t), and after that one constant.
"""

from dataclasses import dataclass

from tutelage.core import Batch, Clock, Metrics
from tutelage.losses import cross_entropy, squared_error
from tutelage.methods.method import Method, State, on_each
from tutelage.schedules import sigmoid_ramp
from tutelage.settings import at_least, between


@dataclass(frozen=True, kw_only=True)
class MeanTeacher(Method):
    """Labels, and the distance to the averaged weights' answer on the pool."""

    averaged = True
    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # of the teacher, of the student
    weight: float = 5.0  # w, of the consistency cost after the ramp
    ramp_end: float = 0.4  # share of the run after which the weight is full

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("weight", self.weight, 0)
        between("ramp_end", self.ramp_end, 0, 1)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and pool."""
        seen_by_teacher, seen_by_student = self.unlabeled_views
        on_labels, on_pool = on_each(state.student, batch, (seen_by_student,))
        probs = state.student.slow(batch.pool().views[seen_by_teacher]).softmax(-1)
        labels = cross_entropy(on_labels, batch.labeled.targets)
        pseudo = squared_error(on_pool, probs)
        weight = self.weight * sigmoid_ramp(clock.fraction, end=self.ramp_end)
        loss = labels + weight * pseudo
        state.student.minimize(loss, clock)
        return {
            "loss": loss.detach(),
            "labels": labels.detach(),
            "pseudo": pseudo.detach(),
            "confidence": probs.amax(-1).mean(),
        }
