"""Mixed labels and five times the teacher's answers, in one recipe for every backbone.

Paper: Ridnik et al. 2022, Solving ImageNet: a Unified Scheme for Training any Backbone to Top
Results (arXiv 2204.03475), its loss: CE(y~, z_s) + alpha_kd KL(softmax z_t || softmax z_s) with
alpha_kd = 5, no temperature and no label smoothing, on images after RandAugment and MixUp (0.8) or
CutMix (1.0), drawn with equal probability for each batch. Both networks see the same mixed pixels,
and the KL is a mean over images. `kd_only` drops the labels' term, as a flag of the public code.
Each network normalizes for itself (networks/build.py), so that the teacher gets exactly what it was
trained on. The public code turns the student's normalized pixels y into the teacher's as
y s_s / s_t - (m_t - m_s), with an offset that is not divided by s_t: right only where s_t = 1 or
the means are equal, as for the teacher that it was published with.
Deviations: pool images, which the paper doesn't have, are mixed among themselves, have the KL
alone, and count in its mean like labeled ones. The rest of the recipe is recipes/usi.yaml.
"""

from dataclasses import dataclass

import torch

from tutelage.core import Batch, Clock, Metrics
from tutelage.losses import cross_entropy, distillation
from tutelage.methods.method import Method, On, State, shown
from tutelage.mixing import mixup_or_cutmix
from tutelage.settings import at_least, between


@dataclass(frozen=True, kw_only=True)
class Usi(Method):
    """Labels and a frozen teacher's probabilities, on mixed images."""

    teacher = "frozen"
    labeled_view: str = "strong"
    unlabeled_views: tuple[str, ...] = ("strong",)  # of the pool, for both networks
    weight: float = 5.0  # alpha_kd, of the teacher's term
    kd_only: bool = False  # leave out the labels' term
    mixup: float = 0.8  # alpha of MixUp's share; 0: no MixUp
    cutmix: float = 1.0  # alpha of CutMix's share; 0: no CutMix
    mix: float = 1.0  # probability that a batch is mixed
    switch: float = 0.5  # probability of CutMix where a batch is mixed
    on: On = "both"  # both, labels or pool: the images that the teacher is asked about

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("weight", self.weight, 0)
        at_least("mixup", self.mixup, 0)
        at_least("cutmix", self.cutmix, 0)
        between("mix", self.mix, 0, 1)
        between("switch", self.switch, 0, 1)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on mixed labels and on the teacher's answers to the mixed images."""
        labeled = batch.labeled
        mix = mixup_or_cutmix(
            labeled.images.shape[-1], mixup_alpha=self.mixup, cutmix_alpha=self.cutmix,
            prob=self.mix, switch=self.switch, generator=state.dice,
        )  # fmt: skip
        asked, shared = shown(batch, self.on, self.unlabeled_views[0])
        asked = torch.cat([mix.images(asked[:shared]), mix.images(asked[shared:])])
        seen = asked
        if not self.kd_only and not shared:  # labeled images that the teacher is not asked about
            seen = torch.cat([mix.images(labeled.images), asked])
        logits = state.student(seen)
        taught = distillation(logits[-len(asked) :], state.ask(asked))
        loss, metrics = self.weight * taught, {"taught": taught.detach()}
        if not self.kd_only:
            labels = cross_entropy(logits[: len(labeled.images)], mix.targets(labeled.targets))
            loss = labels + loss
            metrics["labels"] = labels.detach()
        state.student.minimize(loss, clock)
        return {"loss": loss.detach()} | metrics
