"""FixMatch with weights that fade below the student's mean confidence instead of a threshold.

Paper: Chen et al. 2023, SoftMatch (arXiv 2301.10921), section 3: an image counts fully above the
mean mu of max q and exp(-(max q - mu)^2 / (2 sigma^2)) below it; mu and the unbiased sigma^2 are
moving means over batches. Uniform alignment scales q by the uniform over the mean of q lately,
for the weight alone and not for the label.
sigma is divided by `sigmas` = 2, as in the authors' code. mu starts at 1/K and sigma^2 at 1, so
that every image counts at first.
Deviations: the mean of q is a moving mean that starts uniform, and with the first batch in that
code. The momentum is 0.99 and not 0.999, see there. A variance for each class, which that code has
as an option, is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.distributed.collectives import from_all_ranks, mean_over_ranks
from tutelage.gates import truncated_gaussian
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_both_views
from tutelage.settings import above, at_least, between
from tutelage.targets import align, hard


@dataclass(frozen=True, kw_only=True)
class SoftMatch(Method):
    """Labels, and the strong view of every pool image by how sure its weak view is."""

    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # that gives the label, that learns it
    weight: float = 1.0  # lambda, of the pool's loss
    sigmas: float = 2.0  # n_sigma; more of them fade faster below the mean
    align: bool = True  # uniform alignment, of the weights; off where the pool's classes are uneven
    momentum: float = 0.99  # of mu, sigma^2, mean q; the paper has 0.999 for a million steps

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("weight", self.weight, 0)
        between("momentum", self.momentum, 0, 1)
        above("sigmas", self.sigmas, 0)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """mu () and sigma^2 () of the confidence, and the mean answer (K,)."""
        mu, uniform = torch.tensor(1 / num_classes), torch.full((num_classes,), 1 / num_classes)
        return {"mu": mu, "variance": torch.tensor(1.0), "marginal": uniform}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and both views of the pool."""
        on_labels, on_weak, on_strong = on_both_views(state.student, batch, self.unlabeled_views)
        probs = on_weak.softmax(-1)
        sure = self._sure(state.memory, probs)
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
            "mu": state.memory["mu"].clone(),
        }

    def _sure(self, memory: dict[str, Tensor], probs: Tensor) -> Tensor:
        """The weight of each image (U,), after the moving means took the batch in."""
        mu, variance, marginal = memory["mu"], memory["variance"], memory["marginal"]
        if self.align:
            marginal.lerp_(mean_over_ranks(probs.mean(0)), 1 - self.momentum)
            uniform = torch.full_like(marginal, 1 / len(marginal))
            probs = align(probs, marginal, uniform)
        confidence = probs.amax(-1)
        everyone = from_all_ranks(confidence)
        mu.lerp_(everyone.mean(), 1 - self.momentum)
        variance.lerp_(everyone.var(), 1 - self.momentum)
        return truncated_gaussian(probs, mu, variance, sigmas=self.sigmas)
