"""Whether a training step fits into memory, and what a run makes of it."""

from types import SimpleNamespace

import pytest
import torch
import toy
import yaml

import tutelage
from tutelage.catalog import make
from tutelage.core import Stage
from tutelage.data.memory import Memory
from tutelage.errors import UsageError
from tutelage.networks.build import Net
from tutelage.networks.freeze import Freeze
from tutelage.pipelines import room
from tutelage.pipelines.prepare import canvas_for
from tutelage.pipelines.room import ROOM, batch_that_fits
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.speed.training_memory import images_learned, least_bytes

CPU = torch.device("cpu")
OPTIM = Optim().resolved(batch_norm=True, pretrained=False)


def recipe_of(method="supervised", *, batch=64, ratio=0, frozen=False, options=()):
    return Recipe(
        net=Net(name="test_resnet", num_classes=4, img_size=32), method=make(method, options),
        stages=(Stage(steps=5, size=32, magnitude=5.0),), optim=OPTIM, noise=Noise(),
        batch=batch, ratio=ratio, freeze=Freeze(norms=frozen),
    )  # fmt: skip


def round_of(batch):
    return (SimpleNamespace(recipe=recipe_of(batch=batch)),)


@pytest.mark.parametrize(
    ("method", "frozen", "options", "images"),
    [
        ("supervised", False, (), 8),
        ("noisy-student", False, (), 8 + 24),
        ("flexmatch", False, (), 8 + 2 * 24),
        ("flexmatch", True, (), 8 + 24),
        ("mean-teacher", False, (), 8 + 24),
        ("hinton", False, ("on=labels",), 8),
    ],
)
def test_images_of_a_backward_pass(method, frozen, options, images):
    ratio = 0 if method == "supervised" else 3
    recipe = recipe_of(method, batch=8, ratio=ratio, frozen=frozen, options=options)
    assert images_learned(recipe) == images
    alone = least_bytes(recipe_of(batch=images, frozen=frozen))
    assert least_bytes(recipe) == alone
    assert least_bytes(recipe, among=2) < alone


@pytest.mark.parametrize(
    ("share", "batch"), [(1.0, 64), (0.9, 32), (0.4, 16), (0.2, 8), (0.14, 8)]
)  # of what the usual batch needs; the last is not enough even for 8, but may be
def test_a_batch_that_nobody_named_is_halved_until_it_fits(monkeypatch, share, batch):
    needed = ROOM * least_bytes(recipe_of())
    monkeypatch.setattr(room, "_free", lambda _: int(share * needed))
    found, words = batch_that_fits(SimpleNamespace(batch="auto", batch_size=64), None, round_of)
    assert found == batch
    assert bool(words) == (batch < 64)
    if batch < 64:
        assert f"batches of {batch} labeled images, as a step of 64 images at 32 px may" in words


def test_a_batch_that_was_named_is_kept_or_refused(monkeypatch):
    least = least_bytes(recipe_of())
    asked = SimpleNamespace(batch=64, batch_size=64)
    monkeypatch.setattr(room, "_free", lambda _: int(1.2 * least))
    found, words = batch_that_fits(asked, None, round_of)
    assert found == 64
    assert "if it fails, give --batch 38, a smaller --img-size or another network" in words
    monkeypatch.setattr(room, "_free", lambda _: int(0.5 * least))
    with pytest.raises(UsageError, match=r"--batch 64: a step of 64 images at 32 px takes .* free"):
        batch_that_fits(asked, None, round_of)
    monkeypatch.setattr(room, "_free", lambda _: None)  # where the system doesn't tell
    assert batch_that_fits(asked, None, round_of) == (64, "")


def test_images_that_will_be_kept_have_their_place(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda: 10**9)
    parts = {"labeled": range(100), "pool": range(900)}  # of 36 x 36 pixels
    few = SimpleNamespace(device=CPU, size=32, parts=parts, memory=Memory(10**8))
    assert room._free(few) == 10**9 - 1000 * 3 * canvas_for(32) ** 2
    few.memory.take(10**6)
    assert room._free(few) == 10**9 - 1000 * 3 * canvas_for(32) ** 2 + 10**6
    few.memory = Memory(10**6)
    assert room._free(few) == 10**9 - 10**6


def test_processes_share_what_a_batch_becomes(monkeypatch):
    monkeypatch.setattr(room, "world", lambda: 6)
    needed = ROOM * least_bytes(recipe_of(batch=48), among=6)
    monkeypatch.setattr(room, "_free", lambda _: int(0.6 * needed))
    asked = SimpleNamespace(batch="auto", batch_size=48)
    assert batch_that_fits(asked, None, round_of)[0] == 12  # 6 would leave each one image


def test_a_run_keeps_the_batch_that_it_began_with(images, tmp_path, monkeypatch, capsys):
    given = toy.train_settings(images, tmp_path / "run", batch="auto", steps=3)
    monkeypatch.setattr(room, "least_bytes", lambda recipe, among: 10**6 * recipe.batch)
    monkeypatch.setattr(room, "_free", lambda _: int(ROOM * 17 * 10**6))
    outcome = tutelage.train(**given)
    assert outcome.content["stages"]["plan"]["batch"] == 16
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["batch"] == 16
    assert "3 steps of 16 images" in capsys.readouterr().err
    monkeypatch.setattr(room, "_free", lambda _: 10**12)
    tutelage.train(**given)
    assert "batches of 16 labeled images" in capsys.readouterr().err
