"""Ready recipes: each names paper, cost and what it reaches, trains, and is reached from a verb."""

import inspect
from dataclasses import replace

import pytest
import torch
import toy
import yaml

import tutelage
from tutelage.catalog import describe, name_of
from tutelage.cli import main
from tutelage.core import Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.errors import UsageError
from tutelage.loop import fit
from tutelage.networks.build import build
from tutelage.pipelines import plan
from tutelage.pipelines.plan import StepTime
from tutelage.recipe import Recipe
from tutelage.recipes import ready
from tutelage.recipes.read import FOLDER, read_recipe, recipe_names, verb_of

NAMES = recipe_names()
DEVICE = torch.device("cpu")


def short(recipe: Recipe) -> Recipe:
    """Two steps a stage, on images of 32 pixels at most."""
    stages = tuple(
        replace(stage, steps=2, size=max(16, 32 * stage.size // recipe.stages[-1].size))
        for stage in recipe.stages
    )
    optim = replace(recipe.optim, warmup=0.0)
    return replace(recipe, stages=stages, batch=6, ratio=min(recipe.ratio, 2), optim=optim)


def batches_for(recipe: Recipe) -> Batches:
    images = torch.randint(256, (12, 32, 32, 3), dtype=torch.uint8)
    pixels, labels = InMemory(images), torch.arange(12) % 3
    stored = StoredTargets(torch.arange(12)[:, None] % 3, torch.ones(12, 1), 3)
    ones = torch.ones(12, dtype=torch.int64)
    pool = PoolSet(pixels, torch.arange(12), ones, stored if recipe.method.stored else None)
    return Batches(
        LabeledSet(pixels, labels, 3),
        pool if recipe.ratio else None,
        stages=recipe.stages,
        views=(recipe.method.labeled_view, recipe.method.unlabeled_views if recipe.ratio else ()),
        batch=recipe.batch, ratio=recipe.ratio, noise=recipe.noise, seed=recipe.seed,
    )  # fmt: skip


def test_every_file_has_its_function_and_every_function_its_file():
    functions = {
        name for name, found in vars(ready).items()
        if inspect.isfunction(found) and found.__module__ == ready.__name__
    }  # fmt: skip
    assert {name for name in functions if not name.startswith("_")} == set(NAMES)
    assert {"usi", "noisy_student", "efficientnetv2_progressive", "fixmatch_cifar", "mpl_cifar",
            "digits"} <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_paper_cost_and_what_it_reaches(name):
    said = inspect.getdoc(vars(ready)[name])
    for word in ("\nPaper: ", "\nCost: ", "\nReached: ", "arXiv"):
        assert word in said, word


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_value_that_trains(name, tmp_path):
    make = vars(ready)[name]
    assert make(3) == make(3)
    recipe = short(make(3, model="test_resnet", img_size=32))
    teacher = None
    if recipe.method.teacher == "frozen":
        teacher = build(recipe.net, seed=1).eval()
    before = build(recipe.net, seed=recipe.seed).state_dict()
    module = fit(recipe, batches_for(recipe), tmp_path / "run", device=DEVICE, teacher=teacher)
    weight = "net.conv1.weight" if "net.conv1.weight" in before else next(iter(before))
    after = module.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before), weight
    assert all(torch.isfinite(value).all() for value in after.values())


@pytest.mark.parametrize("name", NAMES)
def test_function_and_file_say_the_same(name):
    recipe = vars(ready)[name](10)
    said = read_recipe(name, verb_of(name))
    assert name_of(recipe.method) == said["method"]
    assert verb_of(name) in (describe(said["method"]).verb, "selftrain")
    if "steps" in said:
        assert recipe.steps == said["steps"]
    if "batch" in said:
        assert recipe.batch == said["batch"]
    for key, value in said.get("optim", {}).items():
        found = vars(recipe.optim)[key]
        assert found == (tuple(value) if isinstance(value, list) else value), key


def test_efficientnetv2s_stages_are_the_papers():
    found = ready.efficientnetv2_progressive(1000).stages
    assert [stage.size for stage in found] == [128, 185, 242, 300]
    assert [stage.magnitude for stage in found] == pytest.approx([5, 8.333, 11.667, 15], abs=1e-3)
    assert [stage.dropout for stage in found] == pytest.approx([0.1, 0.1667, 0.2333, 0.3], abs=1e-3)
    assert sum(stage.steps for stage in found) == 109_474


def test_a_variant_is_a_replaced_value():
    one = replace(ready.digits(), stages=(Stage(steps=5, size=16, magnitude=3),))
    assert one.steps == 5
    assert one.digest() != ready.digits().digest()


@pytest.mark.parametrize("length", [["--steps", "4"], ["--budget", "60s"]])
def test_the_shell_takes_a_recipe_and_flags_change_it(length, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "step_time", lambda recipe, prepared, teacher: StepTime(0.2))
    images = toy.write_toy(tmp_path / "images")
    flags = ["--data", str(images / "labeled"), "--unlabeled", str(images / "pool"),
             "--test", str(images / "test"), "--out", str(tmp_path / "run"),
             "--batch", "8"]  # fmt: skip
    assert main(["selftrain", "--recipe", "digits", *flags, *length]) == 0, capsys.readouterr().err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["method"] == ["flexmatch"]
    assert config["noise"]["flip"] is False
    assert (config["batch"], config["ratio"], config["img_size"]) == (8, 2, 16)
    assert config["steps"] == 4 if length[0] == "--steps" else 20 <= config["steps"] < 40


def test_python_takes_a_recipe_too(tmp_path):
    images = toy.write_toy(tmp_path / "images")
    outcome = tutelage.train(
        recipe="efficientnetv2_progressive", data=images / "labeled", test=images / "test",
        model="test_efficientnet", img_size=32, steps=8, batch=8, val_fraction=0,
        progressive={"start_size": 16}, noise={"crop": "pad"}, out=tmp_path / "run",
    )  # fmt: skip
    assert outcome.content["stages"]["report"]["state"] == "done"
    said = (tmp_path / "run" / "logs" / "log.txt").read_text()
    assert "stage   steps  size  batch  RandAugment" in said
    assert "4       2    32      8           15" in said


def test_a_recipe_of_another_verb_or_none_is_refused():
    with pytest.raises(UsageError, match="is one of `tutelage distill`"):
        read_recipe("usi", "train")
    with pytest.raises(UsageError, match="did you mean digits"):
        read_recipe("digit", "selftrain")
    assert all((FOLDER / f"{name}.yaml").exists() for name in NAMES)
