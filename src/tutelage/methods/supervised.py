"""Cross-entropy on the labels alone: the baseline, and the first teacher.

Paper: none in particular; label smoothing is Szegedy et al. 2016 (arXiv 1512.00567), section 7.
"""

from dataclasses import dataclass

from tutelage.core import Batch, Clock, Metrics
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State
from tutelage.settings import between
from tutelage.targets import smooth


@dataclass(frozen=True, kw_only=True)
class Supervised(Method):
    """Labels, smoothed, under the noise of the labeled view."""

    labeled_view: str = "strong"
    smoothing: float = 0.1  # epsilon

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("smoothing", self.smoothing, 0, 1)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on the labeled images."""
        logits = state.student(batch.labeled.images)
        loss = cross_entropy(logits, smooth(batch.labeled.targets, self.smoothing))
        state.student.minimize(loss, clock)
        return {"loss": loss.detach()}
