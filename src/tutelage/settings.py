"""What a user can set: frozen dataclasses behind flags, YAML and keyword arguments alike.

No torch here, so that help and typos are answered at once.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal

from tutelage.errors import UsageError
from tutelage.values import belongs, flag

Auto = Literal["auto"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["cosine", "fixmatch", "constant", "step", "waterfall", "one-cycle"]
Scaling = Literal["none", "linear", "sqrt"]
WarmUp = Literal["tf", "timm", "none"]
Buffers = Literal["average", "copy", "recalibrate"]

POLICIES = (
    "randaugment, autoaugment, autoaugment:imagenet, autoaugment:cifar10, autoaugment:svhn, "
    "trivialaugment, torchvision:NAME of these or augmix, or timm:CONFIG such as "
    "timm:rand-m9-mstd0.5-inc1, timm:augmix-m3 or timm:original"
)
POLICY = re.compile(
    r"randaugment|autoaugment(:(v0|imagenet|cifar10|svhn))?|trivialaugment"
    r"|torchvision:(randaugment|autoaugment|trivialaugment|augmix)"
    r"|timm:(rand(-([mn]\d+|mmax\d+|inc\d|(p|mstd)\d+(\.\d+)?|t(weights|3aw?)))*"
    r"|(v0r?|originalr?|3a)(-mstd\d+(\.\d+)?)?"
    r"|augmix(-([mwd]\d+|b\d|(a|mstd)\d+(\.\d+)?))*)"
)  # timm's strings are checked here because timm passes over some errors and asserts on others


@dataclass(frozen=True, kw_only=True)
class Noise:
    """How training images and networks are disturbed; a teacher that labels never is."""

    policy: str = "randaugment"
    """What disturbs images: randaugment, autoaugment (also with :imagenet, :cifar10 or :svhn),
    trivialaugment; or, slow, timm:CONFIG such as timm:rand-m9-mstd0.5-inc1, torchvision:NAME."""
    magnitude: float = 5.0
    """Strength of RandAugment, 0 (off) to 10; with the tf scale to 30."""
    scale: Literal["even", "timm", "tf"] = "even"
    """What a magnitude means. even: every operation grows with it; timm: as in timm's inc1; tf: as
    in EfficientNet and Noisy Student, whose 27 is beyond the 10 where the others end."""
    num_ops: int = 2
    """RandAugment operations an image."""
    op_prob: float = 1.0
    """Probability of each RandAugment operation; timm's is 0.5."""
    magnitude_std: float = 0.0
    """Spread of RandAugment's magnitude from one operation to the next; timm's mstd."""
    erase: float = 0.0
    """Probability of random erasing, 0 (off) to 1."""
    erase_fill: Literal["noise", "color", "gray"] = "noise"
    """Fill of the erased area: noise, one random color, or gray."""
    cutout: float = 0.25
    """Side of Cutout's gray square over the image's side, 0 (off) to 1."""
    flip: bool = True
    """Mirror images left to right; switch off for digits, text and other things with a side."""
    crop: Literal["auto", "pad", "resized"] = "auto"
    """pad: shift by an eighth; resized: random resized crop; auto: pad for images
    of at most 64 pixels."""
    min_area: float = 0.25
    """Smallest share of the image that a resized crop keeps."""
    dropout: float | Auto = "auto"
    """Dropout before the classifier; auto: 0.1 where the network can take it."""
    drop_path: float | Auto = "auto"
    """Stochastic depth at the last block, growing from 0 at the first; auto: 0.05 where it can."""
    drop_block: float = 0.0
    """Share of the last feature maps that DropBlock sets to 0, in squares; 0: off."""

    mixup: float = 0.0
    """MixUp's alpha: labeled images, and pool images with labels, are blended in pairs; 0: off."""
    cutmix: float = 0.0
    """CutMix's alpha: a box is pasted from another image; with both, each takes half the draws."""
    mix_each: bool = False
    """Draw MixUp and CutMix for each image, not for the whole batch."""
    repeats: int = 1
    """Times that a labeled image stands in a batch, each time augmented anew."""

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("--noise.mixup", self.mixup, 0)
        at_least("--noise.cutmix", self.cutmix, 0)
        at_least("--noise.repeats", self.repeats, 1)
        between("--noise.magnitude", self.magnitude, 0, 30 if self.scale == "tf" else 10)
        at_least("--noise.num-ops", self.num_ops, 0)
        at_least("--noise.magnitude-std", self.magnitude_std, 0)
        if not POLICY.fullmatch(self.policy):
            raise UsageError(f"--noise.policy is {POLICIES}, got {self.policy!r}")
        shares = ("op_prob", "erase", "cutout", "min_area", "dropout", "drop_path", "drop_block")
        for name in shares:
            value = getattr(self, name)
            if value != "auto":
                between(flag(f"noise.{name}"), value, 0, 1)

    def crop_for(self, size: int) -> Literal["pad", "resized"]:
        """The crop at an image size: reflected shifts for small images, resized for photos."""
        if self.crop != "auto":
            return self.crop
        return "pad" if size <= SMALL_IMAGE else "resized"


