"""The suites of attacks: what they count, keep and compare, and when they raise an alarm."""

import re
import shutil

import pytest
import torch
import toy
from prototypes import Prototypes, run, subject

import tutelage
from tutelage.cli import main
from tutelage.errors import UsageError
from tutelage.evaluation.intervals import Accuracy, wilson
from tutelage.evaluation.kept import all_kept
from tutelage.evaluation.paired import compare
from tutelage.judging_settings import EvaluateSettings
from tutelage.pipelines.robust import MAKERS
from tutelage.robustness.alarms import Tried, alarms
from tutelage.robustness.attack_curve import _line
from tutelage.robustness.attacked import UnderAttack
from tutelage.robustness.autoattack import AutoAttacked
from tutelage.robustness.suite import Reference, Subject

KINDS = ("fgsm", "pgd", "pgd-l2")


def suite_of(kind, **more):
    sizes = (0.05, 0.1, 0.24) if kind == "pgd-l2" else (1.0, 3.0, 6.0)
    return UnderAttack(kind=kind, **({"epsilon": sizes, "steps": 4, "restarts": 2} | more))


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(-1), other[name].nan_to_num(-1)) for name in one
    )


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_falls_from_that_without_attack(kind):
    model, suite = subject(), suite_of(kind)
    found = run(suite, model)
    clean = model.clean["predicted"] == model.labels
    assert 0.5 < clean.double().mean() < 1
    counts = [int(clean.sum())]
    for columns in found.values():
        right = columns["right"].bool()
        assert not (right & ~clean).any()  # wrong without attack is wrong
        assert torch.equal(right, columns["predicted"] == model.labels)
        assert torch.equal(columns["loss_before"].isnan(), columns["loss_after"].isnan())
        counts.append(int(right.sum()))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] / 2
    summary = suite.summary(model, found, None)
    assert summary.numbers["accuracy_0"] == counts[0] / 24
    assert summary.curve.x[0] == 0
    assert list(summary.curve.y) == [count / 24 for count in counts]
    assert list(zip(summary.curve.low, summary.curve.high, strict=True)) == [
        wilson(count, 24) for count in counts
    ]
    assert summary.notes == ()  # nothing is wrong with these gradients


def test_what_a_smaller_attack_broke_stays_broken_and_is_left_alone():
    model, suite = subject(), suite_of("pgd")
    first, second, third = run(suite, model).values()
    for smaller, larger in ((first, second), (second, third)):
        broken = ~smaller["right"].bool()
        assert not larger["right"][broken].any()
        assert larger["loss_before"][broken].isnan().all()
        assert torch.equal(larger["predicted"][broken], smaller["predicted"][broken])


