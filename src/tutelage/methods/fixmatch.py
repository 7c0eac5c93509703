"""A strong view learns the class that the student is sure of on the weak view.

Paper: Sohn et al. 2020, FixMatch (arXiv 2001.07685), equations 3 and 4 and algorithm 1:
(1/B) sum H(y, p(y | weak x)) + lambda_u (1/(mu B)) sum 1[max q >= tau] H(argmax q, p(y | strong u))
with q = p(y | weak u) and no gradient through it. The mean counts images below the threshold.
One forward over all three streams shares the batch-norm statistics, as in the reference code; where
they don't move, the weak stream is asked alone.
`align` adds distribution alignment (ReMixMatch, Berthelot et al. 2020, arXiv 1911.09785): q times
the labels' marginal over that of the student's lately, renormalized, before it is judged.
Deviations: the strong view is RandAugment with a square of Cutout at this package's strength.
Alignment's marginals are moving means; that paper averages the last 128 batches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.distributed.collectives import mean_over_ranks
from tutelage.gates import reaches
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_both_views
from tutelage.settings import at_least, between
from tutelage.targets import align, hard


@dataclass(frozen=True, kw_only=True)
class FixMatch(Method):
    """Labels, and the strong view of each pool image whose weak view is sure."""

    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # that gives the label, that learns it
    threshold: float = 0.95  # tau, a probability
    weight: float = 1.0  # lambda_u, of the pool's loss
    align: bool = False  # whether the pool is expected to have the labels' shares of classes
    momentum: float = 0.99  # of alignment's marginals; 0.99 looks back 100 steps, ReMixMatch 128

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("threshold", self.threshold, 0, 1)
        at_least("weight", self.weight, 0)
        between("momentum", self.momentum, 0, 1)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """Moving means of the labels and of the answers to the pool, both uniform at first."""
        uniform = torch.full((num_classes,), 1 / num_classes)
        return {"wanted": uniform, "marginal": uniform.clone()} if self.align else {}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and both views of the pool."""
        on_labels, on_weak, on_strong = on_both_views(state.student, batch, self.unlabeled_views)
        probs = on_weak.softmax(-1)
        if self.align:
            state.memory["wanted"].lerp_(
                mean_over_ranks(batch.labeled.targets.mean(0)), 1 - self.momentum
            )
            state.memory["marginal"].lerp_(mean_over_ranks(probs.mean(0)), 1 - self.momentum)
            probs = align(probs, state.memory["marginal"], state.memory["wanted"])
        sure = reaches(probs, self.threshold)
        labels = cross_entropy(on_labels, batch.labeled.targets)
        pseudo = cross_entropy(on_strong, hard(probs), sure)
        loss = labels + self.weight * pseudo
        state.student.minimize(loss, clock)
        return {
            "loss": loss.detach(),
            "labels": labels.detach(),
            "pseudo": pseudo.detach(),
            "sure": sure.mean(),
            "confidence": probs.amax(-1).mean(),
        }
