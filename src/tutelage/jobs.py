"""What each training verb is asked: settings on top of those that all verbs share.

No torch here.
"""

from dataclasses import dataclass, field, fields
from typing import Literal

from tutelage.errors import UsageError
from tutelage.settings import Auto, Select, above, at_least, between, changed
from tutelage.training_settings import NOISY_STUDENT, ByOneMethod, Common
from tutelage.values import belongs, flag


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ByOneMethod, Common):
    """`tutelage train`: one training, on labels alone or by any method that needs no teacher."""

    model: str
    """Any name that `tutelage models` lists, one of docs/networks.md, or a YAML file of stages."""
    transfer: Literal["full", "probe", "frozen-stem"] = "full"
    """What learns of the weights that `init` gave. full: all; probe: the classifier alone;
    frozen-stem: all but the first layers."""
    freeze: int | Auto = "auto"
    """Groups of layers that frozen-stem keeps: the stem, then each stage; auto: 2."""

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        super().__post_init__()
        self._check_pool()
        if self.transfer != "full" and self.begins_as is None:
            raise UsageError(
                f"--transfer {self.transfer} keeps weights that were learned before: give --init, "
                "or --pretrained"
            )
        if self.freeze != "auto":
            at_least("--freeze", self.freeze, 1)
            if self.transfer != "frozen-stem":
                raise belongs("freeze", "--transfer frozen-stem")


@dataclass(frozen=True, kw_only=True)
class SelftrainSettings(Common):
    """`tutelage selftrain`: learn from labels and pool, and say whether the pool helped."""

    model: str
    """Any name that `tutelage models` lists, one of docs/networks.md, or a YAML file of stages."""
    unlabeled: str
    """The pool: a folder of images, at any depth, or any source; labels are never read."""
    method: tuple[str, ...] = ("auto",)
    """How to learn from the pool, as listed by `tutelage methods`; several: one a round, in turn.
    auto: what measured best for new or given weights and for so many labels, or what other flags
    are for."""
    teacher: str | None = None
    """The first teacher: a timm name to train, or a run to take; default: the baseline."""
    students: tuple[str, ...] = ()
    """The network of each round, equal or larger; the last goes on; default: `model`."""
    rounds: int | Auto = "auto"
    """Students to train, each taught by the one before; auto: 2 for noisy-student, else one for
    each method."""
    ratio: int = 4
    """Pool images for each labeled one in a batch."""
    baseline_length: Literal["images", "steps"] = "images"
    """How long the baseline, and a first teacher of another network, learns from the labels. steps:
    as many steps as a student; images: until it has seen as many as the first student, whose views
    of the pool count, and half of the baseline's images where it begins halfway."""
    pool_share: float = 1.0
    """Share of the pool to learn from, drawn at random before its images are read."""
    pool_targets: Literal["soft", "hard"] = "soft"
    """soft: the teacher's probabilities; hard: its surest class alone."""
    temperature: float = 1.0
    """Temperature of the teacher's probabilities; below 1 sharpens them."""
    normalize: Literal["per_stream", "per_sample"] = "per_stream"
    """per_stream: mean over labels + weight x mean over the pool (the paper's equation);
    per_sample: all images alike, so that the pool weighs `ratio` times (the reference code)."""
    weight: float = 1.0
    """Weight of the pool's loss."""
    pool_noise: Literal["all", "network", "none"] = "all"
    """Noise on the student's pool images; network: dropout and stochastic depth, no augmentation;
    none: neither. Labeled images keep theirs."""
    teacher_noise: bool = False
    """Let the teacher label noised images, with its dropout on; a clean teacher is better."""
    student_init: Literal["auto", "baseline", "scratch", "teacher"] = "auto"
    """What a student begins as. baseline: the baseline as it was halfway; scratch: new weights, or
    those of `init`; teacher: its teacher, of the same network; auto: baseline, but scratch with
    given weights, several networks, a teacher that learns, `order` pretrain, or `baseline_length`
    steps."""
    order: Literal["joint", "pretrain"] = "joint"
    """Labels and pool together; or first the pool alone, then fine-tuning on the labels."""
    select: Select = field(default_factory=Select)

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        super().__post_init__()
        at_least("--ratio", self.ratio, 1)
        if self.rounds != "auto":
            at_least("--rounds", self.rounds, 1)
        above("--temperature", self.temperature, 0)
        at_least("--weight", self.weight, 0)
        between("--pool-share", self.pool_share, 0, 1)
        if self.student_init == "baseline" and self.baseline_length == "steps":
            raise belongs("student_init", "--baseline-length images")
        if self.pool_targets == "hard" and self.temperature != 1:
            raise belongs("temperature", "--pool-targets soft")
        if not self.method or ("auto" in self.method and len(self.method) > 1):
            raise UsageError(
                "--method takes auto alone, or one or more names that `tutelage methods` lists, "
                f"got {' '.join(self.method) or 'nothing'}"
            )
        self._check_method()

    def _check_method(self) -> None:
        """Reject settings that the given methods would not read."""
        if "auto" in self.method:
            return
        if NOISY_STUDENT not in self.method:
            self._check_idle()
        if self.rounds != "auto" and len(self.method) > self.rounds:
            raise UsageError(
                f"--method names {len(self.method)} methods for {self.rounds} rounds: leave out "
                "--rounds"
            )
        if any(name != NOISY_STUDENT for name in self.method[1:]):
            raise UsageError(
                f"only {NOISY_STUDENT} goes on from the round before: name another method first, "
                f"as in --method {self.method[-1]} {NOISY_STUDENT}"
            )
        if self.method[-1] != NOISY_STUDENT and self.rounds not in ("auto", len(self.method)):
            raise UsageError(
                f"{self.method[-1]} does not iterate: leave out --rounds, or let another round "
                f"follow it, as in --method {self.method[-1]} {NOISY_STUDENT}"
            )
        if len(self.students) > self.num_rounds:
            raise UsageError(
                f"--students names {len(self.students)} for {self.num_rounds} rounds: name fewer, "
                f"or set --rounds {len(self.students)} where the method iterates"
            )

    def _check_idle(self) -> None:
        """Reject settings that act on stored labels, where the methods store none."""
        reads = ("select",) if REDUCED in self.method else ()
        idle = [name for name in changed(self, OF_NOISY_STUDENT) if name not in reads]
        idle += ["student_init"] * (self.student_init == "teacher")
        if not idle:
            return
        name = idle[0]
        if name == "select":
            name += "." + changed(self.select, (one.name for one in fields(Select)))[0]
        raise UsageError(
            f"{flag(name)} is for {NOISY_STUDENT}: leave it out; {self.method[0]} takes its "
            f"settings from --options, as `tutelage methods {self.method[0]}` lists them"
        )

    @property
    def num_rounds(self) -> int:
        """Students to train."""
        if self.rounds != "auto":
            return self.rounds
        return 2 if self.method == (NOISY_STUDENT,) else len(self.method)

    def student(self, number: int) -> str:
        """The network of round 1, 2, …"""
        if not self.students:
            return self.model
        return self.students[min(number, len(self.students)) - 1]

    def method_of(self, number: int) -> str:
        """The method of round 1, 2, …"""
        return self.method[min(number, len(self.method)) - 1]


