"""Answering "unknown": the promise holds, and what can't be promised is said."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toy
from scipy.stats import beta

import tutelage
from tutelage.cli import main
from tutelage.deploy.model_folder import load_model, model_at
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.calibrated import calibrated
from tutelage.evaluation.judgement import judged
from tutelage.evaluation.reject import (
    bound_of,
    find_threshold,
    images_needed,
    lowest_rate,
    reject_curve,
    threshold_for,
)


def drawn(count, *, seed, sharper=2.0):
    dice = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, 6, generator=dice, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]
    return (sharper * logits).softmax(-1).float(), labels


def test_what_the_thresholds_do_is_said_in_percent():
    probs, labels = drawn(4000, seed=0)
    its = calibrated(probs[:2000], labels[:2000], "others")
    found = judged(probs[2000:], labels[2000:], tuple("abcdef"), calibration=its)
    lines = [line for line in found.lines() if line.startswith("at most")]
    assert lines
    assert all("%" in line and "  " not in line for line in lines)


@pytest.mark.parametrize(("wrong", "total"), [(0, 10), (3, 100), (5, 5), (0, 1), (400, 9000)])
def test_the_bound_is_clopper_and_pearsons(wrong, total):
    exact = 1.0 if wrong == total else beta.ppf(1 - 0.005, wrong + 1, total - wrong)
    assert bound_of(wrong, total, 0.005) == pytest.approx(exact, abs=1e-9)


def test_a_curve_counts_what_is_answered_and_what_is_wrong():
    confidence = torch.tensor([0.9, 0.5, 0.9, 0.7])
    found = reject_curve(confidence, torch.tensor([True, False, False, True]))
    assert found.thresholds == pytest.approx((0.9, 0.7, 0.5))
    assert found.accepted == (2, 3, 4)
    assert found.wrong == (1, 1, 2)
    many = reject_curve(torch.rand(5000), torch.ones(5000, dtype=torch.bool))
    assert len(many.thresholds) == 1000
    assert many.accepted[-1] == many.total == 5000


def test_the_promise_holds_with_a_temperature_fitted_on_the_same_images():
    probs, labels = drawn(30_000, seed=10**6)
    wrong = (probs.argmax(-1) != labels).double()
    broken = []
    for seed in range(60):
        its = calibrated(*drawn(800, seed=seed), "drawn")
        threshold = find_threshold(its.curve, 0.1)
        if threshold is not None:
            taken = its.probs(probs).max(-1).values.double() >= threshold.confidence
            broken.append(float(wrong[taken].mean()) > 0.1)
            assert abs(float(taken.double().mean()) - threshold.answered) < 0.12
    assert len(broken) > 40
    assert sum(broken) <= 3


@pytest.mark.parametrize("images", [60, 200, 600])
def test_images_that_are_all_right_show_five_over_their_number(images):
    curve = reject_curve(torch.rand(images), torch.ones(images, dtype=torch.bool))
    found = find_threshold(curve, 5.5 / images)
    assert found is not None
    assert find_threshold(curve, 4 / images) is None
    assert lowest_rate(curve) <= 5.5 / images + 0.001


def test_what_can_not_be_shown_is_said_with_what_to_do():
    curve = reject_curve(torch.tensor([0.9, 0.8]), torch.tensor([False, False]))
    with pytest.raises(UsageError, match=r"more labeled images .* might show it: `tutelage cal"):
        threshold_for(curve, 0.1)


def test_many_draws_of_a_known_curve_keep_the_promise():
    dice = np.random.default_rng(0)
    broken = []
    for _ in range(200):
        confidence = 1 - 0.5 * dice.beta(0.5, 1.5, 800)
        right = dice.random(800) < confidence
        found = find_threshold(reject_curve(torch.tensor(confidence), torch.tensor(right)), 0.08)
        if found is not None:
            test = 1 - 0.5 * dice.beta(0.5, 1.5, 40_000)
            broken.append((1 - test[test >= found.confidence]).mean() > 0.08)
    assert len(broken) > 150
    assert np.mean(broken) <= 0.05


def test_what_cannot_be_shown_is_refused_with_what_could_and_what_it_takes():
    its = calibrated(*drawn(400, seed=0), "drawn")
    assert find_threshold(its.curve, 0.001) is None
    lowest = lowest_rate(its.curve)
    assert find_threshold(its.curve, lowest) is not None
    assert find_threshold(its.curve, lowest - 0.001) is None
    with pytest.raises(
        UsageError,
        match=r"400 images are too few.* show .* 0.1 % .*: the least that they show is .* %",
    ):
        threshold_for(its.curve, 0.001)
    needed = images_needed(its.curve, lowest / 2)
    assert needed > 400
    more = calibrated(*drawn(3 * needed, seed=1), "drawn")
    assert find_threshold(more.curve, lowest / 2) is not None


def test_a_model_that_is_always_wrong_or_has_one_image_promises_nothing():
    for count in (1, 50):
        curve = reject_curve(torch.rand(count), torch.zeros(count, dtype=torch.bool))
        assert find_threshold(curve, 0.5) is None
        assert lowest_rate(curve) is None
        with pytest.raises(UsageError, match="they show no rate at all"):
            threshold_for(curve, 0.1)


def test_a_judgement_says_what_the_thresholds_do_on_its_images():
    its = calibrated(*drawn(4000, seed=0), "drawn")
    probs, labels = drawn(3000, seed=1)
    found = judged(probs, labels, tuple("abcdef"), calibration=its)
    assert found.rejected
    for one in found.rejected:
        taken = its.probs(probs).max(-1).values.double() >= one.threshold
        assert one.answered.right == int(taken.sum()) == one.wrong.total
        assert one.wrong.interval[0] < one.rate
    assert found.ece < found.raw_ece
    assert found.nll.value < found.raw_nll
    assert found.top5.value > found.accuracy.value
    assert found.balanced.low < found.balanced.value < found.balanced.high
    assert json.loads(json.dumps(found.plain()))["calibration"]["width"]["images"] == 3000
    raw = judged(probs, labels, tuple("abcdef"))
    assert raw.accuracy == found.accuracy
    assert (raw.temperature, raw.rejected) == (None, ())
    few = judged(probs[:, :5].softmax(-1), labels.clamp(max=4), tuple("abcde"))
    assert few.top5 is None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=12)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    tutelage.train(**toy.train_settings(images, out, val_fraction=0.25, steps=40))
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def old(run):
    """The run as one of an older version, that knows nothing of calibration."""
    file = run / "model" / "config.json"
    config = json.loads(file.read_text())
    del config["calibration"]
    file.write_text(json.dumps(config))
    return run


def test_a_run_keeps_the_calibration_of_its_validation_part(run):
    its = load_model(run).calibration
    assert its.images == its.curve.total == 12
    assert its.temperature.low <= its.temperature.value <= its.temperature.high
    row = json.loads((run / "run.json").read_text())["stages"]["evaluate"]["rounds"][-1]
    for part, count in (("val", 12), ("test", 24)):
        assert row["calibration"][part]["temperature"] == its.temperature.value
        assert row["calibration"][part]["calibration"]["width"]["images"] == count
    assert "confidences calibrated on 12 images" in (run / "model" / "README.md").read_text()
    page = (run / "report" / "index.html").read_text()
    assert "Reliability of 00-supervised" in page
    assert "Accuracy of each class" in page
    assert model_at(load_model(run), 24).calibration is None


def test_an_old_model_loads_and_predicts_raw_confidences(run, images, tmp_path):
    calibrated_ones = tutelage.predict(run, (images / "test",), out=tmp_path / "a.csv")
    its = load_model(run).calibration
    raw = tutelage.predict(old(run), (images / "test",), out=tmp_path / "b.csv")
    assert load_model(run).calibration is None
    assert raw.top_classes == calibrated_ones.top_classes
    probs = torch.tensor(raw.top_probs)
    assert torch.allclose(
        its.probs(probs), torch.tensor(calibrated_ones.top_probs), atol=2e-3
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"tutelage calibrate .* --data LABELED"):
        tutelage.predict(run, (images / "test",), max_error=0.1)
    tutelage.report(run)


def test_images_that_training_has_seen_are_refused(run, images):
    before = (run / "model" / "config.json").read_text()
    with pytest.raises(DataProblem, match=r"36 of 48 images .* was trained on"):
        tutelage.calibrate(run, data=images / "labeled")
    assert (run / "model" / "config.json").read_text() == before


def test_calibrate_serves_a_model_that_has_none_and_the_same_again(run, images, capsys):
    old(run)
    for path in (run, run / "model"):
        assert (
            main(["calibrate", str(path), "--data", str(images / "test"), "--device", "cpu"]) == 0
        )
        caught = capsys.readouterr()
        assert "confidences calibrated on 24 images" in caught.out
        assert "24 images tell little" in caught.out
        assert "note: 24 of 24 images are the run's test images" in caught.err
    first = load_model(run).calibration
    assert first.images == 24
    tutelage.calibrate(run, data=images / "test")
    assert load_model(run).calibration == first


def test_what_is_not_sure_enough_is_unknown_in_every_table(run, images, tmp_path, capsys):
    more = toy.write_toy(tmp_path / "more", labeled=40, test=5, seed=7)
    tutelage.calibrate(run, data=more / "labeled")
    its = load_model(run).calibration
    rate = lowest_rate(its.curve)
    assert rate is not None
    least = threshold_for(its.curve, rate).confidence
    capsys.readouterr()
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"found.{suffix}"
        flags = ["--max-error", str(rate), "--out", str(out)]
        assert main(["predict", str(run), str(more / "labeled"), *flags]) == 0
    said = capsys.readouterr().err
    assert "with 95 % confidence" in said
    assert "images are expected to be answered" in said
    table = pq.read_table(out).to_pydict()
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["path", "label", "confidence", "answered", "surest"]
    for row, label, sure, surest, confidence in zip(
        rows, *(table[name] for name in ("label", "answered", "surest", "confidence")), strict=True
    ):
        assert (row["label"], row["answered"]) == (label, str(sure))
        assert label == (surest if sure else "unknown")
        assert sure == (confidence >= least - 1e-6)
    assert sum(table["answered"]) > 0
    assert f"{sum(table['answered'])} of 160 images answered" in said


def test_a_rate_out_of_range_is_refused(run, images, capsys):
    assert main(["predict", str(run), str(images / "test"), "--max-error", "2"]) == 2
    assert "--max-error is above 0 and below 1" in capsys.readouterr().err


def test_a_run_without_validation_images_has_no_calibration(images, tmp_path):
    out = tmp_path / "run"
    tutelage.train(**toy.train_settings(images, out, steps=2))
    assert load_model(out).calibration is None
    row = json.loads((out / "run.json").read_text())["stages"]["evaluate"]["rounds"][-1]
    assert row["calibration"]["test"]["temperature"] is None
