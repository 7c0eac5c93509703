"""A strong view learns the sharpened answer that the student gives to the weak view.

Paper: Xie et al. 2020, Unsupervised Data Augmentation (arXiv 1904.12848), equation 1, with:
KL(p(y | weak)^(1/T) / Z || p(y | strong)), over images with max p(y | weak) > beta, and training
signal annealing (TSA), which leaves out labeled images that are known already.
The mask looks at p before it is sharpened, and the mean counts masked images; TSA's divides by
the labeled images that are kept, with p(true class) <= eta, as in the reference code. A port in
wide use departs in three ways, none of them taken over: its TSA looks at the surest class instead
of the true one and divides by all images, and it never applies T.
Deviations: the strong view is RandAugment with Cutout at this package's strength, drawn anew at
every step; the code draws from 100 versions that were written down before.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.gates import exceeds, unlearned
from tutelage.losses import cross_entropy, kl
from tutelage.methods.method import Method, State, on_both_views
from tutelage.schedules import signal_annealing
from tutelage.settings import above, at_least, between
from tutelage.targets import temper


@dataclass(frozen=True, kw_only=True)
class UDA(Method):
    """Labels, and the divergence between two views of each sure pool image."""

    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # that gives the label, that learns it
    threshold: float = 0.8  # beta, of the probability before sharpening
    temperature: float = 0.4  # T; below 1 sharpens
    weight: float = 1.0  # lambda, of the pool's loss
    tsa: Literal["none", "linear", "log", "exp"] = "none"  # curve of eta: log rises first, exp last

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("threshold", self.threshold, 0, 1)
        at_least("weight", self.weight, 0)
        above("temperature", self.temperature, 0)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and both views of the pool."""
        on_labels, on_weak, on_strong = on_both_views(state.student, batch, self.unlabeled_views)
        probs = on_weak.softmax(-1)
        sure = exceeds(probs, self.threshold)
        counted = self._unlearned(on_labels.detach().softmax(-1), batch.labeled.targets, clock)
        labels = cross_entropy(on_labels, batch.labeled.targets, counted, over="kept")
        pseudo = kl(on_strong, temper(probs, self.temperature), sure)
        loss = labels + self.weight * pseudo
        state.student.minimize(loss, clock)
        return {
            "loss": loss.detach(),
            "labels": labels.detach(),
            "pseudo": pseudo.detach(),
            "sure": sure.mean(),
            "confidence": probs.amax(-1).mean(),
        }

    def _unlearned(self, probs: Tensor, targets: Tensor, clock: Clock) -> Tensor | None:
        """TSA's mask of labeled images (B,); None where it is off."""
        if self.tsa == "none":
            return None
        eta = signal_annealing(clock.fraction, targets.shape[-1], self.tsa)
        return unlearned(probs, targets, eta)