SMALL_IMAGE = 64  # pixels; up to here images are shown whole and never cropped to a part


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How weights are updated."""

    name: str = "auto"
    """Any of timm's: sgd (Nesterov), lamb, muon, …; auto: adamw, but sgd for a new batch norm."""
    lr: float | Auto = "auto"
    """Peak learning rate; auto: sgd 0.1, else 0.001; given weights 0.003, else 0.0003 or 0.0001."""
    momentum: float = 0.9
    """Momentum, where the optimizer has one."""
    weight_decay: float | Auto = "auto"
    """On kernels only, never on norms and biases; auto: 0.001 for sgd, 0.00001 for rmsprop, 0 for
    adam and others that add it to the gradient, 0.05 for adamw and the like."""
    schedule: Schedule = "cosine"
    """Shape of the learning rate over the run; step: a tenth after each milestone; waterfall: 0.97
    times as much in 145 steps down; one-cycle: up and down, with momentum down and up."""
    warmup: float = 0.05
    """Share of the run with a linearly growing learning rate; one-cycle has its own instead."""
    lr_end: float = 0.0
    """Floor of the schedule, as a share of the peak learning rate."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    """Shares of the run after which `step` divides the learning rate by ten."""
    scale: Scaling = "none"
    """Multiply the learning rate by the labeled images of an update over `scale_base`, or by the
    root of that."""
    scale_base: int = 256
    """Labeled images an update for which the learning rate is meant."""
    ema: float | None = 0.999
    """Decay of the weights' average, which is what gets evaluated and kept; None: no average."""
    ema_warmup: WarmUp = "tf"
    """Smaller decay at first; tf: (1 + t) / (10 + t) at update t; timm: 1 - (1 + t)^(-2/3)."""
    ema_buffers: Buffers = "average"
    """Batch-norm statistics of what gets evaluated and kept: averaged like the weights, the last
    ones, or computed again from training images."""
    clip: float | None = None
    """Largest gradient norm."""
    accumulate: int = 1
    """Steps whose gradients are averaged for one update."""
    layer_decay: float | None = None
    """Learning rate of a layer over that of the next one; None: the same for all."""

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        for name, value in (("lr", self.lr), ("weight_decay", self.weight_decay)):
            if value != "auto":
                at_least(flag(f"optim.{name}"), value, 0)
        between("--optim.warmup", self.warmup, 0, 1)
        if self.ema is not None:
            between("--optim.ema", self.ema, 0, 1)
        if self.clip is not None:
            above("--optim.clip", self.clip, 0)
        between("--optim.lr-end", self.lr_end, 0, 1)
        if self.schedule != "step" and changed(self, ["milestones"]):
            raise belongs("optim.milestones", "--optim.schedule step")
        if self.scale == "none" and changed(self, ["scale_base"]):
            raise belongs("optim.scale_base", "--optim.scale linear or sqrt")
        for milestone in self.milestones:
            between("--optim.milestones", milestone, 0, 1)
        at_least("--optim.scale-base", self.scale_base, 1)
        at_least("--optim.accumulate", self.accumulate, 1)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UsageError(f"--optim.layer-decay is above 0, up to 1, got {self.layer_decay:g}")

    def resolved(self, *, batch_norm: bool, pretrained: bool) -> "Optim":
        """The same without 'auto', for a network with or without batch norm."""
        name = "sgd" if batch_norm and not pretrained else "adamw"
        name = name if self.name == "auto" else self.name
        new, given, decay = _usual(name, batch_norm=batch_norm)
        lr = (given if pretrained else new) if self.lr == "auto" else self.lr
        decay = decay if self.weight_decay == "auto" else self.weight_decay
        return replace(self, name=name, lr=lr, weight_decay=decay)


def plain_name(optimizer: str) -> str:
    """'lookahead_RMSpropTF' -> 'rmsproptf', as timm reads names."""
    return optimizer.lower().rpartition("_")[-1]


