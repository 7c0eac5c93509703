"""Optuna's samplers (Akiba et al. 2019, arXiv 1907.10902) on what a search knows.

The study is made anew from the history for each suggestion, so that the journal is all there is.
Networks that can't be used are trials that break a constraint, with the worst value that is known;
those without a value yet are running trials, which TPE and the Gaussian process keep away from.
Ordered dimensions are whole numbers to Optuna, others categories.
"""

import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutelage.core import Dice, fold
from tutelage.errors import UsageError
from tutelage.searching.samplers import Sampler
from tutelage.searching.space import Dimension, Genes, Space
from tutelage.searching.trials import Seen

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

POPULATION = 20  # of a generation of NSGA-II; Optuna's 50 are more than most searches try
OLDEST = 5  # major version, the first whose trials have constraints
CONSTRAINT = "use"  # above 0 where a network can't be used


@dataclass(frozen=True)
class Optuna(Sampler):
    """One of Optuna's samplers."""

    name: str  # tpe, gp or nsga2

    def __post_init__(self) -> None:
        """Raises UsageError where Optuna is missing, before a search begins."""
        try:
            for package in ("optuna", "scipy") if self.name == "gp" else ("optuna",):
                importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"optuna:{self.name} needs {error.name} too: pip install 'tutelage[search]'"
            ) from error
        if int(importlib.metadata.version("optuna").split(".")[0]) < OLDEST:
            raise UsageError(
                f"optuna:{self.name} needs Optuna {OLDEST} or newer: pip install 'tutelage[search]'"
            )

    def suggest(self, space: Space, history: Sequence[Seen], *, seed: int) -> Genes:
        """What Optuna asks for."""
        import optuna

        kinds = {one.name: _distribution(one) for one in space.dimensions}
        with _silent():
            sampler = _sampler(self.name, fold(seed, Dice.SEARCH, len(history)) % 2**32)
            study = optuna.create_study(sampler=sampler, direction="maximize")
            study.add_trials(_trials(history, kinds))
            params = study.ask(kinds).params
        return tuple(params[name] for name in kinds)


def _distribution(dimension: Dimension) -> "BaseDistribution":
    """The places of a dimension's options."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    count = len(dimension.options)
    return (
        IntDistribution(0, count - 1)
        if dimension.ordered
        else CategoricalDistribution(range(count))
    )


def _sampler(name: str, seed: int) -> "BaseSampler":
    """Optuna's sampler of that name, drawing from the seed."""
    from optuna.samplers import GPSampler, NSGAIISampler, TPESampler

    if name == "nsga2":
        return NSGAIISampler(population_size=POPULATION, seed=seed)
    return TPESampler(seed=seed) if name == "tpe" else GPSampler(seed=seed)


def _trials(
    history: Sequence[Seen], kinds: Mapping[str, "BaseDistribution"]
) -> Iterator["FrozenTrial"]:
    """Each suggestion as Optuna's trial."""
    from optuna.samplers import NSGAIISampler
    from optuna.trial import TrialState, create_trial

    worst = min((one.reward for one in history if one.reward is not None), default=0.0)
    constrained = any(one.infeasible for one in history)  # else no model of what can be used
    ended = 0
    for one in history:
        known = one.infeasible or one.reward is not None
        yield create_trial(
            state=TrialState.COMPLETE if known else TrialState.RUNNING,
            value=(worst if one.reward is None else one.reward) if known else None,
            params=dict(zip(kinds, one.genes, strict=True)),
            distributions=dict(kinds),
            constraints={CONSTRAINT: 1.0 if one.infeasible else -1.0} if constrained else None,
            system_attrs={NSGAIISampler._get_generation_key(): ended // POPULATION},
        )
        ended += known


@contextmanager
def _silent() -> Iterator[None]:
    """Without Optuna's log, which is about studies that nobody sees."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
