"""WiSE-FT: where it mixes, what it mixes, and that it steps back where labels are told worse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy
from torch import Tensor, nn

import tutelage
from tutelage.data.pixels import InMemory
from tutelage.data.sets import LabeledSet
from tutelage.deploy.model_folder import Model, save_model
from tutelage.errors import UsageError
from tutelage.evaluation.wise_ft import drawn_back, interpolated
from tutelage.jobs import TrainSettings
from tutelage.networks.build import Net, build
from tutelage.pipelines import rounds

TINY = Net(name="test_resnet", num_classes=4, img_size=16)


def as_shares(alpha, given, trained) -> bool:
    """Whether a network's floats are (1 - alpha) given + alpha trained; all are state dicts."""
    mixed = interpolated(given, trained, alpha).state_dict()
    before, after = given.state_dict(), trained.state_dict()
    return all(
        torch.allclose(value, (1 - alpha) * before[key] + alpha * after[key], atol=1e-6)
        if value.is_floating_point()
        else torch.equal(value, after[key])
        for key, value in mixed.items()
    )


def test_weights_are_mixed_as_the_paper_says_and_their_ends_are_exact():
    given, trained = build(TINY, seed=1), build(TINY, seed=2)
    trained.net.bn1.num_batches_tracked += 7
    assert as_shares(0.8, given, trained)
    for alpha, end in ((0.0, given), (1.0, trained)):
        mixed = interpolated(given, trained, alpha).state_dict()
        ends = end.state_dict()
        assert all(torch.equal(mixed[k], ends[k]) for k in mixed if mixed[k].is_floating_point())


def test_weights_that_layers_share_are_mixed_once():
    def tied(value):
        one = nn.Linear(2, 2, bias=False)
        nn.init.constant_(one.weight, value)
        return nn.Sequential(one, one)

    mixed = interpolated(tied(0.0), tied(1.0), 0.8)
    assert torch.allclose(mixed[1].weight, torch.full((2, 2), 0.8))


