"""FixMatch with a lower threshold for classes of which few images were sure so far.

Paper: Zhang et al. 2021, FlexMatch (arXiv 2110.08263), section 3 and algorithm 1: each pool image
remembers the class that it was last sure of, max q > tau; beta_c is the count of class c over the
largest count, or over the images that were never sure while these are more (threshold warm-up);
an image counts where max q > tau beta/(2 - beta) of its class (convex mapping).
The thresholds of a step follow from the memory before it. At the start beta is 0, so that every
image counts. The memory needs a row for each pool image, and images of the pool that are never
shown would count as never sure.
Deviations: >= instead of >, as in the authors' code, so that beta = 1 is FixMatch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics, sent
from tutelage.distributed.collectives import from_all_ranks
from tutelage.gates import convex, learning_status, reaches
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_both_views
from tutelage.settings import at_least, between
from tutelage.targets import hard


@dataclass(frozen=True, kw_only=True)
class FlexMatch(Method):
    """Labels, and the strong view of pool images whose weak view is sure for its class."""

    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # that gives the label, that learns it
    threshold: float = 0.95  # tau, of the best learned class
    weight: float = 1.0  # lambda, of the pool's loss

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("threshold", self.threshold, 0, 1)
        at_least("weight", self.weight, 0)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """The class that each pool image was last sure of, -1 for none (N,)."""
        return {"sure_of": torch.full((pool_size,), -1)}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and both views of the pool."""
        on_labels, on_weak, on_strong = on_both_views(state.student, batch, self.unlabeled_views)
        probs = on_weak.softmax(-1)
        beta = learning_status(state.memory["sure_of"], probs.shape[-1])
        sure = reaches(probs, self.threshold * convex(beta))
        self._remember(state.memory["sure_of"], batch.pool().rows, probs)
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

    def _remember(self, sure_of: Tensor, rows: Tensor, probs: Tensor) -> None:
        """Note the class of images above tau, in place."""
        rows = sent(rows, sure_of.device)
        new = torch.where(reaches(probs, self.threshold) > 0, probs.argmax(-1), sure_of[rows])
        rows, new = from_all_ranks(rows), from_all_ranks(new)
        # the largest where an image comes twice: the order of plain writes is open on a GPU
        sure_of.scatter_reduce_(0, rows, new, "amax", include_self=False)
