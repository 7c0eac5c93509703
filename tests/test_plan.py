"""What a budget becomes: steps, and where it is small fewer rounds and smaller images."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st

from tutelage.catalog import make
from tutelage.errors import UsageError
from tutelage.jobs import SelftrainSettings, TrainSettings
from tutelage.pipelines import plan
from tutelage.pipelines.prepare import prepare
from tutelage.pipelines.selftrain_rounds import selftrain_rounds
from tutelage.pipelines.train import train_rounds
from tutelage.progress import Screen
from tutelage.run import open_run
from tutelage.settings import Optim, Progressive

SIDE = 96
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("labeled", 4), ("test", 2)):
        for label, name in enumerate(toy.CLASSES):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                toy.picture(label, rng, SIDE).save(root / part / name / f"{i}.png")
    (root / "pool").mkdir()
    for i in range(8):
        toy.picture(i % 4, rng, SIDE).save(root / "pool" / f"{i}.png")
    return root


def step_of(seconds, first=0.0):
    """A step's time at the full size, which goes with area and batch."""

    def measured(recipe, prepared, *, teacher=None):
        area = (recipe.stages[-1].size / SIDE) ** 2
        return plan.StepTime(seconds * area * (1 + recipe.ratio), first)

    return measured


@contextmanager
def started(kind, photos, out, **changes):
    """Settings, run and prepared images of a run that is about to be planned."""
    settings = kind(
        data=photos / "labeled", test=photos / "test", val_fraction=0.0, model="test_resnet",
        device="cpu", out=out, **changes,
    )  # fmt: skip
    with open_run("train", settings, overwrite=False) as run:
        pool = changes.get("unlabeled")
        yield settings, run, prepare(settings, run, CPU, Screen(), pool=pool)


def fit_budget(photos, out, seconds, monkeypatch, *, resizable=True, **changes):
    """The planned settings of a supervised training, and its image size."""
    monkeypatch.setattr(plan, "step_time", step_of(seconds))
    with started(TrainSettings, photos, out, **changes) as (settings, run, prepared):
        method = make("supervised")

        def rounds(asked):
            return train_rounds(asked, prepared, method)

        settings = replace(
            settings, optim=settings.optim.resolved(batch_norm=True, pretrained=False)
        )
        made = plan.planned(settings, run, prepared, rounds, resizable=resizable)
        again = plan.planned(settings, run, prepared, rounds, resizable=resizable)
        assert again == made
        return made, prepared.size


def test_steps_fill_the_budget(photos, tmp_path, monkeypatch):
    made, size = fit_budget(photos, tmp_path / "run", 0.01, monkeypatch, budget="100s")
    assert made.budget is None
    assert size == SIDE
    assert 8000 < made.steps <= 9500


def test_a_budget_is_about_updates(photos, tmp_path, monkeypatch):
    made, _ = fit_budget(photos, tmp_path / "one", 0.1, monkeypatch, budget="10s")
    assert made.steps > plan.FEWEST
    gathering = Optim(accumulate=32)
    with pytest.raises(UsageError, match="steps a round"):
        fit_budget(photos, tmp_path / "many", 0.1, monkeypatch, budget="10s", optim=gathering)


def test_first_calls_are_taken_off_the_budget_once_a_training(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "step_time", step_of(0.01, first=40.0))
    with started(TrainSettings, photos, tmp_path / "run", budget="100s") as (settings, run, found):
        optim = settings.optim.resolved(batch_norm=True, pretrained=False)
        settings = replace(settings, optim=optim)

        def rounds(asked):
            return train_rounds(asked, found, make("supervised"))

        assert 4000 < plan.planned(settings, run, found, rounds).steps <= 5500


def test_what_a_start_has_taken_so_far_is_taken_off_the_budget(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "step_time", step_of(0.01))
    with started(TrainSettings, photos, tmp_path / "run", budget="100s") as (settings, run, found):
        optim = settings.optim.resolved(batch_norm=True, pretrained=False)
        settings = replace(settings, optim=optim)
        run.began -= 30  # such as for loading teachers
        run.seconds_before += 20  # the check of an earlier start

        def rounds(asked):
            return train_rounds(asked, found, make("supervised"))

        assert 3500 < plan.planned(settings, run, found, rounds).steps <= 4500