class Brightness(nn.Module):
    """Class 1 where an image is bright, by one number that is learned."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, images: Tensor) -> Tensor:
        score = self.slope * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize(("given", "trained", "mixes"), [(8.0, -2.0, True), (-8.0, 2.0, False)])
def test_what_tells_the_labeled_images_better_is_kept(given, trained, mixes):
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    images[3:] = 255
    labeled = LabeledSet(InMemory(images), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    before, after = Brightness(given), Brightness(trained)
    kept, words = drawn_back(before, after, 0.5, labeled, size=8)
    slope = (given + trained) / 2 if mixes else trained
    assert kept.slope.item() == pytest.approx(slope)
    assert words.endswith("(WiSE-FT): that is kept" if mixes else "all of it is kept")
    assert after.slope.item() == trained


@pytest.fixture
def stranger(tmp_path) -> Path:
    """A model folder with classes that nobody else has."""
    made = Model(build(TINY, seed=7), TINY, ("u", "v", "w", "x"), 32)
    save_model(tmp_path / "stranger", made, "a card")
    return tmp_path / "stranger"


def recipes(monkeypatch) -> list:
    """The recipes of all trainings from now on."""
    found = []
    real = rounds.fit

    def fit(recipe, *given, **more):
        found.append(recipe)
        return real(recipe, *given, **more)

    monkeypatch.setattr(rounds, "fit", fit)
    return found


@pytest.mark.parametrize(
    ("more", "alpha"),
    [
        ({}, 0.8),
        ({"wise": 0.25}, 0.25),
        ({"wise": 1.0}, 1.0),
        ({"transfer": "probe"}, 1.0),
        ({"transfer": "frozen-stem"}, 0.8),
        ({"batch_norm": "moving"}, 1.0),
    ],
)
def test_a_new_classifier_on_given_weights_is_drawn_back(
    images, tmp_path, stranger, monkeypatch, capsys, more, alpha
):
    found = recipes(monkeypatch)
    tutelage.train(**toy.train_settings(images, tmp_path / "out", init=str(stranger)) | more)
    assert [one.wise for one in found] == [alpha]
    assert ("of what training changed (WiSE-FT)" in capsys.readouterr().err) == (alpha < 1)


def test_new_weights_and_a_classifier_that_knows_the_classes_are_left(
    images, tmp_path, monkeypatch, capsys
):
    found = recipes(monkeypatch)
    tutelage.train(**toy.train_settings(images, tmp_path / "new"))
    tutelage.train(**toy.train_settings(images, tmp_path / "on", init=str(tmp_path / "new")))
    assert [one.wise for one in found] == [1.0, 1.0]
    assert "WiSE-FT" not in capsys.readouterr().err


def test_baseline_and_student_begin_and_end_alike(images, tmp_path, stranger, monkeypatch):
    found = recipes(monkeypatch)
    asked = toy.train_settings(images, tmp_path / "out", init=str(stranger))
    asked |= {"unlabeled": images / "pool", "method": "noisy-student", "rounds": 1, "ratio": 1}
    tutelage.selftrain(**asked)
    assert [one.wise for one in found] == [0.8, 0.8]


def test_a_student_of_a_network_is_left(images, tmp_path, stranger, monkeypatch):
    learned = {"steps": 60, "batch": 16, "val_fraction": 0}
    tutelage.train(**toy.train_settings(images, tmp_path / "teacher") | learned)
    found = recipes(monkeypatch)
    asked = toy.train_settings(images, tmp_path / "out", init=str(stranger))
    asked["student"] = asked.pop("model")
    tutelage.distill(**asked | {"teacher": (str(tmp_path / "teacher"),), "options": ("on=labels",)})
    assert found[-1].method.teacher == "frozen"
    assert [one.wise for one in found] == [1.0, 1.0]  # the baseline as well


@pytest.mark.parametrize(
    "more",
    [
        {"method": "meta-pseudo-labels"},
        {"method": "reduced-meta-pseudo-labels"},
        {"method": "noisy-student", "rounds": 1, "order": "pretrain"},
    ],
)
def test_a_baseline_ends_as_a_student_does_that_is_left(
    images, tmp_path, stranger, monkeypatch, more
):
    found = recipes(monkeypatch)
    asked = toy.train_settings(images, tmp_path / "out", init=str(stranger), steps=2)
    tutelage.selftrain(**asked | {"unlabeled": images / "pool", "ratio": 1} | more)
    assert len(found) > 1
    assert {one.wise for one in found} == {1.0}


def test_the_fix_for_larger_images_is_left(images, tmp_path, stranger, monkeypatch):
    found = recipes(monkeypatch)
    asked = toy.train_settings(images, tmp_path / "out", init=str(stranger), fix_size=32)
    tutelage.train(**asked)
    assert [one.wise for one in found] == [0.8, 1.0]


def test_a_training_whose_weights_are_gone_is_drawn_back_again(images, tmp_path, stranger):
    calm, out = tmp_path / "calm", tmp_path / "out"
    for path in (calm, out):
        tutelage.train(**toy.train_settings(images, path, init=str(stranger), wise=0.5))
    (out / "rounds" / "00-supervised" / "model.safetensors").unlink()
    content = json.loads((out / "run.json").read_text())
    for stage in ("00-supervised", "evaluate", "model"):
        del content["stages"][stage]
    (out / "run.json").write_text(json.dumps(content))
    tutelage.train(**toy.train_settings(images, out, init=str(stranger), wise=0.5))
    one, other = (toy.weights_of(path, "00-supervised") for path in (calm, out))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_training_whose_weights_are_whole_asks_for_the_given_ones_no_more(
    images, tmp_path, stranger
):
    out = tmp_path / "out"
    asked = toy.train_settings(images, out, init=str(stranger))
    tutelage.train(**asked)
    (out / "rounds" / "00-supervised" / "config.json").unlink()
    shutil.rmtree(out / "model")
    shutil.rmtree(stranger)
    tutelage.train(**asked)
    assert (out / "model" / "model.safetensors").exists()


def test_the_share_is_between_0_and_1_and_belongs_to_given_weights():
    settings = TrainSettings(data="d", model="m", out=Path("o"), pretrained=True)
    with pytest.raises(UsageError, match="--wise"):
        replace(settings, wise=1.5)
    with pytest.raises(UsageError, match="--wise is for --init or --pretrained"):
        replace(settings, wise=0.5, pretrained=False)
