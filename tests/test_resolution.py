"""The train-test resolution fix: what it changes, what it keeps, and who decides."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy

import tutelage
from tutelage.catalog import make
from tutelage.core import Clock
from tutelage.data.pixels import InMemory
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.learner import Learner
from tutelage.networks.build import Net, build
from tutelage.networks.freeze import groups_of
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.resolution import decided, with_fix
from tutelage.pipelines.rounds import Round, recipe_for
from tutelage.progress import Screen
from tutelage.run import Run
from tutelage.settings import Noise, Optim


def asked(images, out, **more):
    return toy.train_settings(images, out, **{"steps": 10, "fix_size": 24, "fix_share": 0.4} | more)


def changed(one, other):
    assert one.keys() == other.keys()
    return {key for key in one if not torch.equal(one[key], other[key])}


def test_fixres_changes_the_classifier_and_the_last_norms_statistics_alone(images, tmp_path):
    out = tmp_path / "run"
    outcome = tutelage.train(**asked(images, out))
    norm = "net.layer4.0.bn2"
    assert changed(toy.weights_of(out, "00-supervised"), toy.weights_of(out, "01-fix")) == {
        "net.fc.weight", "net.fc.bias",
        f"{norm}.running_mean", f"{norm}.running_var", f"{norm}.num_batches_tracked",
    }  # fmt: skip
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["net"]["img_size"] == 24
    assert config["net"]["stem_size"] == 16
    assert config["preprocessing"]["resize_shorter_side"] == 24
    rows = outcome.content["stages"]["evaluate"]["rounds"]
    assert [row["name"] for row in rows] == ["00-supervised", "01-fix"]
    assert "the fix at 24 px is kept; there are no validation images to judge it" in outcome.summary
    found = tutelage.evaluate(out, data=images / "test", device="cpu")
    assert found.accuracy.right == rows[-1]["test"]["right"]


def test_the_larger_network_computes_with_the_stem_it_was_trained_with(tiny):
    small = build(Net(name="resnet18", num_classes=3, img_size=32, small_stem=True))
    large = build(Net(name="resnet18", num_classes=3, img_size=64, stem_size=32, small_stem=True))
    large.load_state_dict(small.state_dict())
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(small.eval()(batch), large.eval()(batch))


def test_the_shallow_half_is_kept_and_the_pools_worth_is_judged_without_the_fix(images, tmp_path):
    out = tmp_path / "run"
    more = {"unlabeled": images / "pool", "method": "fixmatch", "fix": "shallow-frozen", "ratio": 1}
    outcome = tutelage.selftrain(**asked(images, out, **more))
    groups = groups_of(build(Net(name="test_resnet", num_classes=4, img_size=16)))
    shallow = {name for group in range(3) for name in groups[group]}
    parts = {name.rsplit(".", 1)[0] for name in shallow}
    before, after = toy.weights_of(out, "01-student"), toy.weights_of(out, "02-fix")
    kept = {key for key in before if key.rsplit(".", 1)[0] in parts}
    assert any(key.endswith("running_var") for key in kept)
    moved = changed(before, after)
    assert not moved & kept
    assert moved == before.keys() - kept - {"mean", "std"}
    verdict = outcome.verdict
    assert verdict["round"] == "01-student"
    page = (out / "report" / "index.html").read_text()
    assert "01-student against 00-baseline" in page
    assert "the fix at 24 px is kept" in page


def rounds_for(images, tmp_path, **more):
    settings = TrainSettings(
        **asked(images, tmp_path, **more) | {"optim": Optim(name="sgd", lr=0.1)}
    )
    part = Images(Folder(""), ("a", "b"), (0, 1), ("x", "y"))
    prepared = Prepared({"labeled": part}, 16, torch.device("cpu"), Screen())
    recipe = recipe_for(
        settings, prepared, model=settings.model, method=make("supervised"), number=0, steps=10
    )
    return settings, prepared, (Round("00-supervised", recipe),)


def test_the_fix_sees_images_as_a_model_is_asked_with_them(images, tmp_path):
    settings, prepared, rounds = rounds_for(images, tmp_path)
    fix = with_fix(rounds, settings, prepared)[-1]
    recipe = fix.recipe
    assert (fix.name, fix.start, fix.fixes) == ("01-fix", "00-supervised", True)
    assert recipe.method.labeled_view == "plain"
    assert recipe.method.smoothing == 0
    assert (recipe.steps, recipe.stages[0].size, recipe.net.img_size) == (4, 24, 24)
    assert recipe.optim.lr == pytest.approx(8 * 0.001 * 8 / 512)  # of the FixRes code
    assert recipe.seed != rounds[0].recipe.seed
    assert with_fix(rounds, replace(settings, fix_size=None, fix_share=0.1), prepared) == rounds


def test_the_fix_has_a_rate_of_its_own_and_each_image_once(images, tmp_path):
    scaled = Optim(name="sgd", lr=0.1, scale="linear", scale_base=16, accumulate=2, lr_end=0.1)
    settings, prepared, rounds = rounds_for(images, tmp_path)
    settings = replace(settings, optim=scaled, noise=Noise(repeats=3))
    recipe = with_fix(rounds, settings, prepared)[-1].recipe
    learner = Learner(build(recipe.net), recipe.optim, batch=recipe.batch)
    assert learner.rate(Clock(0, 10)) == pytest.approx(8 * 0.001 * 8 * 2 / 512)
    assert recipe.noise.repeats == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": "test_vit", "img_size": 32, "fix_size": 48}, "made for one image size"),
        ({"img_size": "auto", "fix_size": 16}, "--fix-size is above 32, the size of the training"),
    ],
)
def test_fixed_sizes_and_smaller_ones_are_refused_before_anything_is_trained(
    images, tmp_path, more, words
):
    out = tmp_path / "run"
    with pytest.raises(UsageError, match=words):
        tutelage.train(**asked(images, out, **more))
    assert not (out / "rounds").exists()


def test_a_fix_below_the_training_size_is_refused_at_once():
    with pytest.raises(UsageError, match="--fix-size is above 32"):
        TrainSettings(data="d", model="m", out=Path("o"), img_size=32, fix_size=32)


@pytest.mark.parametrize("better", [True, False])
def test_validation_images_decide_whether_the_fix_is_kept(images, tmp_path, monkeypatch, better):
    """One of two validation images is right only after the fix, or only before it."""
    settings, prepared, rounds = rounds_for(images, tmp_path)
    both = with_fix(rounds, settings, prepared)
    prepared.parts["val"] = prepared.parts["labeled"]
    for size in (16, 24):
        prepared.opened["val", size] = InMemory(torch.zeros(2, size, size, 3, dtype=torch.uint8))

    class Answers(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.eye(2)[classes])

        def forward(self, batch):
            return self.logits

    right, wrong = Answers([0, 1]), Answers([0, 0])
    nets = {"00-supervised": wrong if better else right, "01-fix": right if better else wrong}
    monkeypatch.setattr(
        "tutelage.pipelines.rounds.network_of", lambda name, run, prepared: nets[name]
    )
    run = Run(tmp_path, {"stages": {}, "stage": ""})
    last = "01-fix" if better else "00-supervised"
    assert [one.name for one in decided(both, run, prepared)][-1] == last
    assert run.notes("fix")["kept"] is better
    again = decided(both, run, prepared)  # from its note
    assert again[-1].name == last
    assert len(again) == 2
