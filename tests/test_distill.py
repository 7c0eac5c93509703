"""`tutelage distill` as a user runs it: kinds of teachers and students, recipes, the verdict."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
from torch import nn
from torch.nn import functional

import tutelage
from tutelage.begin import _teacher
from tutelage.catalog import make
from tutelage.cli import main
from tutelage.data.decode import decode
from tutelage.deploy.model_folder import load_model
from tutelage.losses import cross_entropy
from tutelage.networks.build import build
from tutelage.training_settings import Spread


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=8, test=10)


@pytest.fixture(scope="module")
def teacher(images, tmp_path_factory):
    """A run whose model has learned the four shapes."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    tutelage.train(
        data=images / "labeled", model="test_resnet", img_size=16, steps=60, batch=16,
        val_fraction=0, device="cpu", out=out,
    )  # fmt: skip
    return out


def flags(images, out, **more):
    given = {
        "data": images / "labeled", "unlabeled": images / "pool", "test": images / "test",
        "student": "test_resnet", "img-size": 16, "steps": 6, "batch": 8, "ratio": 2,
        "val-fraction": 0, "device": "cpu", "out": out,
    } | more  # fmt: skip
    return ["distill", *(part for key, value in given.items() for part in (f"--{key}", str(value)))]


def content(out):
    return json.loads((out / "run.json").read_text())


def test_the_verdict_is_about_the_teacher(images, teacher, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(flags(images, out, teacher=teacher)) == 0
    stages = content(out)["stages"]
    assert [row["name"] for row in stages["evaluate"]["rounds"]] == ["00-baseline", "01-student"]
    assert "unlabeled images" not in stages["evaluate"]["verdict"]["sentence"]
    assert "right" in capsys.readouterr().err  # how the teacher did on the labels


def test_a_student_takes_over_what_its_teacher_knows(images, teacher, tmp_path):
    """From pool images alone, without one label."""
    out = tmp_path / "run"
    asked = flags(images, out, teacher=teacher, steps=200, method="function-matching")
    assert main([*asked, "--options", "on=pool", "mixup=0", "--no-baseline"]) == 0
    (student,) = content(out)["stages"]["evaluate"]["rounds"]
    assert student["test"]["right"] / student["test"]["total"] > 0.7
    assert content(out)["stages"]["evaluate"]["verdict"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "steps"),
    [("test_resnet", 40), ("mobilenetv3_small_050", 60), ("test_vit", 90), ("gmlp_ti16_224", 120)],
)
def test_one_recipe_trains_any_backbone(student, steps, images, teacher, tmp_path):
    """A CNN, a mobile net, a transformer and an MLP-mixer, with the same settings."""
    out = tmp_path / "run"
    asked = flags(
        images, out, teacher=teacher, student=student, steps=steps, recipe="usi", batch=16, ratio=1
    )
    at = asked.index("--img-size")
    asked[at + 1] = "32"
    assert main([*asked, "--no-baseline"]) == 0
    learned = load_model(out / "model", torch.device("cpu"))
    fresh = build(learned.net, seed=5).eval()
    asked_of = load_model(teacher, torch.device("cpu")).module
    files = sorted((images / "labeled").rglob("*.png"))
    shown = torch.from_numpy(np.stack([decode(file.read_bytes(), 16) for file in files])).permute(
        0, 3, 1, 2
    )
    wanted = asked_of(shown / 255).softmax(-1)
    large = functional.interpolate(shown / 255, (32, 32), mode="bilinear")
    losses = [cross_entropy(net(large), wanted).item() for net in (learned.module, fresh)]
    assert losses[0] < 0.98 * losses[1]
    config = tutelage.values.load_yaml(out / "config.yaml")
    assert (config["optim"]["name"], config["optim"]["lr"]) == ("adamw", 2e-3)
    assert config["method"] == "usi"


def test_flags_win_over_the_recipe(images, teacher, tmp_path):
    out = tmp_path / "run"
    asked = flags(images, out, teacher=teacher, recipe="usi", steps=2)
    assert main([*asked, "--optim.lr", "0.001", "--no-baseline"]) == 0
    settings = content(out)["settings"]
    assert settings["optim"]["lr"] == 0.001
    assert settings["optim"]["weight_decay"] == 0.02


def test_teachers_may_be_several_and_a_round_or_a_module(images, teacher, tmp_path):
    module = load_model(teacher).module
    outcome = tutelage.distill(
        data=images / "labeled", test=images / "test", student="test_resnet", img_size=16,
        teacher=[module, teacher, teacher / "rounds" / "00-supervised"], steps=2, batch=8,
        baseline=False, val_fraction=0, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    assert isinstance(module, nn.Module)
    given = outcome.content["settings"]["teacher"]
    assert given[:2] == [str(teacher), str(teacher / "rounds" / "00-supervised")]
    assert given[2].startswith("module:")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"method": "fixmatch"}, "fixmatch is no distillation: use `tutelage selftrain`"),
        ({"method": "hintno"}, "did you mean hinton"),
        ({"teacher": "no/such/run"}, "no/such/run"),
        ({"recipe": "ufi"}, "there is no recipe 'ufi'; did you mean usi?"),
        ({"options": "temperature=0"}, "temperature is above 0"),
        ({"options": "on=pool", "unlabeled": None}, "on=pool learns on a pool: give --unlabeled"),
    ],
)
def test_what_can_not_work_is_said(more, words, images, teacher, tmp_path, capsys):
    out = tmp_path / "run"
    asked = flags(images, out, **{"teacher": teacher} | more)
    if more.get("unlabeled", "") is None:
        at = asked.index("--unlabeled")
        del asked[at : at + 2]
    assert main(asked) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_recipe_belongs_to_its_verb(images, tmp_path, capsys):
    asked = ["train", "--data", str(images / "labeled"), "--model", "test_resnet",
             "--out", str(tmp_path / "run"), "--recipe", "usi"]  # fmt: skip
    assert main(asked) == 2
    assert "the recipe usi is one of `tutelage distill`" in capsys.readouterr().err


def test_a_teacher_that_is_frozen_already_is_not_kept_twice(tiny):
    recipe = SimpleNamespace(
        method=make("hinton"), spread=Spread(), precision="fp32", compile=False
    )
    teacher, device = build(tiny), torch.device("cpu")
    learning = _teacher(recipe, device, teacher).module
    assert learning is not teacher
    assert teacher.training
    assert all(weight.requires_grad for weight in teacher.parameters())
    frozen = teacher.eval().requires_grad_(False)
    assert _teacher(recipe, device, frozen).module is frozen


def test_a_pool_that_nobody_would_look_at_is_refused(images, teacher, tmp_path, capsys):
    asked = flags(images, tmp_path / "run", teacher=teacher)
    assert main([*asked, "--options", "on=labels"]) == 2
    assert "on=labels doesn't look at a pool: leave out --unlabeled" in capsys.readouterr().err
