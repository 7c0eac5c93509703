"""What a training method is: one step, and the views and teacher that it needs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Clock, Metrics
from tutelage.errors import UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.networks.build import Net, build


@dataclass
class State:
    """Everything that changes during training, and so everything that a checkpoint holds."""

    student: Learner
    teacher: Learner | Frozen | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)  # of metrics, since the last line of them
    summed: int = 0  # steps in them
    # of a step, for what is drawn for the batch as a whole: the same in all processes
    dice: torch.Generator = field(default_factory=lambda: torch.default_generator)

    def ask(self, images: Tensor) -> Tensor:
        """The teacher's logits (B, K) on images; raises UsageError where there is no teacher."""
        if self.teacher is None:
            raise UsageError("this method learns from a teacher: give one")
        return self.teacher(images)

    def learning_teacher(self) -> Learner:
        """The teacher that learns; raises UsageError where there is none."""
        if not isinstance(self.teacher, Learner):
            raise UsageError("this method needs a teacher that learns")
        return self.teacher

    def state_dict(self) -> dict[str, Any]:
        """The student, a teacher that learns, and the method's memory."""
        learns = isinstance(self.teacher, Learner)
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict() if learns else None,  # type: ignore[union-attr]
            "memory": self.memory,
            "sums": self.sums,
            "summed": self.summed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.student.load_state_dict(state["student"])
        if isinstance(self.teacher, Learner):
            self.teacher.load_state_dict(state["teacher"])
        device = self.student.device
        self.memory = {name: tensor.to(device) for name, tensor in state["memory"].items()}
        self.sums = {name: tensor.to(device) for name, tensor in state["sums"].items()}
        self.summed = state["summed"]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters and the step that uses them; whatever changes is in `State`.

    What a method needs it declares here, and the pipelines obey.
    """

    teacher: ClassVar[Literal["none", "frozen", "trained"]] = "none"
    stored: ClassVar[bool] = False  # the pool's labels are written down before the training
    finetuned: ClassVar[bool] = False  # the student is to be fine-tuned on the labels afterwards
    two_heads: ClassVar[bool] = False  # a distillation token, where the network has one
    averaged: ClassVar[bool] = False  # the weights' average is asked while the student learns
    labeled_view: str = "weak"
    unlabeled_views: tuple[str, ...] = ()

    @abstractmethod
    def step(self, state: State, batch: Batch, clock: Clock) -> Metrics:
        """Do one update of the student and say how it went."""

    @property
    def differentiates(self) -> bool:
        """Whether it takes derivatives of the student beyond those of `minimize`."""
        return False

    def memory(self, num_classes: int, pool_size: int) -> dict[str, Tensor]:
        """What the method remembers beyond the networks; nothing by default."""
        return {}

    def make_teacher(self, net: Net, *, seed: int) -> nn.Module:
        """A teacher that learns, before its first step; by default a twin of the student."""
        return build(net, seed=seed)


def on_each(learner: Learner, batch: Batch, views: Sequence[str]) -> tuple[Tensor, ...]:
    """Logits of the labeled images, then of the pool in each of the views, by one forward pass:
    batch norm sees them together."""
    parts = [batch.labeled.images, *(batch.pool().views[name] for name in views)]
    return learner(torch.cat(parts)).split([len(part) for part in parts])


def on_both_views(
    learner: Learner, batch: Batch, views: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the labeled images, then of the pool in the view that gives labels, without
    gradient, and in the view that learns them.

    The view that gives labels has no part in the backward pass, unless batch norm has to see all
    images together.
    """
    giving, learning = views
    if learner.mixes_images:
        on_labels, given, learned = on_each(learner, batch, views)
        return on_labels, given.detach(), learned
    with torch.no_grad():
        given = learner(batch.pool().views[giving])
    on_labels, learned = on_each(learner, batch, (learning,))
    return on_labels, given, learned


On = Literal["both", "labels", "pool"]


def shown(batch: Batch, on: On, view: str) -> tuple[Tensor, int]:
    """The images that a distillation asks about, and how many of them, the first, are labeled.

    "both" are the labels alone where the run has no pool; "pool" raises UsageError there.
    """
    if on == "labels" or (on == "both" and batch.unlabeled is None):
        return batch.labeled.images, len(batch.labeled.images)
    pool = batch.pool().views[view]
    if on == "pool":
        return pool, 0
    return torch.cat([batch.labeled.images, pool]), len(batch.labeled.images)
