"""How many labels are right, without truth: against synthetic pools with known truth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

import tutelage
from tutelage.data import pool as label_table
from tutelage.deploy.model_folder import load_model
from tutelage.evaluation.calibration import width_bins
from tutelage.evaluation.pool_accuracy import (
    Answered,
    quality,
    share_right,
    share_right_from_bins,
    stored_top,
    tempered_top,
)
from tutelage.evaluation.temperature import fit_temperature, tempered
from tutelage.pipelines.manifest import contents_of, known_to, read_manifest
from tutelage.pipelines.pool_quality import new_to
from tutelage.pipelines.prepare import Prepared
from tutelage.progress import Screen

CLASSES = tuple("abcdefgh")


def drawn(count, *, seed, classes=8, sharper=2.5, slant=0.0):
    """Answers of an overconfident teacher, and the truth; `slant` favors some classes wrongly."""
    dice = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(count, classes, generator=dice, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=dice)[:, 0]
    logits = sharper * (logits + slant * torch.linspace(-1, 1, classes))
    return logits.softmax(-1).float(), labels


def answered(probs, temperature):
    classes, top, surest = stored_top(probs, 10)
    return Answered(classes[:, 0], surest, tempered_top(top, surest, probs.shape[1], temperature))


def judged(seed, *, count=300, pool=3000, slant=0.0):
    """An estimate, and for each part of it whether its interval holds the truth."""
    probs, labels = drawn(count + pool, seed=seed, slant=slant)
    temperature = fit_temperature(probs[:count], labels[:count]).value
    its, known = answered(probs[count:], temperature), answered(probs[:count], temperature)
    kept = its.surest > 0.8
    found = quality(
        its, kept, known, labels[:count], classes=CLASSES, temperature=temperature
    )  # fmt: skip
    right = (its.labels == labels[count:]).double()
    place = (its.confidence * 10).long().clamp(max=9)
    truths = {"overall": (found.overall, right), "kept": (found.kept, right[kept])}
    for name, one in found.per_class:
        truths[name] = one, right[its.labels == CLASSES.index(name)]
    for low, _, one in found.per_bin:
        truths[low] = one, right[place == round(10 * low)]
    return found, {
        name: one.low <= float(some.mean()) <= one.high for name, (one, some) in truths.items()
    }


def test_the_intervals_hold_the_truth_19_times_in_20():
    hits = {"overall": [], "kept": [], "class": [], "bin": []}
    for seed in range(200):
        _, inside = judged(seed, slant=0.5)
        for name, hit in inside.items():
            kind = "bin" if isinstance(name, float) else "class" if len(name) == 1 else name
            hits[kind].append(hit)
    for kind, found in hits.items():
        assert np.mean(found) >= 0.9, kind  # three standard errors of 200 draws around 95 %


def test_confidences_alone_would_miss_a_teacher_that_favors_some_classes():
    probs, labels = drawn(200_000, seed=0, slant=0.8)
    temperature = fit_temperature(probs[:2000], labels[:2000]).value
    its = answered(probs, temperature)
    gaps = [
        abs(float((its.confidence - (its.labels == labels).double())[its.labels == k].mean()))
        for k in range(8)
    ]
    assert max(gaps) > 0.05
    found, inside = judged(0, count=2000, slant=0.8)
    assert sum(inside.values()) >= 0.85 * len(inside)
    assert found.overall.high - found.overall.low < 0.06


def test_few_images_that_are_all_right_promise_nothing_perfect():
    sure = torch.full((1000,), 0.999)
    found = share_right(sure, sure[:30], torch.ones(30, dtype=torch.bool))
    assert found.value > 0.99
    assert 0.85 < found.low < 0.95
    none = share_right(sure, sure[:0], torch.ones(0, dtype=torch.bool))
    assert none.judged == 0
    assert none.high - none.low > 0.9
    empty = share_right(sure[:0], sure[:30], torch.ones(30, dtype=torch.bool))
    assert empty.images == 0


def test_a_reliability_diagram_tells_nearly_as_much_as_the_images():
    probs, labels = drawn(5400, seed=1)
    confidence, right = probs.max(-1).values, probs.argmax(-1) == labels
    pool, known, hits = confidence[400:], confidence[:400], right[:400]
    one = share_right(pool, known, hits)
    other = share_right_from_bins(float(pool.mean()), len(pool), width_bins(known, hits))
    assert other.value == pytest.approx(one.value, abs=1e-6)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=2e-3)


@pytest.mark.parametrize(("temperature", "off"), [(0.5, 1e-3), (1, 1e-3), (2, 1e-3), (3, 0.02)])
def test_stored_labels_are_tempered_as_the_full_answers_are(temperature, off):
    probs, _ = drawn(2000, seed=2)
    found = tempered_top(*stored_top(probs, 10)[1:], 8, temperature)
    exact = tempered(probs, temperature).max(-1).values.double()
    assert (found - exact).abs().max() < off


def test_a_rest_beyond_the_top_ten_spreads_over_the_other_classes():
    probs = torch.tensor([[0.5] + [0.03] * 9 + [0.23 / 40] * 40])
    found = tempered_top(*stored_top(probs, 10)[1:], 50, 2.0)
    exact = probs.sqrt() / probs.sqrt().sum()
    assert float(found) == pytest.approx(float(exact[0, 0]), abs=1e-3)


def test_a_surest_answer_near_one_keeps_its_odds():
    odds = torch.tensor([1e-5, 1e-4, 1e-3])
    probs = torch.stack([1 - odds, odds], 1)
    found = tempered_top(*stored_top(probs, 10)[1:], 2, 2.0)
    assert torch.allclose(1 - found, odds.double().sqrt() / (1 + odds.sqrt()), rtol=0.02)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=12)


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "self"
    tutelage.selftrain(**settings(images, out))
    return out


def settings(images, out, **more):
    from tutelage.settings import Select

    return {
        "data": images / "labeled", "unlabeled": images / "pool", "test": images / "test",
        "model": "test_resnet", "method": "noisy-student", "rounds": 2, "steps": 6,
        "student_init": "scratch",  # six steps from the baseline on end below it
        "img_size": 16, "batch": 8, "ratio": 2, "val_fraction": 0.25, "device": "cpu",
        "select": vars(Select(threshold=0.1)), "out": out,
    } | more  # fmt: skip


def test_a_run_says_how_good_its_pool_labels_are(run):
    for number in ("01", "02"):
        found = json.loads((run / "labels" / f"{number}-student-quality.json").read_text())
        table = label_table.load(run / "labels" / f"{number}-student.parquet")
        assert found["overall"]["images"] == len(table)
        assert found["kept"]["images"] == len(table.rows())
        assert found["overall"]["judged"] == 12
        assert sum(one["images"] for one in found["per_class"]) == len(table)
        assert sum(one["images"] for one in found["per_bin"]) == len(table)
        assert 0 <= found["kept"]["low"] <= found["kept"]["value"] <= found["kept"]["high"] <= 1
        notes = json.loads((run / "run.json").read_text())["stages"][f"{number}-labels"]
        assert notes["accuracy"]["kept"] == found["kept"]
    log = (run / "logs" / "log.txt").read_text()
    assert "kept labels are right" in log
    assert "judged from 12 validation images" in log


def test_a_run_without_validation_images_says_nothing_and_works(images, tmp_path):
    out = tmp_path / "run"
    tutelage.selftrain(**settings(images, out, val_fraction=0, rounds=1, steps=2))
    assert not (out / "labels" / "01-student-quality.json").exists()
    assert "accuracy" not in json.loads((out / "run.json").read_text())["stages"]["01-labels"]
    assert load_model(out).calibration is None


def test_a_noised_teacher_is_judged_under_its_noise(images, tmp_path):
    out = tmp_path / "run"
    tutelage.selftrain(**settings(images, out, teacher_noise=True, rounds=1, steps=2))
    found = json.loads((out / "labels" / "01-student-quality.json").read_text())
    assert found["overall"]["judged"] == 12


def test_the_estimate_changes_nothing_that_the_student_learns(images, run, tmp_path, monkeypatch):
    from tutelage.pipelines import pool_labels

    nothing = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(pool_labels, "new_to", lambda *given: nothing)
    tutelage.selftrain(**settings(images, tmp_path / "run", rounds=1))
    assert not list((tmp_path / "run" / "labels").glob("*.json"))
    one, other = (toy.weights_of(folder, "01-student") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_given_teacher_is_judged_on_what_it_has_not_learned_from(images, run, tmp_path):
    own = tmp_path / "other"
    tutelage.train(
        data=images / "labeled", model="test_resnet", steps=1, img_size=16, batch=8,
        val_fraction=0.25, seed=5, device="cpu", out=own,
    )  # fmt: skip
    val = read_manifest(run / "data", ("val",))["val"]
    prepared = Prepared({"val": val}, 16, torch.device("cpu"), Screen())
    rows = new_to(own, run, prepared).tolist()
    seen = {Path(place).read_bytes() for place in read_manifest(own / "data")["labeled"].places}
    news = [Path(place).read_bytes() not in seen for place in val.places]
    assert rows == [row for row, new in enumerate(news) if new]
    assert 0 < len(rows) < len(val)
    assert new_to(None, run, prepared).tolist() == list(range(12))
    assert not len(new_to(own, run, Prepared({}, 16, torch.device("cpu"), Screen())))


def test_a_run_knows_its_images_by_part_and_a_model_alone_none(run, tmp_path):
    parts = {name: contents_of(run, (name,)) for name in ("labeled", "val", "pool")}
    every = set().union(*parts.values())
    assert known_to(run, every | {"another"}) == parts
    assert known_to(run, parts["val"]) == {"val": parts["val"]}
    assert not known_to(None, every)["labeled"]
    assert not known_to(tmp_path, every)["labeled"]


def test_labels_of_a_calibrated_model_say_how_good_they_are(images, run, tmp_path, capsys):
    out = tmp_path / "labels"
    tutelage.label(model=run, data=images / "pool", out=out)
    assert "of the 40 labels are right" in capsys.readouterr().err
    content = json.loads((out / "labels.json").read_text())
    assert content["accuracy"]["images"] == 40
    assert content["accuracy"]["judged"] == 12
    tutelage.label(model=run, data=images / "pool", out=out)
    assert json.loads((out / "labels.json").read_text()) == content
