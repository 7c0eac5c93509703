"""One training as a value: which network, method, stages and noise."""

from dataclasses import dataclass, field

from tutelage.core import Stage
from tutelage.errors import UsageError
from tutelage.methods.method import Method
from tutelage.networks.build import Net
from tutelage.networks.freeze import Freeze
from tutelage.settings import Noise, Optim
from tutelage.values import digest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All values of one training; with the data they determine every weight."""

    net: Net
    method: Method
    stages: tuple[Stage, ...]
    optim: Optim
    noise: Noise
    batch: int  # labeled images a step
    ratio: int = 0  # pool images for each labeled one
    seed: int = 0
    precision: str = "fp32"  # or bf16, fp16
    teacher: str = ""  # digest of a frozen teacher's weights
    compile: bool = False  # the networks' forward
    init: str = ""  # digest of the weights that the network begins with; "": drawn from the seed
    freeze: Freeze = field(default_factory=Freeze)

    def __post_init__(self) -> None:
        """Reject what a teacher that learns from its student's steps can't go with."""
        if self.method.teacher == "trained":
            name = type(self.method).__name__
            if self.optim.accumulate > 1:
                raise UsageError(f"{name} needs an update each step: leave out --optim.accumulate")
            if self.compile:
                raise UsageError(f"{name} repeats its student's lessons: leave out --compile")

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def digest(self) -> str:
        """A hash that changes with any value."""
        return digest({"recipe": self, "method": type(self.method).__name__})
