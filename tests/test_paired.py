import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tutelage.evaluation.intervals import Z
from tutelage.evaluation.paired import POWER, Paired, compare, mcnemar, sentence


def answers(both=0, gained=0, lost=0, neither=0):
    """Which images each of two models gets right."""
    before = [True] * both + [False] * gained + [True] * lost + [False] * neither
    after = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return torch.tensor(before), torch.tensor(after)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_exact_binomial_test(gained, lost):
    if gained + lost == 0:
        assert mcnemar(gained, lost) == 1
        return
    assert mcnemar(gained, lost) == pytest.approx(
        binomtest(gained, gained + lost, 0.5).pvalue, rel=1e-9
    )


def test_mcnemar_holds_for_large_counts():
    expected = binomtest(5100, 10_000, 0.5).pvalue
    assert mcnemar(5100, 4900) == pytest.approx(expected, rel=1e-6)
    assert mcnemar(5100, 4900) == mcnemar(4900, 5100)


def test_a_comparison_counts_the_images_on_which_the_two_differ():
    paired = compare(*answers(both=50, gained=20, lost=5, neither=25))
    assert (paired.total, paired.gained, paired.lost) == (100, 20, 5)
    assert paired.difference == pytest.approx(0.15)
    assert paired.p_value == mcnemar(20, 5)
    assert paired.low < 0.15 < paired.high


def test_the_interval_is_that_of_resampled_images():
    before, after = answers(both=50, gained=20, lost=5, neither=25)
    paired = compare(before, after)
    difference = after.numpy().astype(int) - before.numpy()
    rows = np.random.default_rng(1).integers(0, 100, (20_000, 100))
    low, high = np.quantile(difference[rows].mean(1), [0.025, 0.975])
    assert (paired.low, paired.high) == pytest.approx((low, high), abs=0.0101)


def test_swapping_the_models_mirrors_the_result():
    before, after = answers(both=300, gained=60, lost=30, neither=110)
    there, back = compare(before, after), compare(after, before)
    assert there.difference == -back.difference
    assert there.p_value == back.p_value
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.005)


def test_the_same_seed_gives_the_same_interval():
    pair = answers(both=300, gained=60, lost=30, neither=110)
    assert compare(*pair, seed=3) == compare(*pair, seed=3)
    intervals = {(p.low, p.high) for p in (compare(*pair, seed=seed) for seed in range(5))}
    assert len(intervals) > 1 or math.isclose(*next(iter(intervals)))


def test_the_interval_covers_the_true_difference_about_95_times_in_a_hundred():
    rng = np.random.default_rng(0)
    gained, lost, images, covered, runs = 0.12, 0.08, 500, 0, 400
    for seed in range(runs):
        draw = rng.random(images)
        before = torch.from_numpy((draw >= gained) & (draw < 0.8))
        after = torch.from_numpy((draw < gained) | ((draw >= gained + lost) & (draw < 0.8)))
        paired = compare(before, after, seed=seed)
        covered += paired.low <= gained - lost <= paired.high
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs) < covered / runs < 0.985


def test_two_equal_models_are_seldom_called_different():
    rng = np.random.default_rng(0)
    wrong = 0
    for seed in range(400):
        draw = rng.random(300)
        before, after = torch.from_numpy(draw < 0.9), torch.from_numpy((draw < 0.8) | (draw > 0.9))
        wrong += compare(before, after, seed=seed).outcome != "open"
    assert wrong / 400 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_equal_answers_are_no_difference():
    paired = compare(*answers(both=7, neither=3))
    assert (paired.difference, paired.low, paired.high, paired.p_value) == (0, 0, 0, 1)
    assert paired.outcome == "open"


def test_models_that_differ_on_every_image_are_compared_too():
    paired = compare(*answers(gained=7, lost=3))
    assert paired.difference == pytest.approx(0.4)
    paired = compare(*answers(gained=10))
    assert (paired.low, paired.high, paired.outcome) == (1, 1, "help")


@pytest.mark.parametrize("sizes", [(3, 4), (0, 0)])
def test_answers_on_other_images_can_not_be_compared(sizes):
    with pytest.raises(ValueError, match="need the same images"):
        compare(*(torch.zeros(size, dtype=torch.bool) for size in sizes))


@given(st.integers(1, 2000), st.integers(0, 300), st.integers(0, 300))
def test_at_the_images_to_decide_such_a_difference_shows_four_times_in_five(same, gained, lost):
    paired = compare(*answers(both=same, gained=gained, lost=lost))
    needed = paired.images_to_decide
    assert needed > paired.total
    difference = max(abs(paired.difference), 0.01)
    spread = max(gained + lost, 1) / paired.total
    half = (Z + POWER) * math.sqrt(max(spread - difference**2, 0) / needed)
    assert half <= difference + 1e-12
    if needed > paired.total + 1:  # and one image fewer would not do
        assert (Z + POWER) * math.sqrt((spread - difference**2) / (needed - 1)) > difference


def test_the_smaller_the_difference_the_more_images_are_needed():
    needed = [
        compare(*answers(both=800, gained=100 + d, lost=100 - d)).images_to_decide
        for d in (5, 7, 10)
    ]
    assert needed == sorted(needed, reverse=True)
    assert len(set(needed)) == 3


def verdict(gained, lost, both=700, neither=100):
    paired = compare(*answers(both=both, gained=gained, lost=lost, neither=neither))
    return paired.outcome, sentence(paired, "1,000 test images")


def test_sentences_say_what_the_numbers_mean():
    outcome, words = verdict(150, 50)
    assert outcome == "help"
    assert words.startswith("the unlabeled images help: +10.0 points (+7")
    assert words.endswith("95 % interval, 1,000 test images)")
    outcome, words = verdict(50, 150)
    assert outcome == "hurt"
    assert words.startswith("the unlabeled images hurt: -10.0 points (-12")
    outcome, words = verdict(110, 90)
    assert outcome == "open"
    assert words.startswith("no gain shown: +2.0 points (-0")
    assert words.endswith("labeled test images would decide it")
    outcome, words = verdict(102, 98)
    assert outcome == "open"
    assert words.endswith("labeled test images would show a gain of 1 point")


def test_an_interval_alone_decides_nothing_where_mcnemar_disagrees():
    paired = Paired(total=100, gained=9, lost=2, low=0.01, high=0.13, p_value=mcnemar(9, 2))
    assert paired.p_value > 0.05
    assert paired.outcome == "open"
