import itertools
import logging
import random
import sys
from dataclasses import dataclass

import numpy as np
import optuna
import pytest
import torch

from tutelage.errors import UsageError
from tutelage.search_settings import SAMPLERS
from tutelage.searching.optuna_sampler import POPULATION, Optuna
from tutelage.searching.samplers import Evolution, Random, sampler_of
from tutelage.searching.space import Dimension, Space
from tutelage.searching.trials import Seen


@dataclass(frozen=True)
class Grid(Space):
    """Dimensions of so many options; every second one is ordered."""

    counts: tuple[int, ...]

    @property
    def dimensions(self):
        return tuple(
            Dimension(f"d{number}", tuple(f"o{place}" for place in range(count)), number % 2 == 1)
            for number, count in enumerate(self.counts)
        )

    def network(self, genes):
        return "-".join(map(str, genes))

    @property
    def reference(self):
        return self.network((0,) * len(self.counts))


SMALL = Grid((2, 2, 3, 4))  # a stage of EfficientNetV2's space
STAGES = Grid((2, 2, 3, 4) * 4)


def table(space, seed):
    """An accuracy for each option and for each pair of neighboring dimensions, summed."""
    dice = np.random.default_rng(seed)
    sizes = space.counts
    alone = [dice.normal(size=count) for count in sizes]
    pairs = [dice.normal(size=pair) / 2 for pair in itertools.pairwise(sizes)]

    def accuracy(genes):
        both = zip(pairs, itertools.pairwise(genes), strict=True)
        return float(
            sum(values[place] for values, place in zip(alone, genes, strict=True))
            + sum(values[two] for values, two in both)
        )

    return accuracy


def search(sampler, space, accuracy, trials, *, seed, fits=lambda genes: True):
    """The history of a search without a pause."""
    history = []
    for _ in range(trials):
        genes = sampler.suggest(space, history, seed=seed)
        usable = fits(genes)
        history.append(Seen(genes, accuracy(genes) if usable else None, not usable))
    return history


def messy(space, count, seed=0):
    """Every fifth unknown, as of other processes, every seventh infeasible, one after a value."""
    dice = random.Random(seed)
    history = []
    for number in range(count):
        genes = tuple(dice.randrange(len(one.options)) for one in space.dimensions)
        unknown, infeasible = number % 5 == 3, number % 7 == 2
        history.append(Seen(genes, None if unknown or infeasible else dice.random(), infeasible))
    return [*history, Seen(history[0].genes, 0.9, True)]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [0, 6, 24])
