import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.schedules import learning_rate

NAMES = ["cosine", "fixmatch", "constant"]


@pytest.mark.parametrize(("fraction", "expected"), [(0, 1), (0.5, 0.5), (1, 0), (1 / 3, 0.75)])
def test_the_cosine_falls_from_one_to_zero(fraction, expected):
    assert learning_rate(fraction, "cosine") == pytest.approx(expected)


def test_fixmatch_ends_at_a_fifth_of_the_peak():
    assert learning_rate(0, "fixmatch") == 1
    assert learning_rate(1, "fixmatch") == pytest.approx(math.cos(7 * math.pi / 16))
    assert learning_rate(1, "fixmatch") == pytest.approx(0.195, abs=5e-4)


def test_constant_is_constant():
    assert {learning_rate(step / 10, "constant") for step in range(10)} == {1.0}


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_is_linear_from_zero_and_then_changes_nothing(name):
    assert learning_rate(0, name, 0.2) == 0
    assert learning_rate(0.1, name, 0.2) == pytest.approx(0.5 * learning_rate(0.1, name))
    for fraction in (0.2, 0.5, 0.99):
        assert learning_rate(fraction, name, 0.2) == learning_rate(fraction, name)


@given(st.sampled_from(NAMES), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_multipliers_stay_between_zero_and_one(name, fraction, warmup):
    assert 0 <= learning_rate(fraction, name, warmup) <= 1


@given(st.sampled_from(NAMES), st.floats(0, 1), st.floats(0, 1))
def test_without_warm_up_the_rate_never_rises(name, one, other):
    early, late = sorted((one, other))
    assert learning_rate(early, name) >= learning_rate(late, name)
