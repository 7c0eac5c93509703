"""What is known of the networks that a search has tried: values, as the journal keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.searching.reward import reward
from tutelage.searching.space import Genes


class Infeasible(Exception):
    """A network that can't be built, trained or asked here; says why, as the report shows it."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs on the device of the search."""

    parameters: int
    step_seconds: float  # a training step, images at hand: the median
    relative_time: float  # over a step of the reference network, taken in turns with it
    relative_parameters: float  # over the reference's
    latency: float | None = None  # seconds to answer one image, where it was asked for: the median


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a network did at one rung."""

    right: int  # validation images
    total: int
    cost: Cost
    seconds: float  # of measuring and training
    waited: float  # share of the training's time that it waited for images

    @property
    def accuracy(self) -> float:
        """On the validation images, after a training as long as the rung."""
        return self.right / self.total


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The exponents of the reward."""

    time: float
    params: float

    def reward_of(self, result: Result) -> float:
        """What the search wants most of."""
        return reward(
            result.accuracy, result.cost.relative_time, result.cost.relative_parameters,
            time_weight=self.time, params_weight=self.params,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network that the sampler suggested."""

    number: int  # from 0, in the order of suggestions
    genes: Genes
    network: str
    same_as: int | None = None  # the trial that has the network already, whose results it shares
    results: tuple[Result, ...] = ()  # of each rung that it has been through
    infeasible: str = ""  # why it can't be used, such as no memory for it
    attempts: int = 0  # begun since its last result, and neither ended nor stopped by the user


@dataclass(frozen=True)
class Seen:
    """What a sampler may know of a suggestion."""

    genes: Genes
    reward: float | None  # after the first rung; None: infeasible, or not known yet
    infeasible: bool = False


def seen(trials: Sequence[Trial], weights: Weights) -> tuple[Seen, ...]:
    """What a sampler learns from; a duplicate has the value of its first."""
    found = []
    for trial in trials:
        first = trials[trial.same_as] if trial.same_as is not None else trial
        value = weights.reward_of(first.results[0]) if first.results else None
        found.append(Seen(trial.genes, value, bool(first.infeasible)))
    return tuple(found)
