"""One training as a value: which network, method, stages and noise."""

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property

from tutelage.core import Clock, Stage, images_before, stage_at
from tutelage.errors import UsageError
from tutelage.methods.method import Method
from tutelage.networks.build import Net
from tutelage.networks.freeze import Freeze
from tutelage.optimizers import check_shardable
from tutelage.schedules import rate_for
from tutelage.settings import Noise, Optim
from tutelage.training_settings import Spread
from tutelage.values import digest, to_plain


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
    wise: float = 1.0  # alpha of WiSE-FT: 1 keeps the trained weights, 0 the given ones
    freeze: Freeze = field(default_factory=Freeze)
    spread: Spread = field(default_factory=Spread)  # may be another when a training goes on
    keep_middle: bool = False  # write the network's weights down where half is done, too

    def __post_init__(self) -> None:
        """Reject what the method can't go with."""
        if self.method.averaged and self.optim.ema is None:
            raise UsageError("this method asks the weights' average: give --optim.ema, as 0.999")
        if self.method.teacher == "trained":
            if self.optim.accumulate > 1:
                raise UsageError(
                    "this method needs an update each step: leave out --optim.accumulate"
                )
            if self.compile:
                raise UsageError("this method repeats its student's lessons: leave out --compile")
        self._check_shards()

    def _check_shards(self) -> None:
        """Reject what can't be computed on parts of weights."""
        spread, learns = self.spread, self.method.teacher == "trained"
        if spread.shard == "none":
            return
        if self.compile:
            raise UsageError("a network that is sharded can't be compiled: leave out --compile")
        if spread.shards("student") and self.method.differentiates:
            raise UsageError(
                "a student that is sharded has no derivative of its lessons: set --options "
                "feedback=difference, or --shard teacher"
            )
        if spread.shards("student") or (spread.shards("teacher") and learns):
            check_shardable(self.optim.name)

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return stage_at(step, self.stages)

    def clock(self, step: int) -> Clock:
        """The time at a step: counted in images, and with a rate of its own, where batches change.

        The rate follows the batch by the optimizer's scaling rule.
        """
        if all(stage.batch in (None, self.batch) for stage in self.stages):
            return Clock(step, self.steps)
        images = images_before(step, self.stages, self.batch)
        total = images_before(self.steps, self.stages, self.batch)
        batch = self.stage(step).batch or self.batch
        rate = rate_for(batch, self.batch, self.optim.scale)
        return Clock(step, self.steps, images=(images, total), rate=rate)

    @cached_property
    def middle(self) -> int:
        """Steps after which half of the images are seen, rounded up."""
        return 1 + bisect_left(range(1, self.steps), 0.5, key=lambda n: self.clock(n).fraction)

    def digest(self) -> str:
        """A hash that changes with any value that decides what is learned."""
        values = to_plain(self)
        del values["spread"], values["keep_middle"]
        return digest({"recipe": values, "method": type(self.method).__name__})
