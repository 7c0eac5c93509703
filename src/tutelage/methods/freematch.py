"""FixMatch with thresholds that follow the student's confidence, and a push for even classes.

Paper: Wang et al. 2023, FreeMatch (arXiv 2205.07246), section 3: tau is a moving mean of max q,
p~ of q, h~ of the histogram of argmax q; an image counts where max q > tau p~_c / max p~, with c
its class.
The fairness loss is -H(SumNorm(p~ / h~), SumNorm(p- / h-)), with the mean answer p- and the
histogram h- of the strong views that count; -H(a, b) is sum a log b, so that minimizing it pushes
b away from a, a distribution that took over.
Deviations: >= instead of >, as in the authors' code. Classes that no counted strong view is
given have h- = 0 and are left out of the sum; in that code they add a constant without
gradient. Without counted images the fairness loss is 0. The momentum is 0.99 and not 0.999, see
there. Quantiles and limits of tau, which that code has as options, are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.distributed.collectives import mean_over_ranks
from tutelage.gates import class_thresholds, reaches
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State, on_both_views
from tutelage.settings import at_least, between
from tutelage.targets import hard


@dataclass(frozen=True, kw_only=True)
class FreeMatch(Method):
    """Labels, the strong view of pool images that are surer than usual, and fairness."""

    unlabeled_views: tuple[str, ...] = ("weak", "strong")  # that gives the label, that learns it
    weight: float = 1.0  # w_u, of the pool's loss
    fairness: float = 0.001  # w_f, of the fairness loss
    momentum: float = 0.99  # of tau, p~, h~; the paper has 0.999 for a million steps

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("weight", self.weight, 0)
        at_least("fairness", self.fairness, 0)
        between("momentum", self.momentum, 0, 1)

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """tau (), p~ (K,) and h~ (K,), all 1/K at first."""
        start = torch.tensor(1 / num_classes)
        classes = start.repeat(num_classes)
        return {"tau": start, "marginal": classes, "histogram": classes.clone()}

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on labels and both views of the pool."""
        on_labels, on_weak, on_strong = on_both_views(state.student, batch, self.unlabeled_views)
        probs = on_weak.softmax(-1)
        tau, marginal, histogram = (state.memory[n] for n in ("tau", "marginal", "histogram"))
        tau.lerp_(mean_over_ranks(probs.amax(-1).mean()), 1 - self.momentum)
        marginal.lerp_(mean_over_ranks(probs.mean(0)), 1 - self.momentum)
        histogram.lerp_(mean_over_ranks(hard(probs).mean(0)), 1 - self.momentum)
        sure = reaches(probs, class_thresholds(tau, marginal))
        labels = cross_entropy(on_labels, batch.labeled.targets)
        pseudo = cross_entropy(on_strong, hard(probs), sure)
        fair = fairness_loss(on_strong, sure, marginal=marginal, histogram=histogram)
        loss = labels + self.weight * pseudo + self.fairness * fair
        state.student.minimize(loss, clock)
        return {
            "loss": loss.detach(),
            "labels": labels.detach(),
            "pseudo": pseudo.detach(),
            "fair": fair.detach(),
            "sure": sure.mean(),
            "confidence": probs.amax(-1).mean(),
            "tau": tau.clone(),
        }


def fairness_loss(logits: Tensor, sure: Tensor, *, marginal: Tensor, histogram: Tensor) -> Tensor:
    """sum_c a_c log b_c, with a from the moving means (K,) and b from the logits (U, K) of images
    that count (U,): a scalar."""
    probs = logits.softmax(-1)
    seen = mean_over_ranks((sure[:, None] * hard(probs.detach())).sum(0))  # u h- / W
    mean = mean_over_ranks((sure[:, None] * probs).sum(0))  # u p- / W, with W processes
    a = marginal / histogram.clamp(min=1e-6)
    b = torch.where(seen > 0, mean / seen.clamp(min=1e-6), 0)
    a, b = a / a.sum(), b / b.sum().clamp(min=1e-12)
    return torch.where(seen > 0, a * b.clamp(min=1e-12).log(), 0).sum()
