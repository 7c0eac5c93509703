"""Which network to try next: at random, by evolution, or by Optuna's samplers.

A suggestion is a function of what is known and of the seed alone, so that a search that was killed
goes on as if nothing had been.
Paper: Real et al. 2019 (arXiv 1802.01548), section 3, algorithm 1: aging evolution, where the
oldest leaves the population, good or not. Here a network that was trained before has its value from
a cache, so that it would never age: a child is one that hasn't been suggested yet, as long as its
parent has any. A mutation takes another option in one dimension. Networks that can't be used, or
have no value yet, are in no population, which is 10 and not 100, as searches here try dozens of
networks and not thousands.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from tutelage.core import Dice, generator
from tutelage.errors import UsageError
from tutelage.search_settings import OPTUNA, SAMPLERS
from tutelage.searching.space import Dimension, Genes, Space
from tutelage.searching.trials import Seen

T = TypeVar("T")


def sampler_of(name: str) -> "Sampler":
    """The sampler of a name in SAMPLERS; raises UsageError where Optuna is missing for it."""
    from tutelage.searching.optuna_sampler import Optuna  # which is a sampler of this module

    assert name in SAMPLERS, name
    if name.startswith(OPTUNA):
        return Optuna(name.removeprefix(OPTUNA))
    return Random() if name == "random" else Evolution()


class Sampler(ABC):
    """Suggests."""

    @abstractmethod
    def suggest(self, space: Space, history: Sequence[Seen], *, seed: int) -> Genes:
        """The next choice, after all earlier suggestions in order; it may be one of them again."""


class Random(Sampler):
    """Any choice that hasn't been suggested yet, all alike; any at all where there is none left."""

    def suggest(self, space: Space, history: Sequence[Seen], *, seed: int) -> Genes:
        """A draw without replacement."""
        dice = generator(seed, Dice.SEARCH, len(history))
        tried = {one.genes for one in history}
        if 2 * len(tried) > space.size:  # few are left: look for them
            left = [genes for genes in space.all_genes() if genes not in tried]
            return _one_of(left or list(space.all_genes()), dice)
        while True:
            genes = tuple(_below(len(one.options), dice) for one in space.dimensions)
            if genes not in tried:
                return genes


@dataclass(frozen=True, kw_only=True)
class Evolution(Sampler):
    """The best of a few of the youngest that have a value, with one mutation."""

    population: int = 10  # the paper's P; until so many are known, choices are random
    tournament: int = 5  # the paper's S, drawn from the population

    def __post_init__(self) -> None:
        """Reject what has no winner."""
        if not 1 <= self.tournament <= self.population:
            raise UsageError(
                "a tournament has at least 1 network and at most the population, got "
                f"{self.tournament} of {self.population}"
            )

    def suggest(self, space: Space, history: Sequence[Seen], *, seed: int) -> Genes:
        """A child of the tournament's winner."""
        known = [
            (one.reward, one.genes) for one in history
            if one.reward is not None and not one.infeasible
        ]  # fmt: skip
        if len(known) < self.population:
            return Random().suggest(space, history, seed=seed)
        dice = generator(seed, Dice.SEARCH, len(history))
        order = torch.randperm(self.population, generator=dice).tolist()
        drawn = [known[place - self.population] for place in order[: self.tournament]]
        parent = max(drawn)[1]
        tried = {one.genes for one in history}
        return _mutated(parent, space.dimensions, tried, dice)


def _mutated(
    parent: Genes, dimensions: Sequence[Dimension], tried: Collection[Genes], dice: torch.Generator
) -> Genes:
    """The parent with another option in one dimension, where it can be one not tried yet."""
    families = [_children(parent, number, one) for number, one in enumerate(dimensions)]
    fresh = [[genes for genes in children if genes not in tried] for children in families]
    choices = [children for children in fresh if children] or [one for one in families if one]
    return _one_of(_one_of(choices, dice), dice) if choices else parent


def _children(parent: Genes, number: int, dimension: Dimension) -> list[Genes]:
    """The parent with each other option of one dimension."""
    return [
        (*parent[:number], other, *parent[number + 1 :])
        for other in range(len(dimension.options)) if other != parent[number]
    ]  # fmt: skip


def _below(limit: int, dice: torch.Generator) -> int:
    """A whole number from 0, below the limit."""
    return int(torch.randint(limit, (), generator=dice))


def _one_of(choices: Sequence[T], dice: torch.Generator) -> T:
    """Any of them."""
    return choices[_below(len(choices), dice)]