def test_the_same_history_and_seed_give_the_same_suggestion(name, count):
    history = messy(SMALL, count) if count else []
    first = sampler_of(name).suggest(SMALL, history, seed=5)
    torch.rand(3)
    np.random.rand(3)
    assert sampler_of(name).suggest(SMALL, tuple(history), seed=5) == first
    assert len(first) == 4
    assert all(
        isinstance(place, int) and 0 <= place < len(one.options)
        for place, one in zip(first, SMALL.dimensions, strict=True)
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_and_the_number_of_suggestions_both_matter(name):
    sampler = sampler_of(name)
    assert len({sampler.suggest(STAGES, [], seed=seed) for seed in range(6)}) > 3
    waiting = [[Seen((0,) * 16, None)] * count for count in range(6)]
    assert len({sampler.suggest(STAGES, history, seed=0) for history in waiting}) > 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_history_without_any_value_is_no_obstacle(name):
    history = [Seen(genes, None, infeasible=True) for genes in itertools.islice(
        SMALL.all_genes(), 12)] + [Seen((1, 1, 2, 3), None)]  # fmt: skip
    assert len(sampler_of(name).suggest(SMALL, history, seed=0)) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_dimension_or_one_choice_are_spaces_too(name):
    sampler = sampler_of(name)
    for space in (Grid((5,)), Grid((1,)), Grid((1, 1, 2))):
        history = [Seen(genes, 0.5) for genes in space.all_genes()] * 4
        assert sampler.suggest(space, history, seed=1) in set(space.all_genes())


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_suggestion_is_silent_and_leaves_all_as_it_was(name, capfd, caplog):
    optuna.logging.enable_propagation()
    try:
        before = optuna.logging.get_verbosity(), torch.get_rng_state(), np.random.get_state()[1]
        with caplog.at_level(logging.DEBUG):
            sampler_of(name).suggest(SMALL, messy(SMALL, 14), seed=0)
        assert optuna.logging.get_verbosity() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert np.array_equal(np.random.get_state()[1], before[2])
    finally:
        optuna.logging.disable_propagation()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_random_search_of_the_whole_space_meets_each_choice_once_and_so_the_best():
    accuracy = table(SMALL, 0)
    history = search(Random(), SMALL, accuracy, SMALL.size, seed=3)
    assert sorted(one.genes for one in history) == sorted(SMALL.all_genes())
    assert max(one.reward for one in history) == max(map(accuracy, SMALL.all_genes()))
    assert Random().suggest(SMALL, history, seed=3) in set(SMALL.all_genes())


def test_random_choices_are_all_alike():
    counts = dict.fromkeys(SMALL.all_genes(), 0)
    for seed in range(2400):
        counts[Random().suggest(SMALL, [Seen((0, 0, 0, 0), None)], seed=seed)] += 1
    assert counts.pop((0, 0, 0, 0)) == 0
    expected = 2400 / 47
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 81  # the 0.999 quantile at 46 degrees of freedom


def distance(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_evolution_begins_at_random():
    history = messy(STAGES, 12)
    assert sum(one.reward is not None and not one.infeasible for one in history) < 10
    assert Evolution().suggest(STAGES, history, seed=2) == Random().suggest(STAGES, history, seed=2)


def test_a_child_is_one_mutation_away_from_the_best_of_the_youngest_that_can_be_used():
    best, young, bad = (0,) * 16, (1,) * 16, (1, 0) * 8
    others = [Seen((0, 1) * 8, 0.1)] * 8
    history = [Seen(best, 0.9), *others, Seen(young, 0.5), Seen(bad, 0.8, True), Seen(bad, None)]
    whole = Evolution(population=10, tournament=10)
    assert distance(whole.suggest(STAGES, history, seed=0), best) == 1
    aged = [*history, Seen((0, 1) * 8, 0.1)]
    assert distance(whole.suggest(STAGES, aged, seed=0), young) == 1
    small = Evolution(population=10, tournament=1)
    parents = {
        min((best, young, (0, 1) * 8), key=lambda one: distance(one, child))
        for child in (small.suggest(STAGES, history, seed=seed) for seed in range(40))
    }
    assert parents == {best, young, (0, 1) * 8}  # a tournament of one has no favorites


def test_every_other_option_of_every_dimension_is_a_mutation():
    history = [Seen((0, 0, 1, 1), 0.5)] * 10
    children = {Evolution().suggest(SMALL, history, seed=seed) for seed in range(200)}
    assert children == {one for one in SMALL.all_genes() if distance(one, (0, 0, 1, 1)) == 1}


def test_evolution_makes_no_child_twice_while_there_are_others():
    parent = (0, 0, 1, 1)
    history = [Seen(parent, 0.5)] * 10
    children = []
    for _ in range(7):
        children.append(Evolution().suggest(SMALL, [*history, *[
            Seen(child, None) for child in children]], seed=0))  # fmt: skip
    assert len(set(children)) == 7
    again = Evolution().suggest(SMALL, [*history, *[Seen(c, None) for c in children]], seed=0)
    assert again in children


@pytest.mark.parametrize("sizes", [(0, 0), (10, 11), (10, 0)])
def test_a_tournament_is_held_within_the_population(sizes):
    with pytest.raises(UsageError, match="tournament"):
        Evolution(population=sizes[0], tournament=sizes[1])


@pytest.mark.parametrize(
    ("name", "space", "trials"),
    [("evolution", STAGES, 40), ("optuna:tpe", Grid((2, 2, 3, 4) * 2), 30)],
    ids=["evolution", "optuna:tpe"],
)
def test_what_learns_from_its_trials_beats_chance_on_average(name, space, trials):
    gains = []
    for seed in range(14):
        accuracy = table(space, seed)
        found, chance = (
            max(one.reward for one in search(sampler, space, accuracy, trials, seed=seed))
            for sampler in (sampler_of(name), Random())
        )
        gains.append(found - chance)
    mean, error = np.mean(gains), np.std(gains, ddof=1) / len(gains) ** 0.5
    assert mean > 2 * error


def test_a_gaussian_process_finds_the_best_of_48_in_fewer_trials():
    accuracy = table(SMALL, 1)
    history = search(sampler_of("optuna:gp"), SMALL, accuracy, 18, seed=0)
    assert max(one.reward for one in history) == max(map(accuracy, SMALL.all_genes()))


def test_tpe_suggests_the_same_network_again():
    history = search(sampler_of("optuna:tpe"), SMALL, table(SMALL, 2), 40, seed=0)
    assert len({one.genes for one in history}) < len(history)


def test_tpe_learns_what_cannot_be_used():
    def fits(genes):
        return genes[0] == 0 or genes[4] == 0

    history = search(sampler_of("optuna:tpe"), STAGES, lambda genes: 0.5, 45, seed=0, fits=fits)
    assert sum(one.infeasible for one in history[:20]) >= 3
    assert sum(one.infeasible for one in history[-20:]) <= 1


def test_children_of_nsga2_have_what_the_last_whole_generation_has():
    space = Grid((4,) * 16)
    old = [genes for genes in Grid((2,) * 16).all_genes() if sum(genes) == 8][
        :: 12870 // POPULATION
    ]
    history = [Seen(genes, 0.5) for genes in old[:POPULATION]]
    history += [Seen((3,) * 16, 0.9)] * (POPULATION // 2)  # of a generation that isn't whole yet
    children = [Optuna("nsga2").suggest(space, history, seed=seed) for seed in range(20)]
    inherited = np.mean([place < 2 for child in children for place in child])
    assert inherited > 0.9  # a mutation in one of 16 places; without parents it would be a half
    younger = [*history, *[Seen((3,) * 16, 0.9)] * (POPULATION // 2)]
    children = [Optuna("nsga2").suggest(space, younger, seed=seed) for seed in range(20)]
    assert np.mean([place == 3 for child in children for place in child]) > 0.9


@pytest.mark.parametrize(
    ("name", "package"),
    [("optuna:tpe", "optuna"), ("optuna:gp", "scipy"), ("optuna:nsga2", "optuna")],
)
def test_a_missing_package_is_named_with_the_command(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"{package} too: pip install 'tutelage\[search\]'"):
        sampler_of(name)
    sampler_of("random")


def test_an_old_optuna_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "4.9.0")
    with pytest.raises(UsageError, match="Optuna 5 or newer"):
        sampler_of("optuna:tpe")
