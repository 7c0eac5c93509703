"""Runs whose files are damaged, or whose images vanish or change: the same command goes on."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from same import assert_same

from tutelage import checkpoint, loop
from tutelage.deploy.model_folder import load_model
from tutelage.errors import Damaged, DataProblem, UsageError
from tutelage.jobs import TrainSettings
from tutelage.launch import run_train
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net, build
from tutelage.values import from_plain
from tutelage.weights import load_weights, save_weights

CPU = torch.device("cpu")
ROUND = "00-supervised"


def train(images: Path, out: Path) -> dict[str, torch.Tensor]:
    """A short training whose images are decoded when asked for; the model's weights."""
    made = toy.train_settings(images, out, memory="0MB", steps=8)
    run_train(from_plain(TrainSettings, made))
    return load_file(out / "model" / "model.safetensors")


def log(run: Path) -> str:
    return (run / "logs" / "log.txt").read_text()


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return toy.write_toy(tmp_path_factory.mktemp("toy"), pool=1)


@pytest.fixture(scope="module")
def calm(images, tmp_path_factory) -> Path:
    """A run that was left alone; read only."""
    out = tmp_path_factory.mktemp("calm") / "run"
    train(images, out)
    return out


@pytest.fixture
def run(calm, tmp_path) -> Path:
    return Path(shutil.copytree(calm, tmp_path / "run"))


def stopped_at(step: int, monkeypatch, *, by: BaseException) -> None:
    """The training ends with this error before a step, its checkpoints after each step before."""
    real = Supervised.step

    def stopping(self, state, batch, clock):
        if clock.step == step:
            monkeypatch.setattr(Supervised, "step", real)
            raise by
        return real(self, state, batch, clock)

    monkeypatch.setattr(Supervised, "step", stopping)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)


def test_a_run_goes_on_from_the_checkpoint_before_with_the_same_weights(
    images, calm, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    stopped_at(6, monkeypatch, by=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(images, out)
    file = out / "rounds" / ROUND / "last.pt"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(raw)
    assert_same(train(images, out), load_file(calm / "model" / "model.safetensors"))
    assert f"{ROUND}/last.pt is damaged (its checksum doesn't match" in log(out)
    assert "before.pt, after step 5; 1 step is repeated" in log(out)
    steps = [json.loads(line)["step"] for line in
             (out / "rounds" / ROUND / "metrics.jsonl").read_text().splitlines()]  # fmt: skip
    assert steps == list(range(1, 9))


def test_a_finished_run_makes_its_damaged_model_again(images, calm, run):
    weights = run / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(
        Damaged, match=r"model\.safetensors is damaged.*give the training's command"
    ):
        load_model(run)
    assert_same(train(images, run), load_file(calm / "model" / "model.safetensors"))
    assert weights.read_bytes() == whole
    assert f"{run / 'model'} is made again" in log(run)


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_round_with_damaged_weights_is_made_again(images, calm, run, checkpoints):
    (run / "model" / "config.json").write_text("{")
    weights = run / "rounds" / ROUND / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9] + bytes(9))
    if not checkpoints:
        checkpoint.forget(weights.parent)
    assert_same(train(images, run), load_file(calm / "model" / "model.safetensors"))
    assert weights.read_bytes() == whole
    assert "its weights are not those that were written: they are made again" in log(run)
    assert json.loads((run / "run.json").read_text())["state"] == "done"


def test_weights_of_a_round_that_was_cut_short_before_it_was_noted_are_looked_at(images, calm, run):
    content = json.loads((run / "run.json").read_text())
    for stage in (ROUND, "evaluate", "model", "report"):
        del content["stages"][stage]
    (run / "run.json").write_text(json.dumps(content))
    weights = run / "rounds" / ROUND / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_same(train(images, run), load_file(calm / "model" / "model.safetensors"))
    assert f"{weights} is damaged" in log(run)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Weights of a small network; read only."""
    path = tmp_path_factory.mktemp("weights") / "a.safetensors"
    save_weights(path, build(NET, seed=3))
    return path


NET = Net(name="test_resnet", num_classes=3, img_size=32)


@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans(),
       header=st.booleans())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_damaged_weights_are_refused_or_exact(file, tmp_path_factory, where, value, cut, header):
    raw = bytearray(file.read_bytes())
    at = int(where * (int.from_bytes(raw[:8], "little") + 8 if header else len(raw)))
    raw = raw[:at] if cut else raw[:at] + bytes([raw[at] ^ value]) + raw[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    path.write_bytes(raw)
    try:
        loaded = load_weights(path, NET, CPU)
    except UsageError as error:
        assert str(path) in str(error)  # noqa: PT017  (or it is exact)
    else:
        assert_same(loaded.state_dict(), build(NET, seed=3).state_dict())


def test_weights_and_model_folders_without_a_digest_load(file, calm, tmp_path):
    save_file(load_file(file), tmp_path / "old.safetensors")
    loaded = load_weights(tmp_path / "old.safetensors", NET, CPU)
    assert_same(loaded.state_dict(), build(NET, seed=3).state_dict())
    folder = Path(shutil.copytree(calm / "model", tmp_path / "model"))
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert_same(load_model(folder).module.state_dict(), load_model(calm).module.state_dict())
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:-3] + b"abc")
    with pytest.raises(Damaged, match="are not those that its config"):
        load_model(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', "\x00", '{"format": 1, "net": 2}']
)
def test_a_damaged_config_is_said(calm, tmp_path, content):
    folder = Path(shutil.copytree(calm / "model", tmp_path / "model"))
    (folder / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        load_model(folder)


@pytest.mark.parametrize("how", ["gone", "another"])
def test_an_image_that_vanishes_or_changes_while_training_is_named_and_put_back(
    calm, tmp_path, monkeypatch, how
):
    images = toy.write_toy(tmp_path, pool=1)
    out, path = tmp_path / "run", images / "labeled" / "dot" / "2.png"
    before = path.read_bytes()
    real = Supervised.step

    def step(self, state, batch, clock):
        if clock.step == 3:
            if how == "another":
                toy.picture(1, np.random.default_rng(9)).save(tmp_path / "other.png")
                (tmp_path / "other.png").replace(path)  # never gone, even for a moment
            else:
                path.unlink()
        return real(self, state, batch, clock)

    monkeypatch.setattr(Supervised, "step", step)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    why = "is gone" if how == "gone" else "can't be read: the file has changed since the command"
    with pytest.raises(DataProblem, match=rf"dot/2\.png {why}.*; put it back as it was, and run"):
        train(images, out)
    monkeypatch.setattr(Supervised, "step", real)
    with pytest.raises(DataProblem, match=r"2\.png (is gone|has changed) since the run began"):
        train(images, out)
    with Image.open(BytesIO(before)) as image:
        image.save(path, compress_level=1)  # the same pixels in another file, at another time
    assert_same(train(images, out), load_file(calm / "model" / "model.safetensors"))
