"""Calibration measures against known answers and torchmetrics, and the temperature."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from tutelage.evaluation.calibration import (
    brier_scores,
    by_chance,
    expected_error,
    log_losses,
    mass_bins,
    width_bins,
)
from tutelage.evaluation.temperature import fit_temperature, resampled, tempered

KNOWN = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
KNOWN_LABELS = torch.tensor([0, 1, 0, 1])


def drawn(count, *, seed, classes=10, sharper=1.0):
    """Probabilities whose labels are drawn from them, then with logits multiplied by `sharper`."""
    dice = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=dice, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]
    return (sharper * logits).softmax(-1).float(), labels


def told(probs, labels):
    confidence, answer = probs.max(-1)
    return confidence, answer == labels


@pytest.mark.parametrize("bins", [10, 15])
def test_the_known_answers(bins):
    found = width_bins(*told(KNOWN, KNOWN_LABELS), bins=bins)
    assert found.expected == pytest.approx(0.4375, abs=1e-6)
    assert found.rms == pytest.approx(0.503115, abs=1e-6)
    assert found.largest == pytest.approx(0.8, abs=1e-6)
    assert expected_error(*told(KNOWN, KNOWN_LABELS), bins=bins) == found.expected


def test_perfect_answers_have_no_error_and_sure_wrong_ones_all():
    sure, right = torch.ones(50), torch.ones(50, dtype=torch.bool)
    for make in (width_bins, mass_bins):
        assert make(sure, right).expected == 0
        assert make(sure, ~right).expected == make(sure, ~right).largest == 1
        assert make(sure, ~right).rms == 1


@pytest.mark.parametrize("bins", [1, 10, 15, 37])
def test_torchmetrics_agrees(bins):
    for seed in range(5):
        probs, labels = drawn(300, seed=seed, sharper=3)
        found = width_bins(*told(probs, labels), bins=bins)
        for norm, value in (("l1", found.expected), ("l2", found.rms), ("max", found.largest)):
            theirs = multiclass_calibration_error(probs, labels, 10, bins, norm)
            assert value == pytest.approx(float(theirs), abs=1e-5)


def test_an_edge_belongs_to_the_bin_above_it_and_one_to_the_last():
    found = width_bins(torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), torch.ones(6) > 0, bins=5)
    assert found.count == (1, 1, 1, 1, 2)
    assert found.edges == (0, 0.2, 0.4, 0.6, 0.8, 1)


def test_bins_of_equal_mass_hold_as_many_images_each():
    confidence = torch.rand(1500, generator=torch.Generator().manual_seed(0))
    found = mass_bins(confidence, confidence > 0.5)
    assert set(found.count) == {100}
    order = torch.randperm(1500)
    shuffled = mass_bins(confidence[order], confidence[order] > 0.5)
    assert (shuffled.count, shuffled.edges) == (found.count, found.edges)
    assert shuffled.expected == pytest.approx(found.expected)


def test_images_of_equal_confidence_stay_together():
    confidence = torch.tensor([0.7] * 90 + [0.9] * 10)
    found = mass_bins(confidence, torch.arange(100) < 63)
    assert found.count == (90, 10)
    assert found.expected == pytest.approx(0.9 * 0.0 + 0.1 * 0.9, abs=1e-6)


def test_bins_know_their_accuracy_with_interval_and_what_is_empty():
    found = width_bins(torch.tensor([0.95] * 10), torch.arange(10) < 5, bins=10)
    assert found.accuracy[-1] == 0.5
    assert found.accuracy[0] is found.intervals[0] is None
    low, high = found.intervals[-1]
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert found.plain()["accuracy"][-1] == 0.5


def test_a_calibrated_model_shows_the_error_that_is_said_for_it():
    for make in (width_bins, mass_bins):
        errors = []
        for seed in range(60):
            confidence, right = told(*drawn(400, seed=seed))
            errors.append(make(confidence, right).expected)
        mean, most = by_chance(confidence, make)
        assert mean == pytest.approx(np.mean(errors), abs=0.006)
        assert np.mean(np.array(errors) < most) > 0.85
    few, many = (by_chance(drawn(count, seed=0)[0].max(-1).values)[0] for count in (100, 10_000))
    assert few > 5 * many > 0


def test_losses_and_brier_scores_are_those_of_the_formulas():
    probs, labels = drawn(100, seed=1)
    truth = torch.nn.functional.one_hot(labels, 10)
    assert torch.allclose(log_losses(probs, labels), -(probs.double().log() * truth).sum(-1))
    assert torch.allclose(brier_scores(probs, labels), (probs.double() - truth).square().sum(-1))
    none = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    assert log_losses(*none).isfinite().all()
    assert brier_scores(*none).item() == 2


def test_a_temperature_of_two_is_found_again():
    found = fit_temperature(*drawn(20_000, seed=0, sharper=2))
    assert found.value == pytest.approx(2, abs=0.03)
    assert found.low < 2 < found.high
    assert found == fit_temperature(*drawn(20_000, seed=0, sharper=2))


def test_tempered_probs_are_those_of_the_divided_logits():
    logits = 4 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    found = tempered(logits.softmax(-1), 2.5)
    assert torch.allclose(found, (logits / 2.5).softmax(-1), atol=1e-6)
    assert torch.equal(found.argmax(-1), logits.argmax(-1))
    same = logits.softmax(-1)
    assert tempered(same, 1.0) is same


def test_no_other_temperature_has_a_smaller_loss():
    probs, labels = drawn(3_000, seed=3, sharper=0.4)
    best = fit_temperature(probs, labels).value
    losses = [float(log_losses(tempered(probs, best * f), labels).mean()) for f in (0.97, 1, 1.03)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_few_images_that_are_all_right_give_a_finite_temperature(count):
    probs = torch.tensor([[0.9, 0.06, 0.04]]).repeat(count, 1)
    found = fit_temperature(probs, torch.zeros(count, dtype=torch.int64))
    assert 0.1 < found.value < 1
    assert 0.05 <= found.low <= found.value <= found.high <= 20


def test_saturated_answers_and_absurd_ones_stay_in_the_bracket():
    sure = torch.tensor([[1.0, 0.0, 0.0]]).repeat(40, 1)
    wrong = fit_temperature(sure, torch.ones(40, dtype=torch.int64))
    assert wrong.value == pytest.approx(20)
    right = fit_temperature(sure, torch.zeros(40, dtype=torch.int64))
    assert 0.05 <= right.value <= 1.01


def test_the_interval_of_the_temperature_covers_it_19_times_in_20():
    hits = []
    for seed in range(200):
        found = fit_temperature(*drawn(300, seed=seed, sharper=2))
        hits.append(found.low <= 2 <= found.high)
    assert 0.90 <= np.mean(hits) <= 0.99  # two standard errors of 200 draws around 95 %


def test_the_bootstrap_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=(500, 1))
    means = resampled(values, seed=0)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / 500**0.5, rel=0.1)
    assert (means == resampled(values, seed=0)).all()
