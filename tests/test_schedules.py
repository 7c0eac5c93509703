import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutelage.schedules import learning_rate, momentum, rate_for
from tutelage.settings import Optim

NAMES = ["cosine", "fixmatch", "constant", "step", "waterfall"]
MILESTONES = (0.3, 0.6, 0.9)


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


def test_steps_are_tenths_from_each_milestone_on():
    rates = [learning_rate(at, "step", milestones=MILESTONES) for at in (0, 0.29, 0.3, 0.7, 0.9)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.001])


def test_the_waterfall_is_that_of_350_epochs():
    epochs = [0, 2, 3, 24.5, 349.9]
    stairs = [0, 0, 1, 10, 145]
    rates = [learning_rate(epoch / 350, "waterfall") for epoch in epochs]
    assert rates == pytest.approx([0.97**stair for stair in stairs])
    assert rates[-1] == pytest.approx(0.0121, abs=5e-5)


def test_one_cycle_is_that_of_torch():
    total, turn = 100, 0.3 * 100 - 1  # torch turns and ends at a step, not at a time
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1, total_steps=total)
    for step in range(total):
        (group,) = optimizer.param_groups
        late = 0.3 + 0.7 * (step - turn) / (total - 1 - turn)
        at = 0.3 * step / turn if step <= turn else late
        assert learning_rate(at, "one-cycle", 0.1) == pytest.approx(group["lr"], rel=1e-6)
        assert momentum(at, "one-cycle", 0.9) == pytest.approx(group["momentum"], rel=1e-6)
        optimizer.step()
        if step + 1 < total:
            scheduler.step()


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(NAMES))
def test_momentum_stays_as_it_is_without_a_cycle(fraction, usual, name):
    assert momentum(fraction, name, usual) == usual
    assert momentum(fraction, "one-cycle", 0.0) == 0


@given(st.sampled_from([*NAMES, "one-cycle"]), st.floats(0, 1), st.floats(0, 1))
def test_the_end_lies_between_the_shape_and_the_peak(name, fraction, end):
    plain = learning_rate(fraction, name, milestones=MILESTONES)
    lifted = learning_rate(fraction, name, end=end, milestones=MILESTONES)
    assert min(plain, end) - 1e-12 <= lifted <= 1 + 1e-12
    assert 1 - lifted == pytest.approx((1 - end) * (1 - plain))


def test_the_cosine_ends_where_it_is_told_to():
    assert learning_rate(1, "cosine", end=0.01) == pytest.approx(0.01)
    assert learning_rate(0.5, "cosine", end=0.01) == pytest.approx(0.01 + 0.5 * 0.99)


@pytest.mark.parametrize(("rule", "expected"), [("none", 1.0), ("linear", 0.25), ("sqrt", 0.5)])
def test_rates_follow_the_batch(rule, expected):
    assert rate_for(64, 256, rule) == expected
    assert rate_for(256, 256, rule) == 1
    there, back = rate_for(64, 256, rule), rate_for(256, 64, rule)
    assert there * back == pytest.approx(1)


def test_the_published_rate_of_efficientnet_is_reached():
    """0.256 for 4,096 images is 0.016 for 256."""
    assert 0.016 * rate_for(4096, 256, "linear") == pytest.approx(0.256)


def test_every_schedule_of_the_settings_has_a_shape():
    names = Optim.__dataclass_fields__["schedule"].type.__args__
    assert set(names) == {*NAMES, "one-cycle"}
    shapes = {
        tuple(learning_rate(i / 20, n, milestones=MILESTONES) for i in range(20)) for n in names
    }
    assert len(shapes) == len(names)