def test_fgsm_is_as_measured_whatever_was_run_before():
    model, suite = subject(), suite_of("fgsm")
    found = run(suite, model)
    cases = suite.cases(model)
    assert same(suite.run(cases[-1], model, {}, lambda done: None), found[cases[-1].key])
    assert (
        not found[cases[-1].key]["loss_before"][~found[cases[0].key]["right"].bool()].isnan().all()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_batch_nor_the_other_images_matter(kind):
    suite, whole = suite_of(kind), subject()
    found = run(suite, whole)
    rows = [1, 4, 6, 9, 10, 17, 20, 22]
    for other, among in ((subject(batch=5), list(range(24))), (subject(rows=rows), rows)):
        for key, columns in run(suite, other).items():
            for name, values in columns.items():
                torch.testing.assert_close(
                    values, found[key][name][among], rtol=1e-4, atol=1e-4, equal_nan=True
                )


def test_sizes_are_in_order_and_none_twice_and_zero_is_the_clean_row():
    suite, model = suite_of("pgd", epsilon=(4.0, 0.0, 0.25, 4.0)), subject()
    assert [case.level for case in suite.cases(model)] == ["0.25", "4"]
    found = run(suite, model)
    assert [row[0] for row in suite.summary(model, found, None).rows] == ["0", "0.25", "4"]
    none = suite_of("pgd", epsilon=(0.0,))
    numbers = none.summary(model, {}, None).numbers
    assert numbers == {"accuracy_0": found["pgd-epsilon-0.25"]["noise_right"].double().mean()}


def test_sizes_grow_with_the_image_where_they_are_lengths():
    small = UnderAttack(kind="pgd-l2")
    levels = [float(case.level) for case in small.cases(subject())]
    assert levels == [one * 8 / 32 for one in (0.05, 0.1, 0.25, 0.5, 1.0)]
    assert len(UnderAttack(kind="pgd").cases(subject())) == 6


def test_more_sizes_are_another_suite_where_one_leans_on_another():
    few, many = suite_of("pgd", epsilon=(1.0,)), suite_of("pgd", epsilon=(0.5, 1.0))
    assert few.settings != many.settings
    few, many = suite_of("fgsm", epsilon=(1.0,)), suite_of("fgsm", epsilon=(0.5, 1.0))
    assert few.settings == many.settings


def test_a_reference_stands_beside_with_the_paired_difference():
    suite, model = suite_of("pgd"), subject()
    weaker = subject(Prototypes(scale=10.0))
    other = run(suite, Subject(**(vars(weaker) | {"labels": model.labels})))
    key = "pgd-epsilon-3"
    other[key] = other[key] | {"right": torch.zeros(24, dtype=torch.uint8)}
    found = run(suite, model)
    summary = suite.summary(model, found, Reference("first", weaker.clean, other))
    assert summary.columns[-2:] == ("first", "difference in points")
    paired = compare(torch.zeros(24, dtype=torch.bool), found[key]["right"].bool())
    assert summary.numbers["reference_3"] == 0
    assert summary.numbers["difference_3"] == paired.difference > 0
    row = next(row for row in summary.rows if row[0] == "3")
    assert row[-1] == (
        f"{100 * paired.difference:+.1f} ({100 * paired.low:+.1f} to {100 * paired.high:+.1f})"
    )
    assert summary.numbers["difference_1"] == 0


def test_logits_times_200_raise_the_alarm_and_do_not_deceive_pgd():
    honest, sure = subject(scale=10.0), subject(scale=2000.0)
    assert torch.equal(honest.clean["predicted"], sure.clean["predicted"])
    fgsm = suite_of("fgsm")
    found = run(fgsm, sure)
    numbers = fgsm.summary(sure, found, None).numbers
    (note,) = (one for one in fgsm.summary(sure, found, None).notes if "exactly 0" in one)
    assert "gradient masking" in note
    assert "--robust autoattack" in note
    truth = fgsm.summary(honest, run(fgsm, honest), None).numbers
    assert numbers["accuracy_6"] > truth["accuracy_6"]  # deceived
    suite = suite_of("pgd")
    found = run(suite, sure)
    notes = " ".join(suite.summary(sure, found, None).notes)
    assert "exactly 0" in notes
    assert "the margin losses broke" in notes
    numbers = suite.summary(sure, found, None).numbers
    truth = suite.summary(honest, run(suite, honest), None).numbers
    assert numbers["accuracy_6"] == truth["accuracy_6"]
    beside = suite.summary(honest, run(suite, honest), Reference("other", sure.clean, found)).notes
    assert all(one.startswith("of other: ") for one in beside)
    assert beside


HEALTHY = {"right": [1] * 10 + [0] * 90, "noise_right": [1] * 97 + [0] * 3, "step_right": [1] * 100,
           "loss_before": [1.0] * 100, "loss_after": [2.0] * 100, "zero_gradient": [0.0] * 100,
           "broken_by_margin": [0] * 100, "broken_by_restart": [0] * 100}  # fmt: skip


def tried(one_step=False, smallest=False, telling=True, **columns):
    """An attack on 100 images that are right without it, of which it leaves 10."""
    values = {name: torch.tensor(value) for name, value in (HEALTHY | columns).items()}
    return Tried(
        said="epsilon 8", clean=torch.ones(100, dtype=torch.bool), columns=values,
        one_step=one_step, smallest=smallest, telling=telling,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"zero_gradient": [1.0] * 5 + [0.0] * 95}, r"5 of 100 attacked .* \(5: everywhere\)"),
        ({"broken_by_margin": [0] * 60 + [1] * 40}, "margin losses broke 40 images"),
        ({"step_right": [0] * 4 + [1] * 96}, "a single step broke 4 images"),
        ({"right": [1] * 60 + [0] * 40}, "60.0 % are still right at epsilon 8"),
        ({"loss_after": [1.0] * 30 + [2.0] * 70}, "did not raise the loss of 30 of 100"),
        ({"noise_right": [0] * 95 + [1] * 5}, "random noise of the same size broke 95 images"),
        ({"broken_by_restart": [0] * 92 + [1] * 8}, "broke 8 images that the first had not"),
    ],
)
def test_each_alarm_is_raised_by_its_sign_alone(columns, words):
    assert alarms([tried()]) == ()
    (note,) = alarms([tried(), tried(**columns)])
    assert re.search(words, note)
    assert "raise --" in note or "autoattack" in note or "count both" in note


