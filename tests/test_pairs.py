"""Several models on the same images: intervals that hold together, and what is said of them."""

import math
import re
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from tutelage.evaluation import pairs as pairs_module
from tutelage.evaluation.paired import compare
from tutelage.evaluation.pairs import all_pairs, holm, pairs_with


def models(num, images, seed, share=0.6):
    """Right answers of models that often agree."""
    rng = np.random.default_rng(seed)
    hard = rng.random(images)
    return {
        f"m{k}": torch.from_numpy(hard + 0.3 * rng.standard_normal(images) < share + 0.01 * k)
        for k in range(num)
    }


def test_two_models_have_the_usual_interval():
    right = models(2, 400, 3)
    (pair,) = all_pairs(right)
    worse, better = sorted(right.values(), key=lambda answers: int(answers.sum()))
    usual = compare(worse, better)
    turned = pair if pair.paired.difference >= 0 else pair.turned()
    assert turned.paired == usual
    assert pair.p_holm == usual.p_value
    assert pair.images_to_decide == usual.images_to_decide


def test_one_model_beside_the_others_is_corrected_for_those_pairs_alone():
    right = models(4, 400, 5)
    pairs = pairs_with("m2", right)
    assert [(pair.first, pair.second) for pair in pairs] == [
        ("m0", "m2"), ("m1", "m2"), ("m3", "m2")
    ]  # fmt: skip
    assert {pair.num_pairs for pair in pairs} == {3}
    each = {frozenset((pair.first, pair.second)): pair for pair in all_pairs(right)}
    for pair in pairs:
        wider = each[frozenset((pair.first, pair.second))].paired
        assert pair.paired.high - pair.paired.low <= wider.high - wider.low
        assert abs(pair.paired.difference) == abs(wider.difference)
    assert pairs_with("m0", {"m0": right["m0"]}) == ()


@given(st.integers(0, 10_000))
@settings(max_examples=8)
def test_another_order_of_the_models_turns_signs_and_nothing_else(seed):
    right = models(3, 60, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs_module, "RESAMPLES", 2000)
        first = {frozenset((p.first, p.second)): p for p in all_pairs(right)}
        for order in permutations(right):
            for pair in all_pairs({name: right[name] for name in order}):
                other = first[frozenset((pair.first, pair.second))]
                same = other if other.first == pair.first else other.turned()
                assert pair == same
                assert pair.sentence() == same.sentence() or pair.paired.difference == 0


def test_a_tie_is_symmetric():
    one = torch.tensor([True] * 10 + [False] * 10 + [True] * 80)
    (pair,) = all_pairs({"a": one, "b": one.roll(10)})
    assert pair.paired.gained == pair.paired.lost == 10
    assert pair.paired.low == -pair.paired.high < 0
    assert pair.outcome == "open"


def test_the_more_pairs_the_wider_the_intervals_and_the_larger_p():
    right = models(5, 300, 1)
    few = all_pairs({name: right[name] for name in ("m0", "m4")})[0]
    many = next(p for p in all_pairs(right) if (p.first, p.second) == ("m0", "m4"))
    assert few.num_pairs == 1
    assert many.num_pairs == 10
    assert many.paired.low < few.paired.low <= few.paired.high < many.paired.high
    assert many.p_holm >= few.p_holm
    assert many.images_to_decide > few.images_to_decide


def test_the_corrected_interval_is_that_of_the_corrected_level():
    right = models(4, 5000, 2)
    for pair in all_pairs(right):
        p = pair.paired
        d = (p.gained + p.lost) / p.total - p.difference**2
        half = norm.ppf(1 - 0.05 / 6 / 2) * math.sqrt(d / p.total)
        assert (p.low, p.high) == pytest.approx(
            (p.difference - half, p.difference + half), abs=8e-4
        )


def test_holms_correction_of_a_known_example():
    # n = 4, alpha 0.05 (Holm's procedure by hand: 4 p, 3 p, 2 p, p, never falling)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_corrected_p_values_keep_their_order_and_lie_between_p_and_bonferronis(values):
    found = holm(values)
    for p, corrected in zip(values, found, strict=True):
        assert p <= corrected <= min(1, len(values) * p) or corrected == max(found)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
    assert min(found) == pytest.approx(min(1.0, len(values) * min(values)))


def test_all_intervals_hold_together_95_times_in_100(monkeypatch):
    monkeypatch.setattr(pairs_module, "RESAMPLES", 2000)
    rng = np.random.default_rng(0)
    chances, images, runs, covered, wrong = (0.70, 0.74, 0.74), 400, 200, 0, 0
    true = {pair: chances[pair[1]] - chances[pair[0]] for pair in combinations(range(3), 2)}
    for seed in range(runs):
        draw, shared = rng.random((3, images)), rng.random(images)
        same = rng.random(images) < 0.5  # models that agree on half the images
        right = {
            k: torch.from_numpy(np.where(same, shared, draw[k]) < chances[k]) for k in range(3)
        }
        found = all_pairs(right, seed=seed)
        covered += all(p.paired.low <= true[p.first, p.second] <= p.paired.high for p in found)
        wrong += any((p.first, p.second) == (1, 2) and p.outcome != "open" for p in found)
    assert covered / runs > 0.95 - 2 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong / runs < 0.05


def test_sentences_name_the_better_model_and_how_sure_it_is():
    right = models(3, 800, 0)
    right["m2"] = right["m1"] | (torch.arange(800) % 8 == 0)
    sentences = {(p.first, p.second): p.sentence() for p in all_pairs(right)}
    assert re.fullmatch(
        r"m2 is better than m1: \+\d+\.\d points "
        r"\(\+\d+\.\d to \+\d+\.\d; 95 % for all 3 pairs together\)",
        sentences["m1", "m2"],
    )
    (pair,) = all_pairs({"b": right["m2"], "a": right["m1"]})
    assert pair.outcome == "worse"
    assert pair.sentence().startswith("b is better than a: +")
    assert "; 95 % interval)" in pair.sentence()
    same = all_pairs({"a": right["m1"], "b": right["m1"]})[0].sentence()
    assert same.startswith("no difference shown: b against a +0.0 points (+0.0 to +0.0;")
    assert same.endswith("images would show a difference of 1 point")


def test_an_interval_alone_decides_nothing_where_the_test_disagrees():
    (pair,) = all_pairs({"a": torch.zeros(100, dtype=bool), "b": torch.arange(100) < 5})
    assert pair.paired.low > 0
    assert pair.p_holm > 0.05
    assert pair.outcome == "open"
    assert "McNemar's exact test is not sure (p = 0.06)" in pair.sentence()
