"""The class token learns the labels and the distillation token the teacher's class, on one image.

Paper: Touvron et al. 2021, Training data-efficient image transformers & distillation through
attention (arXiv 2012.12877), section 4: 1/2 CE(y, z_cls) + 1/2 CE(argmax z_teacher, z_dist), or
with `soft` (1 - lambda) CE(y, z_cls) + lambda tau^2 KL(teacher || student), both softened by tau.
True labels are smoothed, the teacher's class is not. The teacher sees the same pixels as the
student, after MixUp or CutMix, and says one class for a mixed image.
A network without a distillation token gives one head's answer to both terms: the paper's row "hard
distillation" with the class token. Fine-tuning with a teacher works alike; the public code refuses.
Deviations: the KL is a mean over images, as in the equation; the public code also divides by the
number of classes. At inference the two heads' logits are averaged, as timm and the public code do;
the paper adds their softmax. No random erasing and no repeated augmentation. Pool images, which the
paper doesn't have, are mixed among themselves, have the teacher's term alone, and count in its mean
like labeled ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.core import Batch, Clock, Metrics
from tutelage.losses import cross_entropy, distillation
from tutelage.methods.method import Method, On, State, shown
from tutelage.mixing import mixup_or_cutmix
from tutelage.settings import above, at_least, between
from tutelage.targets import hard, smooth


@dataclass(frozen=True, kw_only=True)
class Deit(Method):
    """Labels for one head, a frozen teacher's classes for the other."""

    teacher = "frozen"
    two_heads = True
    labeled_view: str = "strong"
    unlabeled_views: tuple[str, ...] = ("strong",)  # of the pool, for both networks
    smoothing: float = 0.1  # epsilon, of the true labels
    weight: float = 0.5  # of the teacher's term where it is hard; the labels' term has the rest
    soft: bool = False  # the teacher's probabilities instead of its surest class
    soft_weight: float = 0.1  # lambda, of the teacher's term where it is soft
    temperature: float = 3.0  # tau, where it is soft
    mixup: float = 0.8  # alpha of MixUp's share; 0: no MixUp
    cutmix: float = 1.0  # alpha of CutMix's share; 0: no CutMix
    mix: float = 1.0  # probability that a batch is mixed
    switch: float = 0.5  # probability of CutMix where a batch is mixed
    on: On = "both"  # both, labels or pool: the images that the teacher is asked about

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("smoothing", self.smoothing, 0, 1)
        between("weight", self.weight, 0, 1)
        between("soft_weight", self.soft_weight, 0, 1)
        above("temperature", self.temperature, 0)
        at_least("mixup", self.mixup, 0)
        at_least("cutmix", self.cutmix, 0)
        between("mix", self.mix, 0, 1)
        between("switch", self.switch, 0, 1)

    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """One update on the labels and on the teacher's answers."""
        labeled = batch.labeled
        mix = mixup_or_cutmix(
            labeled.images.shape[-1], mixup_alpha=self.mixup, cutmix_alpha=self.cutmix,
            prob=self.mix, switch=self.switch, generator=state.dice,
        )  # fmt: skip
        asked, shared = shown(batch, self.on, self.unlabeled_views[0])
        asked = torch.cat([mix.images(asked[:shared]), mix.images(asked[shared:])])
        seen = asked if shared else torch.cat([mix.images(labeled.images), asked])
        on_class, on_token = state.student.heads(seen)
        targets = mix.targets(smooth(labeled.targets, self.smoothing))
        labels = cross_entropy(on_class[: len(targets)], targets)
        taught = self._taught(on_token[-len(asked) :], state.ask(asked))
        weight = self.soft_weight if self.soft else self.weight
        loss = (1 - weight) * labels + weight * taught
        state.student.minimize(loss, clock)
        return {"loss": loss.detach(), "labels": labels.detach(), "taught": taught.detach()}

    def _taught(self, logits: Tensor, answers: Tensor) -> Tensor:
        """The teacher's term: a scalar."""
        if self.soft:
            return distillation(logits, answers, self.temperature)
        return cross_entropy(logits, hard(answers))