def test_a_run_goes_on_with_as_many_processes_as_can_share_its_batch(photos, tmp_path, monkeypatch):
    asked = {"steps": 5, "batch": 8}
    with started(TrainSettings, photos, tmp_path / "run", **asked) as (settings, run, found):
        optim = settings.optim.resolved(batch_norm=True, pretrained=False)
        settings = replace(settings, optim=optim)

        def rounds(asked):
            return train_rounds(asked, found, make("supervised"))

        assert plan.planned(settings, run, found, rounds).batch == 8
        for count in (1, 2, 4):
            monkeypatch.setattr(plan, "world", lambda count=count: count)
            assert plan.planned(settings, run, found, rounds).batch == 8
        for count in (3, 8):
            monkeypatch.setattr(plan, "world", lambda count=count: count)
            with pytest.raises(UsageError, match=r"8 labeled .* go on with 1, 2, 4 of them"):
                plan.planned(settings, run, found, rounds)


def test_what_the_leader_does_alone_takes_the_time_of_one(photos, tmp_path, monkeypatch):
    """A step's time is that of all processes together, and so is that of the pool's labels;
    validation, test and watched images are asked by one."""
    monkeypatch.setattr(plan, "step_time", step_of(0.01))
    pool = {"method": ("noisy-student",), "rounds": 1, "unlabeled": photos / "pool", "steps": 5}
    with started(SelftrainSettings, photos, tmp_path / "run", **pool) as (settings, _, found):
        optim = settings.optim.resolved(batch_norm=True, pretrained=False)
        rounds = selftrain_rounds(replace(settings, optim=optim), found, None)
        fixed = []
        for count in (1, 4):
            monkeypatch.setattr(plan, "world", lambda count=count: count)
            fixed.append(plan.plan(rounds, found, budget=plan.Budget(100.0, 0.0, 0.0)).fixed)
    seen = 0.01 / (3 * settings.batch_size)  # seconds an image, for the baseline and the student
    alone, labeled = 2 * len(found.parts["test"]), len(found.parts["pool"])
    alone += 11 * labeled  # these few are watched at each exam of the student
    assert fixed[0] == pytest.approx((alone + labeled) * seen)
    assert fixed[1] == pytest.approx((4 * alone + labeled) * seen)


def test_a_small_budget_takes_smaller_images_where_nobody_asked_for_others(
    photos, tmp_path, monkeypatch, capsys
):
    made, size = fit_budget(photos, tmp_path / "run", 0.2, monkeypatch, budget="60s")
    assert size == 64
    assert made.steps > 1.5 * (1 - plan.RESERVE) * 60 / 0.2
    assert "images of 64 instead of 96 px, as 60s would leave less than" in capsys.readouterr().err


def test_images_stay_as_large_as_stages_are_to_begin_with(photos, tmp_path, monkeypatch):
    """At 64 px the stages of 80 px and more would be refused, by a size that nobody gave."""
    stages = Progressive(stages=2, start_size=80)
    made, size = fit_budget(
        photos, tmp_path / "run", 0.2, monkeypatch, budget="60s", progressive=stages
    )
    assert size == SIDE
    assert made.progressive == stages


@pytest.mark.parametrize("why", ["asked for", "made for the size"])
def test_images_stay_where_they_must(why, photos, tmp_path, monkeypatch):
    changes = {"img_size": SIDE} if why == "asked for" else {"resizable": False}
    made, size = fit_budget(photos, tmp_path / "run", 0.2, monkeypatch, budget="60s", **changes)
    assert size == SIDE
    assert made.steps < 60 / 0.2


def test_far_too_small_a_budget_is_refused_with_one_that_would_do(photos, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"--budget 5s leaves \d+ steps .* give at least \d+s"):
        fit_budget(photos, tmp_path / "run", 2.0, monkeypatch, budget="5s")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, 1), ({"rounds": 2}, 2), ({"students": ("test_resnet", "test_resnet")}, 2)],
    ids=["auto", "named", "a network for each"],
)
def test_noisy_student_takes_one_round_of_a_small_budget(
    asked, expected, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "step_time", step_of(0.02))
    kept = {"method": ("noisy-student",), "unlabeled": photos / "pool", **asked}
    with started(SelftrainSettings, photos, tmp_path / "run", budget="2m", **kept) as found:
        settings, run, prepared = found
        settings = replace(
            settings, optim=settings.optim.resolved(batch_norm=True, pretrained=False)
        )
        made = plan.planned(
            settings, run, prepared, lambda asked: selftrain_rounds(asked, prepared, None)
        )
    assert made.num_rounds == expected
    assert made.steps > 100


@given(st.integers(32, 224), st.integers(0, 499))
def test_a_smaller_size_is_a_multiple_of_32_and_at_least_half(size, steps):
    found = plan.smaller(size, steps)
    assert found <= size
    assert found == size or (found % 32 == 0 and 2 * found >= size)
    assert plan.smaller(size, steps) <= plan.smaller(size, min(499, steps + 50))
