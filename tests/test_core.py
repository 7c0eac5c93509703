import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core import Batch, Clock, Dice, Labeled, Stage, Unlabeled, fold, generator
from tutelage.errors import UsageError

SEEDS = st.integers(min_value=0, max_value=2**40)
STEPS = st.integers(min_value=0, max_value=10**9)


@given(SEEDS, st.sampled_from(Dice), STEPS)
def test_a_fold_is_a_seed_that_torch_accepts_and_repeats(seed, use, step):
    value = fold(seed, use, step)
    assert 0 <= value < 2**63
    assert value == fold(seed, use, step)


def test_folds_of_many_seeds_uses_and_steps_all_differ():
    folds = {fold(seed, use, step) for seed in range(8) for use in Dice for step in range(100)}
    assert len(folds) == 8 * len(Dice) * 100


def test_numbers_are_not_glued_together_in_a_fold():
    assert fold(1, Dice(1), 11) != fold(11, Dice(1), 1)
    assert fold(1, Dice.LABELED_ORDER, 1) != fold(11, Dice.LABELED_ORDER, 1)


def test_a_generator_is_a_function_of_its_three_numbers_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = torch.rand(4, generator=generator(1, Dice.STEP, 2))
    again = torch.rand(4, generator=generator(1, Dice.STEP, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(4, generator=generator(1, Dice.STEP, 3)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_of_dice_never_change():
    names = "SPLIT LABELED_ORDER POOL_ORDER LABELED_VIEW POOL_VIEW STEP INIT SELECT BOOTSTRAP ROUND"
    assert [use.name for use in Dice][:10] == names.split()
    assert [int(use) for use in Dice] == list(range(len(Dice)))


def test_the_clock_starts_at_zero_and_never_reaches_one():
    fractions = [Clock(step, 7).fraction for step in range(7)]
    assert fractions[0] == 0
    assert fractions == sorted(set(fractions))
    assert fractions[-1] == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"size": 0}, {"magnitude": -1}, {"magnitude": 30.1}, {"cutout": 1.01}]
)
def test_a_stage_that_means_nothing_is_refused(wrong):
    with pytest.raises(UsageError):
        Stage(**{"steps": 1, "size": 8, "magnitude": 0.0, "cutout": 0.0} | wrong)


def test_a_batch_without_pool_says_what_is_missing():
    labeled = Labeled(torch.zeros(1, 3, 2, 2), torch.ones(1, 1))
    with pytest.raises(UsageError, match="give the recipe a pool"):
        Batch(labeled).pool()
    unlabeled = Unlabeled(torch.zeros(1, dtype=torch.int64), {}, None)
    assert Batch(labeled, unlabeled).pool() is unlabeled
