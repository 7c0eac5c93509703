"""What `tutelage search` is asked, on top of how its networks are trained.

No torch here.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.settings import Auto, at_least, changed
from tutelage.training_settings import ByOneMethod, Common, parse_latency
from tutelage.values import flag, nearest

READY = "timm:"  # begins the space of ready networks
STAGES = "effnetv2"  # the space of EfficientNetV2's stages
OPTUNA = "optuna:"
SAMPLERS = ("random", "evolution", "optuna:tpe", "optuna:gp", "optuna:nsga2")
TRIALS = 27  # where neither trials nor a budget are given, and the space is no list
Size = Literal["m", "l"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings(ByOneMethod, Common):
    """`tutelage search`: the best network for this data and this device, by short trainings."""

    space: str = STAGES
    """effnetv2: operations, kernels, expansions and layers of EfficientNetV2's stages; or ready
    networks, as in timm:'resnet*,mobilenet*'."""
    base: str = "efficientnetv2_b0"
    """The EfficientNet that gives widths and strides to effnetv2, and about how many layers, such
    as efficientnetv2_b0-w0.5 for a small network, or a YAML file of stages."""
    sampler: str = "auto"
    """What suggests networks: random, evolution, or one of Optuna's, such as optuna:tpe; auto:
    evolution, and random for ready networks."""
    steps: int | Auto = "auto"
    """Training steps of a network of the last rung; auto: from the budget, or 600."""
    init: str | None = None
    """Only `pretrained`, as the flag of that name: a search tries many networks, and other weights
    are those of one."""
    devices: int = 1
    """Only 1: to use more, begin the same search several times; all then share its trials."""
    trials: int | Auto = "auto"
    """Networks of the first rung; auto: as many as fit into the budget, else all ready ones, or
    27."""
    rungs: int = 3
    """Rounds of successive halving, in which fewer networks are trained longer."""
    keep: int = 3
    """Reduction factor: the best of so many goes on, and is trained so many times longer."""
    latency: str | None = None
    """Most time to answer one image on this device, such as 4ms: slower networks are not trained.
    It is the median of single images."""
    time_weight: float | Auto = "auto"
    """Exponent of a training step's time in the reward; auto: -0.07, and 0 for ready networks."""
    params_weight: float | Auto = "auto"
    """Exponent of the number of weights in the reward; auto: -0.05, and 0 for ready networks."""
    sizes: tuple[Size, ...] = ()
    """Also write recipes of the best network made larger, by EfficientNetV2's rule: m: about twice
    its multiplications; l: about seven times."""

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        super().__post_init__()
        self._check_pool()
        if self.devices > 1:
            raise UsageError(
                "--devices is for one training: begin the same search several times instead, which "
                "then share its trials"
            )
        at_least("--rungs", self.rungs, 1)
        at_least("--keep", self.keep, 2)
        if self.trials != "auto":
            at_least("--trials", self.trials, 1)
        for name in ("time_weight", "params_weight"):
            value = getattr(self, name)
            if value != "auto" and not value <= 0:
                raise UsageError(f"{flag(name)} is 0 or below, got {value:g}")
        if self.latency is not None:
            parse_latency(self.latency)
        if self.init not in (None, "pretrained"):
            raise UsageError(
                f"--init {self.init} is one network, and a search tries many: leave it out, or "
                "give --pretrained with --space timm:…"
            )
        if self.wise != "auto":
            raise UsageError("--wise: a search keeps none of the weights it trains: leave it out")
        self._check_space()
        self._check_sampler()

    def _check_space(self) -> None:
        """Reject spaces that are not known, and settings that don't act on the one given."""
        if self.ready:
            if changed(self, ["base", "sizes"]):
                raise UsageError(f"--base and --sizes are for --space {STAGES}: leave them out")
        elif self.space != STAGES:
            hint = nearest(self.space, [STAGES, f"{READY}*"]) or "."
            raise UsageError(
                f"--space {self.space}: there is no such space{hint} It is {STAGES}, or "
                f"{READY}PATTERN"
            )
        elif self.begins_as is not None:
            raise UsageError(
                f"nobody has weights of new networks: leave out --pretrained, or take {READY}…"
            )

    def _check_sampler(self) -> None:
        """Reject samplers that there are not."""
        if self.sampler not in ("auto", *SAMPLERS):
            hint = nearest(self.sampler, SAMPLERS) or nearest(OPTUNA + self.sampler, SAMPLERS)
            raise UsageError(
                f"--sampler {self.sampler}: there is no such sampler{hint or '.'} It is one of "
                f"{', '.join(SAMPLERS)}"
            )

    @property
    def suggested_by(self) -> str:
        """The sampler's name."""
        if self.sampler != "auto":
            return self.sampler
        return "random" if self.ready else "evolution"

    @property
    def ready(self) -> bool:
        """Whether it chooses among ready networks."""
        return self.space.startswith(READY)

    def training(self, network: str) -> TrainSettings:
        """How one of its networks is trained."""
        shared = {one.name for one in fields(TrainSettings)} & {one.name for one in fields(self)}
        values: dict[str, Any] = {name: getattr(self, name) for name in shared}
        if self.begins_as is not None:
            values["stem"] = "keep"  # as published
        return TrainSettings(model=network, **values | {"method": self.trained_by})
