"""A noised student on labels and on a pool whose labels a teacher wrote down.

Paper: Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification
(arXiv 1911.04252), algorithm 1, step 4:
(1/n) sum l(y_i, f_noised(x_i)) + (1/m) sum l(y~_i, f_noised(x~_i)).
The reference code divides both sums by the labeled batch, so that the pool weighs m/n times:
`normalize="per_sample"`. It smooths true labels and hard pseudo-labels, never soft ones. One
forward over both streams shares the batch-norm statistics, as there; where the pool images get no
noise (section 4.1's ablation) each stream has a forward and statistics of its own. Deviation:
`weight` scales the pool's loss; the paper has 1.
"""

from dataclasses import dataclass
from typing import Literal

from tutelage.core import Batch, Clock, Metrics
from tutelage.errors import UsageError
from tutelage.learner import modes
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_each
from tutelage.settings import at_least, between
from tutelage.targets import smooth


@dataclass(frozen=True, kw_only=True)
class NoisyStudent(Method):
    """Noisy Student's step 4, on the targets of the pool's label table."""

    stored = True
    labeled_view: str = "strong"
    unlabeled_views: tuple[str, ...] = ("strong",)  # plain: no augmentation of the pool
    smoothing: float = 0.1  # epsilon, for one-hot targets alone
    hard: bool = False  # whether the table's targets are one-hot
    weight: float = 1.0  # of the pool's loss
    labels_weight: float = 1.0  # of the labels' loss; 0 to learn from the pool alone
    normalize: Literal["per_stream", "per_sample"] = "per_stream"  # see above
    dropout_on_pool: bool = True  # dropout and stochastic depth on pool images

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("smoothing", self.smoothing, 0, 1)
        at_least("weight", self.weight, 0)
        at_least("labels_weight", self.labels_weight, 0)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and pool together."""
        labeled, pool = batch.labeled, batch.pool()
        if pool.targets is None:
            raise UsageError("the pool has no labels yet: label it with a teacher first")
        if self.dropout_on_pool:
            on_labels, on_pool = on_each(state.student, batch, self.unlabeled_views)
        else:
            on_labels = state.student(labeled.images)
            with modes(state.student.module, noise=False, statistics=True):
                on_pool = state.student(pool.views[self.unlabeled_views[0]])
        stored = smooth(pool.targets, self.smoothing) if self.hard else pool.targets
        labels = cross_entropy(on_labels, smooth(labeled.targets, self.smoothing))
        pseudo = cross_entropy(on_pool, stored)
        ratio = len(on_pool) / len(on_labels) if self.normalize == "per_sample" else 1.0
        loss = self.labels_weight * labels + self.weight * ratio * pseudo
        state.student.minimize(loss, clock)
        return {"loss": loss.detach(), "labels": labels.detach(), "pseudo": pseudo.detach()}