REDUCED = "reduced-meta-pseudo-labels"  # which learns from selected labels, too
OF_NOISY_STUDENT = (
    "pool_targets", "temperature", "normalize", "weight", "pool_noise", "teacher_noise",
    "order", "select",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DistillSettings(Common):
    """`tutelage distill`: a student learns what teachers answer, and how much that helped."""

    teacher: tuple[str, ...]
    """Whom to learn from: a run, a model folder, a round's folder, a timm name (pre-trained weights
    are downloaded), NAME=FILE (a timm network with weights of that file), or hf-hub:OWNER/NAME.
    Several are asked together."""
    student: str
    """Any name that `tutelage models` lists, one of docs/networks.md, or a YAML file of stages."""
    unlabeled: str | None = None
    """The pool: a folder of images, at any depth, or any source; labels are never read."""
    method: str = "hinton"
    """How to distill, as listed by `tutelage methods`."""
    ratio: int = 4
    """Pool images for each labeled one in a batch."""
    over: Literal["probs", "logits"] = "probs"
    """What is averaged where there are several teachers."""
    baseline: bool = True
    """Also train the student on the labels alone, to say what the teacher was worth."""
    baseline_length: Literal["images", "steps"] = "images"
    """images: until it has seen as many as the student, pool images included; steps: as many steps
    as the student."""

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        super().__post_init__()
        at_least("--ratio", self.ratio, 1)
        if not self.teacher:
            raise UsageError("distill needs a --teacher: a run, a timm name, or NAME=FILE")
