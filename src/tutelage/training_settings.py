"""What all training verbs are asked alike: data, network size, length, noise, optimizer.

No torch here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tutelage.errors import UsageError
from tutelage.settings import (
    Auto,
    Noise,
    Optim,
    Precision,
    Progressive,
    above,
    at_least,
    between,
    changed,
)
from tutelage.values import belongs, flag

BATCH = 64  # labeled images a step, where memory takes them
PRETRAINED = "pretrained"  # as a source of weights: timm's own of whatever network is trained
NOISY_STUDENT = "noisy-student"  # the method that the stored-label settings belong to
Shard = Literal["none", "student", "teacher", "all"]
Part = Literal["student", "teacher"]
SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "µs": 10**6}  # in units


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the processes of a command share a training; it may change while that goes on."""

    sync_bn: bool = False
    shard: Shard = "none"

    def shards(self, part: Part) -> bool:
        """Whether the student's, or the teacher's, weights are spread over the processes."""
        return self.shard in ("all", part)


def check_shared(batch: int, count: int, what: str = "processes") -> None:
    """Raises UsageError where so many processes can't share a batch evenly, with at least 2 images
    for each; one alone takes any."""
    if count > 1 and (batch % count or batch < 2 * count):
        raise UsageError(
            f"{count} {what} can't share a batch of {batch} images evenly: take a multiple of "
            f"{count}, such as --batch {max(2, round(batch / count)) * count}"
        )


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all training verbs share."""

    data: str
    """Labeled images: a folder with one folder a class, or any source that docs/data.md lists."""
    out: Path
    """The run folder. The same command on an unfinished run continues it."""
    test: str | None = None
    """Labeled images that are touched once, at the end."""
    val: str | None = None
    """Labeled validation images; without them a part is split off the labels."""
    val_fraction: float = 0.2
    """Share of each class to split off where `val` is not given; 0: none."""
    img_size: int | Auto = "auto"
    """Side of the network's input in pixels; auto: from the images, 32 to 224, and for given
    weights at least 160, or for those of a run the run's."""
    pretrained: bool = False
    """Start from timm's pre-trained weights, as `--init pretrained` does."""
    init: str | None = None
    """Weights to begin with: a run, a model folder, a round's folder, a weights file, or
    `pretrained` for timm's own, from the folder TUTELAGE_WEIGHTS or downloaded. Classes are matched
    by name."""
    wise: float | Auto = "auto"
    """Share of what training changed in given weights that is kept (WiSE-FT's alpha), unless the
    loss on labeled images is higher then; auto: 0.8 where all networks get a new classifier, keep
    batch norm's statistics, learn without a teacher's network, and no student goes on from them;
    else 1."""
    fix_size: int | None = None
    """Fine-tune at this larger image size in the end (FixRes); None: don't."""
    fix: Literal["classifier", "shallow-frozen"] = "classifier"
    """Layers that learn in that fine-tuning. classifier: it alone, and the last batch norm's
    statistics (FixRes); shallow-frozen: the deeper half of the layers (Noisy Student)."""
    fix_share: float = 0.1
    """Length of that fine-tuning, as a share of a round's steps."""
    stem: Literal["auto", "keep"] = "auto"
    """auto: the first layers of a new network keep the resolution of small images, and given
    weights keep the stem that they learned with; keep: the network as published."""
    batch_norm: Literal["auto", "frozen", "moving"] = "auto"
    """Means and variances of batch norm. frozen: as given weights have them; moving: those of the
    batches; auto: frozen for given weights."""
    se: int | None = None
    """Squeeze-and-excitation on any convolutional network: channels over a gate's hidden units, as
    in --se 16; None: the network as published."""
    se_where: str = "auto"
    """Layers whose output gets a gate. auto: as in the paper; else a pattern of their names, such
    as 'layer4.*.bn3'."""
    se_gate: Literal["auto", "sigmoid", "twice"] = "auto"
    """sigmoid: the paper's; twice: 2 sigmoid with a last layer of zeros, which begins as 1; auto:
    twice for weights that were learned without gates, else the paper's, or as they were learned."""
    steps: int | Auto = "auto"
    """Training steps a round; auto: from the budget, or 2000."""
    budget: str | None = None
    """Time for the whole run, such as 90s, 20m or 1h30m, instead of steps."""
    batch: int | Auto = "auto"
    """Labeled images a step; auto: 64, or where memory is short fewer in as many more steps, of
    which several make an update."""
    smoothing: float = 0.1
    """Label smoothing, in the baseline and in methods that have it (`tutelage methods`)."""
    seed: int = 0
    """All randomness follows from it."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto: the first accelerator, else the CPU."""
    precision: Precision = "auto"
    """auto: bf16 on CUDA, fp32 elsewhere; fp16, with a scaled loss, is for accelerators."""
    memory: str = "auto"
    """Most memory for decoded images, such as 500MB or 2GB; 0: decode each time; auto: half of what
    is free, at most 4 GiB."""
    options: tuple[str, ...] = ()
    """Settings of the method itself, such as threshold=0.9; `tutelage methods` lists them."""
    noise: Noise = field(default_factory=Noise)
    optim: Optim = field(default_factory=Optim)
    progressive: Progressive = field(default_factory=Progressive)
    overwrite: bool = False
    """Move an existing run folder aside and start anew."""
    compile: bool = False
    """Compile the network with torch.compile, once for each image and batch size."""
    devices: int = 1
    """Processes of this machine that train together, each on a device of its own; on the CPU they
    share the cores. `batch` is that of all together. On several machines: torchrun."""
    sync_bn: bool = False
    """Let batch norm see the images of all processes, not each process's own."""
    shard: Shard = "none"
    """Spread the student, the teacher or both over all devices (FSDP): weights, gradients and
    optimizer state."""

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        between("--val-fraction", self.val_fraction, 0, 0.9)
        between("--smoothing", self.smoothing, 0, 1)
        for name in ("steps", "img_size"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise UsageError(f"{flag(name)} is at least 1, got {value}")
        self._check_given()
        between("--fix-share", self.fix_share, 0, 1)
        idle = changed(self, ["fix", "fix_share"])
        if self.fix_size is None and idle:
            raise belongs(idle[0], "a --fix-size")
        if self.fix_size is not None and self.img_size != "auto":
            above("--fix-size", self.fix_size, self.img_size, "the size of the training")
        self._check_norms()
        self._check_gates()
        self._check_devices()
        if self.memory != "auto":
            num_bytes(self.memory)
        if self.budget is not None:
            seconds(self.budget)
            if self.steps != "auto":
                raise UsageError("give either --steps or --budget, not both")

    def _check_given(self) -> None:
        """Reject two sources of weights, and what belongs to given ones where there are none."""
        if self.pretrained and self.init not in (None, PRETRAINED):
            raise UsageError(f"begin either with --pretrained or with --init {self.init}, not both")
        if self.wise != "auto":
            between("--wise", self.wise, 0, 1)
            if self.begins_as is None:
                raise belongs("wise", "--init or --pretrained")

    def _check_devices(self) -> None:
        """Reject a batch that is no batch, or that the devices can't share."""
        at_least("--devices", self.devices, 1)
        if self.batch_size < 2:
            raise UsageError(
                f"--batch is at least 2, as batch norm needs more than one image, got {self.batch}"
            )
        check_shared(self.batch_size, self.devices, "devices")

    def _check_norms(self) -> None:
        """Reject settings of batch norm that have no effect."""
        if self.batch_norm == "frozen" and self.begins_as is None:
            raise belongs("batch_norm", "--init or --pretrained, where it is frozen")
        if self.keeps_norms and self.sync_bn:
            raise belongs("sync_bn", "statistics that move, as by --batch-norm moving")
        if self.keeps_norms and changed(self.optim, ["ema_buffers"]):
            raise belongs("optim.ema_buffers", "statistics that move, as by --batch-norm moving")

    def _check_gates(self) -> None:
        """Reject settings of gates where there are none."""
        if self.se is not None:
            at_least("--se", self.se, 1)
            return
        for name in changed(self, ["se_where", "se_gate"]):
            raise belongs(name, "--se, as in --se 16")

    @property
    def batch_size(self) -> int:
        """Labeled images a step, before memory is looked at; devices can share them."""
        shared = max(2, BATCH // self.devices) * self.devices
        return shared if self.batch == "auto" else self.batch

    @property
    def spread(self) -> Spread:
        """How processes share the training."""
        return Spread(sync_bn=self.sync_bn, shard=self.shard)

    @property
    def keeps_norms(self) -> bool:
        """Whether the statistics of batch norm stay as given weights have them."""
        return self.begins_as is not None and self.batch_norm != "moving"

    @property
    def begins_as(self) -> str | None:
        """The source of the weights to begin with; None: new weights."""
        return PRETRAINED if self.pretrained else self.init


@dataclass(frozen=True, kw_only=True)
class ByOneMethod:
    """What trainings are asked that need no teacher: by which method, and from which pool."""

    method: str = "auto"
    """How to train, as listed by `tutelage methods`; auto: noisy-student where the pool has labels,
    else supervised."""
    unlabeled: str | None = None
    """The pool, for methods that learn from one: a folder of images or any other source; with
    `labels`, tar shards."""
    labels: Path | None = None
    """The pool's labels, as `tutelage label` wrote them: the pool is read shard by shard and may be
    larger than memory, and so may its list of images."""
    selected: Path | None = None
    """What `tutelage select` wrote: which labels to use, and how often; default: all, once."""
    pool_targets: Literal["soft", "hard"] = "soft"
    """With `labels`. soft: the teacher's probabilities; hard: its surest class alone."""
    temperature: float = 1.0
    """Temperature of soft targets; below 1 sharpens them."""
    ratio: int = 4
    """Pool images for each labeled one in a batch."""
    views: Literal["auto", "weak", "strong"] = "auto"
    """View of the labeled images. weak: flips and shifts; strong: RandAugment and Cutout on top;
    auto: the method's own, strong for `supervised`."""

    def _check_pool(self) -> None:
        """Reject settings of a pool's labels where there are none."""
        at_least("--ratio", self.ratio, 1)
        if self.labels is None:
            idle = changed(self, ["selected", "pool_targets", "temperature"])
            if idle:
                raise belongs(idle[0], "a pool with --labels")
        elif self.unlabeled is None:
            raise UsageError("--labels are those of a pool: give its shards with --unlabeled too")
        above("--temperature", self.temperature, 0)
        if self.pool_targets == "hard" and self.temperature != 1:
            raise belongs("temperature", "--pool-targets soft")

    @property
    def trained_by(self) -> str:
        """The method's name."""
        if self.method != "auto":
            return self.method
        return "supervised" if self.labels is None else NOISY_STUDENT


def seconds(text: str) -> float:
    """'90s', '20m', '1h30m' or plain seconds -> seconds; raises UsageError for anything else."""
    plain = re.fullmatch(r"\d+(?:\.\d+)?", text.strip())
    timed = text.strip() + "s" * bool(plain)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", timed)
    if not timed or match is None:
        raise UsageError(f"--budget {text!r}: that is no time; write 90s, 20m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + rest
    if total <= 0:
        raise UsageError(f"--budget {text!r}: that is no time to work in; write 90s, 20m or 1h30m")
    return total


def parse_latency(text: str) -> float:
    """'4ms', '250us', '0.004s' -> seconds; raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|ms|us|µs)", text.strip().lower())
    number = float(match[1]) / SECOND[match[2]] if match else 0.0
    if not number > 0:
        raise UsageError(f"--latency {text!r}: that is no time; write 4ms, 250us or 0.1s")
    return number


def num_bytes(text: str) -> int:
    """'2GB', '500 MB', '1.5GiB' or plain bytes -> bytes; raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"--memory is auto, 0, or an amount such as 500MB or 2GB, got {text!r}")
    number, unit, binary = match.groups()
    power = "kmgt".index(unit) + 1 if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)