def _usual(name: str, *, batch_norm: bool) -> tuple[float, float, float]:
    """Learning rates of new and of given weights, and weight decay, for an optimizer."""
    plain = plain_name(name)
    if plain in ("sgd", "nesterov", "momentum", "sgdw", "nesterovw"):
        return 0.1, 0.003, 1e-3
    if plain.startswith("rmsprop"):
        return 1e-3, 1e-4, 1e-5
    # these add the decay to the gradient, which they rescale then
    coupled = {"adam", "nadam", "nadamlegacy", "radam", "adamax", "adagrad", "adadelta", "adopt",
               "cadopt", "madgrad"}  # fmt: skip
    return 1e-3, 3e-4 if batch_norm else 1e-4, 0.0 if plain in coupled else 0.05


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """Stages in which image size and noise grow together; all that ends is set elsewhere."""

    stages: int = 1
    """Number of stages; 1: all is constant."""
    rule: Literal["paper", "release"] = "paper"
    """paper: the sizes of EfficientNetV2's algorithm 1; release: those of its published code,
    whose first stage is larger and whose dropout is constant."""
    start_size: int | Auto = "auto"
    """Image size to begin with; auto: 0.43 of the last."""
    start_noise: float = 1 / 3
    """Share of RandAugment's magnitude and of dropout to begin with; 1: constant."""
    start_drop: float = 1.0
    """Share of stochastic depth and of DropBlock to begin with; 1: constant, as published."""
    start_mixing: float = 0.0
    """Share of MixUp's and CutMix's alpha to begin with; 1: constant."""
    multiple: int = 1
    """Cut the sizes before the last to a multiple of this, such as a transformer's patch."""
    batches: tuple[int, ...] = ()
    """Labeled images a step in each stage; default: the same in all."""

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        at_least("--progressive.stages", self.stages, 1)
        at_least("--progressive.multiple", self.multiple, 1)
        for name in ("start_noise", "start_mixing", "start_drop"):
            between(flag(f"progressive.{name}"), getattr(self, name), 0, 1)
        if self.start_size != "auto":
            at_least("--progressive.start-size", self.start_size, 1)
        idle = changed(self, (f.name for f in fields(self))) if self.stages == 1 else []
        if idle:
            raise belongs(f"progressive.{idle[0]}", "--progressive.stages 2 or more")
        if self.batches and len(self.batches) != self.stages:
            raise UsageError(
                f"--progressive.batches is a number for each of {self.stages} stages, got "
                f"{len(self.batches)}"
            )
        for batch in self.batches:
            at_least("--progressive.batches", batch, 2)


@dataclass(frozen=True, kw_only=True)
class Select:
    """Which of the teacher's labels the student learns from."""

    threshold: float = 0.3
    """Keep images whose surest class has more than this probability (Noisy Student: 0.3)."""
    ceiling: float = 1.0
    """Upper limit of that probability; below 1 to learn from one band of confidence alone."""
    balance: bool = True
    """Give each class the same share: the surest of the large ones, copies of the small ones."""
    per_class: int | Auto = "auto"
    """Images a class after balancing; auto: what is kept, shared evenly."""
    max_copies: int = 10
    """Most copies of one image."""
    mode: Literal["exact", "histogram"] = "exact"
    """exact: the surest of a class to the image, ties to the first in the pool; histogram: whole
    hundredths of confidence, and copies drawn at random (Noisy Student's code)."""
    ood: float = 0.0
    """Share of the pool with the lowest energy, which is left out (out of distribution)."""

    def __post_init__(self) -> None:
        """Reject what is out of range."""
        between("--select.threshold", self.threshold, 0, 1)
        between("--select.ceiling", self.ceiling, self.threshold, 1)
        if not 0 <= self.ood < 1:
            raise UsageError(f"--select.ood is at least 0 and below 1, got {self.ood:g}")
        if self.mode == "histogram" and not self.balance:
            raise UsageError("--select.mode histogram balances: leave out --select.no-balance")
        for name in ("max_copies", "per_class"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise UsageError(f"{flag(f'select.{name}')} is at least 1, got {value}")


def changed(settings: Any, names: Iterable[str]) -> list[str]:
    """Those of the fields that are not at their default."""
    default = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(settings)
    }
    return [name for name in names if getattr(settings, name) != default[name]]


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises UsageError where the value is outside [low, high]."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {low:g} to {high:g}, got {value:g}")


def at_least(name: str, value: float, low: float) -> None:
    """Raises UsageError where the value is below `low`, or no number that there is."""
    if not low <= value < math.inf:  # nan too
        raise UsageError(f"{name} is at least {low:g}, got {value:g}")


def above(name: str, value: float, low: float, what: str = "") -> None:
    """Raises UsageError where the value is not above `low`, which is said to be `what`."""
    if not low < value < math.inf:  # nan too
        raise UsageError(f"{name} is above {low:g}{what and f', {what}'}, got {value:g}")
