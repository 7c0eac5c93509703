"""Corruption errors, relative errors, AURRA and calibration, by known answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import AlexNet_Weights

from tutelage.corruptions.levels import EXTRA, SEVERITIES, TEST
from tutelage.evaluation.intervals import wilson
from tutelage.robustness import scores
from tutelage.robustness.choice import chosen
from tutelage.robustness.corrupted import Corrupted
from tutelage.robustness.grid import Beside, grid_of, numbers_of
from tutelage.robustness.imagenet import synsets
from tutelage.robustness.suite import Case, Reference, Subject


def halved(factor=0.5):
    return {name: [factor * error for error in errors] for name, errors in scores.ALEXNET.items()}


def test_alexnet_scores_100_for_every_corruption_and_in_the_mean():
    for name, errors in scores.ALEXNET.items():
        assert scores.corruption_error(name, errors) == pytest.approx(100, abs=1e-9)
        relative = scores.relative_corruption_error(name, errors, scores.ALEXNET_CLEAN)
        assert relative == pytest.approx(100, abs=1e-9)
    assert scores.mean_corruption_error(scores.ALEXNET) == pytest.approx(100, abs=1e-9)
    found = scores.mean_relative_corruption_error(scores.ALEXNET, scores.ALEXNET_CLEAN)
    assert found == pytest.approx(100, abs=1e-9)


def test_the_published_means_are_those_of_the_severities():
    assert tuple(scores.ALEXNET) == TEST
    assert tuple(scores.ALEXNET_MEANS) == TEST + EXTRA
    for name, errors in scores.ALEXNET.items():
        assert np.mean(errors) == pytest.approx(scores.ALEXNET_MEANS[name], abs=1e-9)


def test_the_clean_error_is_that_of_torchvisions_weights():
    share = AlexNet_Weights.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert pytest.approx(1 - share / 100) == scores.ALEXNET_CLEAN


def test_half_of_alexnets_errors_score_50_and_none_0():
    assert scores.mean_corruption_error(halved()) == pytest.approx(50)
    assert scores.mean_corruption_error(halved(0)) == 0


def test_the_mean_error_is_not_normalized():
    assert scores.mean_error(scores.ALEXNET) == pytest.approx(0.788993, abs=5e-7)


def test_relative_error_is_0_where_corruption_adds_nothing():
    errors = {name: [0.25] * 5 for name in TEST}
    assert scores.mean_relative_corruption_error(errors, 0.25) == 0
    assert scores.mean_corruption_error(errors) > 0


def test_no_mce_of_fewer_corruptions_or_severities():
    few = dict(scores.ALEXNET)
    few["snow"] = few["snow"][:4]
    del few["fog"]
    with pytest.raises(ValueError, match="snow, fog"):
        scores.mean_corruption_error(few)


def test_relative_to_another_model_sums_are_divided():
    assert scores.relative_error([0.1, 0.2], [0.2, 0.4]) == pytest.approx(50)
    assert scores.relative_error([0.4, 0.0], [0.2, 0.2]) == pytest.approx(100)
    assert scores.relative_error([0.1], [0.0]) is None


def test_aurra_by_hand():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6])
    assert scores.aurra(confidence, torch.tensor([1, 1, 0, 0]) > 0) == pytest.approx(0.7916667)
    assert scores.aurra(confidence, torch.tensor([0, 0, 1, 1]) > 0) == pytest.approx(0.2083333)


def test_aurra_does_not_depend_on_the_order_of_images():
    rng = torch.Generator().manual_seed(0)
    confidence = torch.randint(0, 4, (50,), generator=rng) / 4  # ties
    right = torch.rand(50, generator=rng) < confidence
    order = torch.randperm(50, generator=rng)
    assert scores.aurra(confidence, right) == scores.aurra(confidence[order], right[order])
    same = scores.aurra(torch.full((4,), 0.5), torch.tensor([1, 0, 0, 0]) > 0)
    assert same == pytest.approx(0.25)


def test_rms_calibration_error_by_hand(monkeypatch):
    confidence, right = torch.tensor([0.9, 0.8, 0.6, 0.55]), torch.tensor([1, 0, 1, 1]) > 0
    every = scores.rms_calibration_error(confidence, right)  # one bin
    assert every == pytest.approx(abs(0.75 - 0.7125))
    monkeypatch.setattr(scores, "BIN", 1)
    found = scores.rms_calibration_error(confidence, right)
    assert found == pytest.approx(0.503115, abs=1e-6)


def test_the_surest_bin_counts():
    confidence = torch.cat([torch.full((100,), 0.5), torch.full((130,), 1.0)])
    right = torch.cat([torch.arange(100) % 2 > 0, torch.zeros(130) > 0])  # sure, and always wrong
    found = scores.rms_calibration_error(confidence, right)
    assert found == pytest.approx(math.sqrt(130 / 230))


def test_the_interval_of_a_mean_is_that_of_resampled_images():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(0, 76, 300) / 75)
    found = scores.mean_of(values)
    drawn = values.numpy()[rng.integers(0, 300, (4000, 300))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)
    assert scores.mean_of(values) == found
    many = scores.mean_of(torch.from_numpy(rng.random(3000)))
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(1 / 12 / 3000), rel=0.05)


@pytest.mark.parametrize(("images", "least"), [(8, 0.89), (60, 0.92)])
def test_the_interval_of_a_mean_error_holds_for_few_images_that_differ_much(images, least):
    rng = np.random.default_rng(0)

    def drawn(count):  # errors in 75 cases of images of which some are much harder than others
        hard = 1 / (1 + np.exp(-rng.normal(-1, 2, (count, 1))))
        return torch.from_numpy((rng.random((count, 75)) < hard).mean(1))

    truth, held = float(drawn(40_000).mean()), 0
    for _ in range(400):
        found = scores.mean_share(drawn(images))
        held += found.low <= truth <= found.high
    assert held / 400 > least


def test_a_mean_of_one_image_or_of_equal_ones_is_not_said_to_be_sure():
    one = scores.mean_share(torch.tensor([0.95]))
    assert (one.low, one.high) == pytest.approx(wilson(0.95, 1))
    assert scores.mean_share(torch.zeros(10)).high == pytest.approx(wilson(0, 10)[1])
    alone = scores.mean_of(torch.tensor([0.1]))
    assert (alone.low, alone.high) == (-1, 1)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 45))
def test_images_are_chosen_evenly_from_the_classes(labels, most):
    rows = chosen(torch.tensor(labels), most, 0).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == min(most, len(labels))
    taken = [[labels[row] for row in rows].count(k) for k in range(6)]
    there = [labels.count(k) for k in range(6)]
    level = max(taken)
    assert all(took >= min(has, level - 1) for took, has in zip(taken, there, strict=True))


def answers(cases, labels, errors):
    """Columns of each case, with so many of the first images wrong."""
    found = {}
    for case in cases:
        wrong = round(errors[case.name][int(case.level) - 1] * len(labels))
        predicted = labels.clone()
        predicted[:wrong] += 1
        confidence = torch.full((len(labels),), 0.75)
        found[case.key] = {"predicted": predicted.int(), "confidence": confidence}
    return found


def subject(classes, labels, size=224):
    clean = {"predicted": labels.int(), "confidence": torch.ones(len(labels))}
    return Subject(None, classes, size, None, labels, (), clean)


def test_an_unchanged_model_is_at_100_of_itself_and_half_the_errors_are_at_50():
    labels = torch.arange(100) % 4
    cases = tuple(Case("c", name, str(s)) for name in TEST for s in SEVERITIES)
    whole = {name: [0.2, 0.2, 0.4, 0.4, 0.6] for name in TEST}
    half = {name: [value / 2 for value in errors] for name, errors in whole.items()}
    first, second = (grid_of(cases, answers(cases, labels, one), labels) for one in (whole, half))
    same = numbers_of(first, clean_error=0, beside=Beside("a", first), alexnet=False)
    assert same["relCE"] == pytest.approx(100)
    better = numbers_of(second, clean_error=0, beside=Beside("a", first), alexnet=False)
    assert better["relCE"] == better["relCE_fog"] == pytest.approx(50)
    assert better["mean_error"] == better["error_fog"] == pytest.approx(0.18)
    assert "mCE" not in better
    # 0.75 sure: by severity 90, 90, 80, 80 and 70 of 100 right
    assert better["calibration_error"] == pytest.approx((0.15 + 0.15 + 0.05 + 0.05 + 0.05) / 5)


def test_generated_corruptions_of_own_classes_have_no_mce_but_a_relative_error():
    labels = torch.arange(100) % 4
    one, errors = (
        subject(("a", "b", "c", "d"), labels),
        {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in TEST},
    )
    suite = Corrupted()
    found = answers(suite.cases(one), labels, errors)
    worse = {name: [0.2, 0.4, 0.6, 0.8, 1.0] for name in TEST}
    other = Reference("first", one.clean, answers(suite.cases(one), labels, worse))
    summary = suite.summary(one, found, other)
    assert not any("mCE" in text for text in (*summary.numbers, *summary.lines, *summary.notes))
    assert summary.numbers["relCE"] == pytest.approx(50)
    assert summary.rows[0] == (
        "gaussian noise",
        *map(pytest.approx, (0.9, 0.8, 0.7, 0.6, 0.5, 0.7, 0.5)),
    )
    assert summary.columns[-1] == "relCE"
    assert "relCE, error relative to first: 50.0 %, -30.0 points (-" in summary.lines[-1]
    assert "no JPEG step, and frost has textures of our own" in summary.notes[0]
    assert summary.rows[-1][0] == "calibration error"
    assert summary.curve.x == (0, 1, 2, 3, 4, 5)
    assert summary.curve.y == pytest.approx((1, 0.9, 0.8, 0.7, 0.6, 0.5))
    assert all(
        low <= y <= high
        for low, y, high in zip(summary.curve.low, summary.curve.y, summary.curve.high, strict=True)
    )


def test_generated_corruptions_of_imagenet_have_an_mce_that_is_said_to_be_of_generated_ones():
    labels = torch.arange(1000)
    whole = {name: [round(e, 3) for e in errors] for name, errors in scores.ALEXNET.items()}
    one, suite = subject(synsets(), labels), Corrupted()
    summary = suite.summary(one, answers(suite.cases(one), labels, whole), None)
    assert summary.numbers["mCE"] == pytest.approx(100, abs=0.05)
    assert summary.numbers["rCE"] > 200  # as clean images are all right
    assert any("mCE of generated corruptions, not comparable" in note for note in summary.notes)
    assert dict(zip(summary.columns, summary.rows[3], strict=True))["CE"] == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize(
    ("labels", "size", "why"),
    [(torch.arange(1000), 128, "and these have 128"), (torch.arange(1000) % 9, 224, "of 9")],
)
def test_no_mce_where_the_images_are_not_as_alexnets(labels, size, why):
    one, suite = subject(synsets(), labels, size), Corrupted()
    errors = {name: [0.5] * 5 for name in TEST}
    summary = suite.summary(one, answers(suite.cases(one), labels, errors), None)
    assert "mCE" not in summary.numbers
    assert any("no errors relative to AlexNet" in n and why in n for n in summary.notes)


def test_the_four_to_validate_on_have_no_mce_and_a_mean_of_their_own():
    labels = torch.arange(1000)
    one, suite = subject(synsets(), labels), Corrupted(extra=True)
    errors = {name: [0.5] * 5 for name in EXTRA}
    summary = suite.summary(one, answers(suite.cases(one), labels, errors), None)
    assert "mCE" not in summary.numbers
    assert summary.numbers["mean_error"] == 0.5
    assert summary.numbers["CE_spatter"] == pytest.approx(100 * 0.5 / 0.717512)
    assert "frost" not in summary.notes[0]
