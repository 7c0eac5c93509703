"""Whether a training step fits into memory, and what a run makes of it."""

import re
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
from tutelage.jobs import TrainSettings
from tutelage.networks.build import Net, build, parameters
from tutelage.networks.freeze import Freeze
from tutelage.pipelines import room
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.room import ROOM, Fit, batch_that_fits
from tutelage.progress import Screen
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.speed.training_memory import images_learned, least_bytes
from tutelage.training_settings import Spread

CPU = torch.device("cpu")
OPTIM = Optim().resolved(batch_norm=True, pretrained=False)
WEIGHTS = 8 * parameters(build(Net(name="test_resnet", num_classes=4, img_size=32)))


def recipe_of(method="supervised", *, batch=64, ratio=0, frozen=False, options=(), **more):
    return Recipe(
        net=Net(name="test_resnet", num_classes=4, img_size=32), method=make(method, options),
        stages=more.pop("stages", (stage(32),)), optim=OPTIM, noise=Noise(),
        batch=batch, ratio=ratio, freeze=Freeze(norms=frozen), **more,
    )  # fmt: skip


def stage(size, batch=None):
    return Stage(steps=5, size=size, magnitude=5.0, batch=batch)


def rounds_of(method="supervised", **more):
    return lambda batch: (SimpleNamespace(recipe=recipe_of(method, batch=batch, **more)),)


def asked(batch="auto", usual=64, batches=()):
    return SimpleNamespace(
        batch=batch, batch_size=usual, progressive=SimpleNamespace(batches=batches)
    )


@pytest.mark.parametrize(
    ("method", "frozen", "options", "images"),
    [
        ("supervised", False, (), 8),
        ("noisy-student", False, (), 8 + 24),
        ("flexmatch", False, (), 8 + 2 * 24),
        ("flexmatch", True, (), 8 + 24),
        ("mean-teacher", False, (), 8 + 24),
        ("meta-pseudo-labels", False, (), 8 + 2 * 24 + 8 + 24),
        ("reduced-meta-pseudo-labels", False, (), 8 + 24),
        ("hinton", False, ("on=labels",), 8),
        ("function-matching", False, ("on=pool",), 24),
    ],
)
def test_images_of_a_backward_pass(method, frozen, options, images):
    ratio = 0 if method == "supervised" else 3
    recipe = recipe_of(method, batch=8, ratio=ratio, frozen=frozen, options=options)
    assert images_learned(recipe) == images
    alone = least_bytes(recipe_of(batch=images, frozen=frozen))
    assert least_bytes(recipe) == alone + (WEIGHTS if method == "meta-pseudo-labels" else 0)
    assert least_bytes(recipe, among=2) < alone


def test_the_stage_of_most_pixels_counts():
    stages = (stage(32, 128), stage(48, 64), stage(64, 16))
    assert images_learned(recipe_of(stages=stages)) == 64
    assert least_bytes(recipe_of(stages=stages)) == least_bytes(recipe_of(stages=(stage(48),)))


def test_weights_that_are_spread_over_devices_are_left_out():
    spread = recipe_of(spread=Spread(shard="student"))
    assert least_bytes(spread) == least_bytes(recipe_of()) - WEIGHTS