def test_one_image_is_no_alarm_and_the_loudest_size_is_named():
    assert alarms([tried(step_right=[0] + [1] * 99)]) == ()
    few, many = tried(step_right=[0] * 3 + [1] * 97), tried(step_right=[0] * 7 + [1] * 93)
    (note,) = alarms([few, many, few])
    assert "broke 7 images" in note


def test_a_long_single_step_may_overshoot_and_small_attacks_may_fail():
    falling = {"loss_after": [0.5] * 100, "right": [1] * 90 + [0] * 10}
    assert alarms([tried(one_step=True, telling=False, **falling)]) == ()
    assert alarms([tried(one_step=True, smallest=True, **falling)])
    assert alarms([tried(telling=False, right=[1] * 90 + [0] * 10)]) == ()


def test_two_classes_are_attacked_too():
    model = subject(Prototypes(classes=2))
    found = run(suite_of("pgd"), model)
    assert found["pgd-epsilon-6"]["right"].sum() < (model.clean["predicted"] == model.labels).sum()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on toy images, and their folder."""
    root = toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=12)
    out = root / "run"
    tutelage.train(**toy.train_settings(root, out, steps=5))
    return root, out / "model"  # alone, without the run's report


FLAGS = ("--epsilon", "1", "0.5", "4", "--epsilon-l2", "0.1", "--attack-steps", "2",
         "--restarts", "1")  # fmt: skip


def evaluated(root, run, suites):
    return main(["evaluate", str(run), "--data", str(root / "test"), "--robust", suites, *FLAGS])


def cases_of(run):
    (kept,) = all_kept(run)
    return {file.stem: file.read_bytes() for file in sorted(kept.path.glob("robust/*/*.parquet"))}


def test_stopped_between_sizes_goes_on_to_the_same(trained, monkeypatch, capsys):
    root, whole = trained
    other = shutil.copytree(whole, root / "other")
    assert evaluated(root, whole, "fgsm,pgd,pgd-l2") == 0
    said = capsys.readouterr().out
    assert "PGD in L-infinity, 2 steps, 1 start, epsilon in levels of 255:" in said
    real, done = UnderAttack.run, []

    def stops(self, case, *more):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(case.key)
        return real(self, case, *more)

    monkeypatch.setattr(UnderAttack, "run", stops)
    assert evaluated(root, other, "fgsm,pgd,pgd-l2") != 0
    capsys.readouterr()
    assert done[3:] == ["pgd-epsilon-0.5", "pgd-epsilon-1"]
    done.clear()
    assert evaluated(root, other, "fgsm,pgd,pgd-l2") == 0
    assert done == ["pgd-epsilon-4", "pgd-l2-epsilon-0.1"]
    assert cases_of(other) == cases_of(whole)
    assert len(cases_of(whole)) == 7
    again = capsys.readouterr().out
    assert again.split("FGSM")[1].split("report:")[0] == said.split("FGSM")[1].split("report:")[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": (-1.0,)}, "--epsilon is 0 to 255"),
        ({"epsilon": (float("nan"),)}, "--epsilon is 0 to 255"),
        ({"epsilon_l2": (float("inf"),)}, "--epsilon-l2 is 0 to"),
        ({"restarts": 0}, "restarts is at least 1"),
        ({"attack_steps": 0}, "--attack-steps is at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        EvaluateSettings(run=tmp_path, data="x", **settings)


def test_flags_reach_the_suites(tmp_path):
    settings = EvaluateSettings(
        run=tmp_path, data="x", epsilon=(2.0,), epsilon_l2=(0.3,), attack_steps=7, restarts=3,
        seed=5,
    )  # fmt: skip
    made = {name: MAKERS[name](settings, None, None) for name in (*KINDS, "autoattack")}
    assert made["pgd"] == UnderAttack(kind="pgd", epsilon=(2.0,), steps=7, restarts=3, seed=5)
    assert made["pgd-l2"].epsilon == (0.3,)
    assert made["fgsm"].epsilon == (2.0,)
    assert made["autoattack"] == AutoAttacked(epsilon=(2.0,), seed=5)


def test_the_outcome_is_a_sentence():
    clean, hard = Accuracy(80, 100), Accuracy(30, 100)
    assert _line(["0", "8"], [clean, hard]) == (
        "clean 80.0 % (71.1 % to 86.7 %, 100 images); 30.0 % at epsilon 8; half of what was right "
        "is lost at epsilon 8"
    )
