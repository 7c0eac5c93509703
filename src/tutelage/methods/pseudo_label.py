"""The student's own surest class as the label of a pool image, anew at every step.

Paper: Lee 2013, Pseudo-Label (ICML Workshop on Challenges in Representation Learning), section 2:
(1/n) sum l(y, f) + alpha(t) (1/n') sum l(y', f'), where y' is the argmax of f' without gradient
and alpha(t) is 0, then a line, then constant. `target=entropy` is Grandvalet & Bengio 2004,
Semi-supervised Learning by Entropy Minimization: the entropy of f' itself, whose gradient goes
through both of its factors. A soft label without gradient is not offered: on the same view it
gives the student nothing, as softmax(z) - q is 0.
Deviations: softmax and cross-entropy, where the paper has a sigmoid and a binary cross-entropy
for each class. T1 and T2 are shares of the run and not epochs, and the final weight is 1 and not
3. The paper learns from all images (`selection=none`); the default keeps the sure ones, as later
comparisons do. Like theirs, the mean counts images that were not kept. They leave the pool out
of batch norm's running statistics; here both streams share one forward as soon as alpha is
above 0, and before that the pool is not shown at all.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.gates import exceeds
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_each
from tutelage.schedules import linear_ramp
from tutelage.settings import at_least, between
from tutelage.targets import hard


@dataclass(frozen=True, kw_only=True)
class PseudoLabel(Method):
    """Labels, and the pool under the student's own labels with a weight that grows."""

    unlabeled_views: tuple[str, ...] = ("weak",)  # that gives the label and learns it
    target: Literal["argmax", "entropy"] = "argmax"  # entropy: minimize it, with full gradient
    selection: Literal["none", "gate", "confidence"] = "gate"  # all; max p > threshold; by max p
    threshold: float = 0.95  # tau of the gate, a probability
    gamma: float = 1.0  # with selection=confidence an image weighs (max p)^gamma
    weight: float = 1.0  # alpha_f, of the pool's loss after the ramp
    ramp_start: float = 0.0  # T1, share of the run without the pool
    ramp_end: float = 0.4  # T2, share of the run after which the weight is full

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("threshold", self.threshold, 0, 1)
        at_least("gamma", self.gamma, 0)
        at_least("weight", self.weight, 0)
        between("ramp_start", self.ramp_start, 0, 1)
        between("ramp_end", self.ramp_end, self.ramp_start, 1)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and, where alpha(t) is above 0, on the pool."""
        labeled = batch.labeled
        alpha = self.weight * linear_ramp(clock.fraction, start=self.ramp_start, end=self.ramp_end)
        if alpha == 0:  # to the last bit what training without a pool does
            labels = cross_entropy(state.student(labeled.images), labeled.targets)
            state.student.minimize(labels, clock)
            nothing = torch.zeros_like(labels)
            return self._metrics(labels, labels, nothing, nothing)
        on_labels, on_pool = on_each(state.student, batch, self.unlabeled_views)
        probs = on_pool.softmax(-1)
        sure = self._sure(probs.detach())
        target = hard(probs.detach()) if self.target == "argmax" else probs
        labels = cross_entropy(on_labels, labeled.targets)
        pseudo = cross_entropy(on_pool, target, sure)
        loss = labels + alpha * pseudo
        state.student.minimize(loss, clock)
        return self._metrics(loss, labels, pseudo, sure.mean())

    def _sure(self, probs: Tensor) -> Tensor:
        """How much each image counts (U,)."""
        if self.selection == "gate":
            return exceeds(probs, self.threshold)
        if self.selection == "confidence":
            return probs.amax(-1) ** self.gamma
        return torch.ones_like(probs[:, 0])

    def _metrics(self, loss: Tensor, labels: Tensor, pseudo: Tensor, sure: Tensor) -> Metrics:
        """What is logged; `pseudo` and `sure` are 0 while the pool is not shown."""
        parts = {"loss": loss, "labels": labels, "pseudo": pseudo, "sure": sure}
        return {name: value.detach() for name, value in parts.items()}