@pytest.mark.parametrize(
    ("share", "batch"), [(1.0, 64), (0.9, 32), (0.4, 16), (0.2, 8), (0.14, 8)]
)  # of what the usual batch needs; the last is not enough even for 8, but may be
def test_a_batch_that_nobody_named_is_halved_until_it_fits(monkeypatch, share, batch):
    needed = ROOM * least_bytes(recipe_of())
    monkeypatch.setattr(room, "_free", lambda _: int(share * needed))
    found = batch_that_fits(asked(), None, rounds_of())
    assert (found.batch, found.gathered) == (batch, 64 // batch)
    assert bool(found.words) == (batch < 64)
    if batch < 64:
        assert found.words.startswith(
            f"{batch} labeled images a step, and {64 // batch} of them an update, as a step of 64 "
            "images at 32 px may take"
        )


def test_a_teacher_that_learns_has_an_update_each_step(monkeypatch):
    rounds = rounds_of("meta-pseudo-labels", ratio=3)
    needed = ROOM * least_bytes(rounds(64)[0].recipe)
    monkeypatch.setattr(room, "_free", lambda _: int(0.4 * needed))
    found = batch_that_fits(asked(), None, rounds)
    assert (found.batch, found.gathered) == (16, 1)


def test_batches_of_stages_are_named(monkeypatch):
    rounds = rounds_of(stages=(stage(32, 64),))
    monkeypatch.setattr(room, "_free", lambda _: int(1.2 * least_bytes(recipe_of())))
    found = batch_that_fits(asked(batches=(64,)), None, rounds)
    assert (found.batch, found.gathered) == (64, 1)
    assert "if it fails, give a smaller --img-size" in found.words


def test_a_batch_that_was_named_is_kept_or_refused(monkeypatch):
    least = least_bytes(recipe_of())
    monkeypatch.setattr(room, "_free", lambda _: int(1.2 * least))
    found = batch_that_fits(asked(64), None, rounds_of())
    assert (found.batch, found.gathered) == (64, 1)
    fits = int(re.search(r"if it fails, give --batch (\d+), a smaller --img-size", found.words)[1])
    first, second = (ROOM * least_bytes(recipe_of(batch=fits + more)) for more in (0, 1))
    assert first <= int(1.2 * least) < second
    monkeypatch.setattr(room, "_free", lambda _: int(0.5 * least))
    with pytest.raises(UsageError, match=r"^a step of 64 images at 32 px takes .* --batch \d+, a"):
        batch_that_fits(asked(64), None, rounds_of())
    monkeypatch.setattr(room, "_free", lambda _: 1)  # less than the weights take
    with pytest.raises(UsageError, match=r"kept: give a smaller --img-size or another network"):
        batch_that_fits(asked(), None, rounds_of())
    monkeypatch.setattr(room, "_free", lambda _: None)  # where the system doesn't tell
    assert batch_that_fits(asked(64), None, rounds_of()) == Fit(64)


def test_images_that_will_be_kept_have_their_place(monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda: 10**9)
    parts = {"labeled": range(100), "pool": range(900)}  # of 36 x 36 pixels
    few = SimpleNamespace(device=CPU, size=32, parts=parts, memory=Memory(10**8))
    assert room._free(few) == 10**9 - 1000 * 3 * canvas_for(32) ** 2
    few.memory.take(10**6)
    assert room._free(few) == 10**9 - 1000 * 3 * canvas_for(32) ** 2 + 10**6
    few.memory = Memory(10**6)
    assert room._free(few) == 10**9 - 10**6


@pytest.mark.parametrize(("devices", "batch"), [(1, 64), (2, 64), (3, 63), (48, 96)])
def test_devices_can_share_a_batch_that_nobody_named(tmp_path, devices, batch):
    settings = TrainSettings(data=tmp_path, model="test_resnet", out=tmp_path, devices=devices)
    assert settings.batch_size == batch


def test_processes_share_what_a_batch_becomes(monkeypatch):
    monkeypatch.setattr(room, "world", lambda: 8)
    monkeypatch.setattr(room, "_free", lambda _: least_bytes(recipe_of(), among=8))
    assert batch_that_fits(asked(), None, rounds_of()).batch == 16  # 8 leave each one image


def test_a_run_keeps_the_batch_that_it_began_with(images, tmp_path, monkeypatch, capsys):
    given = toy.train_settings(images, tmp_path / "run", batch="auto", steps=3)
    monkeypatch.setattr(room, "least_bytes", lambda recipe, among: 10**6 * recipe.batch)
    monkeypatch.setattr(room, "_free", lambda _: int(ROOM * 17 * 10**6))
    outcome = tutelage.train(**given)
    assert outcome.content["stages"]["plan"]["batch"] == 16
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["batch"], config["optim"]["accumulate"], config["steps"]) == (16, 4, 12)
    assert "12 steps of 16 images" in capsys.readouterr().err
    monkeypatch.setattr(room, "_free", lambda _: 10**12)
    tutelage.train(**given)
    assert "16 labeled images a step, and 4 of them an update" in capsys.readouterr().err


@pytest.mark.parametrize(("batch", "processes"), [(2, 1), (3, 1), (6, 2), (63, 3), (60, 6)])
def test_advice_asks_for_no_batch_that_is_none(monkeypatch, tmp_path, batch, processes):
    """Half of the batch may be one image, or one that the processes can't share."""

    def rounds(size):
        settings = TrainSettings(
            data=tmp_path, model="test_resnet", out=tmp_path, devices=processes, batch=size
        )
        return rounds_of()(settings.batch_size)

    monkeypatch.setattr(room, "world", lambda: processes)
    need = least_bytes(recipe_of(batch=batch), among=processes)
    monkeypatch.setattr(room, "_free", lambda _: need + 1)
    assert "if it fails, give " in batch_that_fits(asked(batch, batch), None, rounds).words
    monkeypatch.setattr(room, "_free", lambda _: need - 1)
    with pytest.raises(UsageError, match="of memory or more"):
        batch_that_fits(asked(batch, batch), None, rounds)


def test_on_a_gpu_what_the_allocator_keeps_is_free_and_small_images_are_to_come(monkeypatch):
    for name, value in (("mem_get_info", (10**9, 0)), ("memory_reserved", 5 * 10**8),
                        ("memory_allocated", 10**8)):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    parts = {"labeled": range(100), "pool": range(900)}
    small = Prepared(parts, 32, torch.device("cuda"), Screen(), Memory(10**8))
    idle = 10**9 + 4 * 10**8
    assert room._free(small) == idle - 1000 * 3 * canvas_for(32) ** 2
    small.opened = {("pool", canvas_for(32)): None}
    assert room._free(small) == idle - 100 * 3 * canvas_for(32) ** 2
    small.opened, small.memory = {}, Memory(10**6)  # which has no room for the pool
    assert room._free(small) == idle - 100 * 3 * canvas_for(32) ** 2
    small.size = 224  # such images are decoded when they are asked for
    assert room._free(small) == idle
