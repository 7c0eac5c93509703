"""Images that a program gives, where an address stands: what is taken, and a run that goes on."""

import numpy as np
import pandas as pd
import pytest
import torch
import toy
from PIL import Image
from source_kinds import CLASSES, GRAY, LABELS, RGB, TorchData

import tutelage
from tutelage.data.parts import labeled_images
from tutelage.data.sources.memory import as_source
from tutelage.errors import DataProblem, RunMismatch, UsageError
from tutelage.pipelines.manifest import read_manifest


def pictures(count, seed, labels=None):
    rng = np.random.default_rng(seed)
    numbers = [i % 2 if labels is None else labels for i in range(count)]
    return np.stack([np.asarray(toy.picture(n, rng)) for n in numbers]), np.array(numbers)


def settings(out, **more):
    return {
        "data": pictures(8, 0), "test": pictures(6, 1), "model": "test_resnet", "steps": 4,
        "img_size": 16, "batch": 4, "val_fraction": 0, "device": "cpu", "out": out,
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on arrays."""
    out = tmp_path_factory.mktemp("given") / "run"
    tutelage.train(**settings(out))
    return out


def test_a_run_goes_on_with_the_same_arrays_and_refuses_others(run):
    outcome = tutelage.train(**settings(run))
    assert outcome.content["state"] == "done"
    with pytest.raises(RunMismatch, match="data: memory:"):
        tutelage.train(**settings(run, data=pictures(8, 5)))


def test_the_same_run_without_its_arrays_is_told_to_give_them(run):
    address = outcome_address(run)
    with pytest.raises(UsageError, match="was given from Python: go on from there"):
        tutelage.check(address, out=run)
    with pytest.raises(DataProblem, match="was given from Python: go on from there"):
        read_manifest(run / "data")


def outcome_address(run):
    from tutelage.files import read_json

    return read_json(run / "run.json")["settings"]["data"]


def test_every_verb_takes_arrays(run, tmp_path, capsys):
    images, labels = pictures(6, 9)
    assert tutelage.evaluate(run, data=(images, labels)).accuracy.total == 6
    found = tutelage.predict(run, images)
    assert len(found.paths) == 6
    assert found.paths[0].startswith("memory:")
    assert len(tutelage.predict(run, [Image.fromarray(image) for image in images]).paths) == 6
    assert tutelage.label(model=run, data=images, out=tmp_path / "labels").is_dir()
    tutelage.check((images, labels), unlabeled=pictures(5, 10)[0], out=tmp_path)
    assert "labeled 6, pool 5" in capsys.readouterr().err


def test_self_training_takes_a_pool_of_arrays_and_shows_it(tmp_path):
    pool = torch.from_numpy(pictures(12, 3)[0]).permute(0, 3, 1, 2)
    more = settings(tmp_path / "run", unlabeled=pool, rounds=1, method="noisy-student")
    outcome = tutelage.selftrain(**more, select={"threshold": 0.0})
    page = (outcome.run / "report" / "index.html").read_text()
    assert "data:image/png;base64" in page
    assert "the pool is not there now" not in page


def test_splits_of_the_labels_are_enough_to_judge_on(tmp_path):
    images, labels = pictures(14, 0)
    parts = {"x_train": images[:8], "y_train": labels[:8], "x_test": images[8:]}
    np.savez(tmp_path / "a.npz", y_test=labels[8:], **parts)
    more = settings(tmp_path / "run", data=tmp_path / "a.npz", unlabeled=pictures(12, 3)[0])
    del more["test"]
    method = {"rounds": 1, "method": "noisy-student", "select": {"threshold": 0.0}}
    outcome = tutelage.selftrain(**more, **method)
    assert outcome.content["stages"]["evaluate"]["judge"] == "test"


def test_distillation_takes_arrays(run, tmp_path):
    more = settings(tmp_path / "run", unlabeled=pictures(12, 3)[0])
    model = more.pop("model")
    outcome = tutelage.distill(teacher=str(run), student=model, **more)
    assert outcome.content["state"] == "done"


def test_predict_takes_any_one_source(run, tmp_path):
    images, labels = pictures(6, 9)
    np.savez(tmp_path / "a.npz", x_train=images[:4], x_test=images[4:], y_train=labels[:4])
    assert len(tutelage.predict(run, str(tmp_path / "a.npz")).paths) == 6
    with pytest.raises(UsageError, match="there is no folder or file memory://nowhere"):
        tutelage.predict(run, "memory://nowhere/at/all")


def test_equal_content_has_one_address_and_other_content_another():
    labels = np.array(LABELS)
    address = as_source((RGB, labels)).address
    assert as_source((RGB.copy(), labels.tolist())).address == address
    assert as_source((list(RGB), list(labels))).address == address
    planes = torch.from_numpy(RGB.transpose(0, 3, 1, 2).copy())
    assert as_source((planes, torch.tensor(LABELS))).address == address
    other = RGB.copy()
    other[3, 0, 0, 0] ^= 1
    changed = [(other, labels), (RGB, labels[::-1].copy()), RGB, (RGB[::-1], labels[::-1])]
    addresses = {as_source(one).address for one in changed}
    assert len(addresses | {address}) == 5


def test_images_of_other_sizes_and_modes_stand_in_one_list():
    values = [
        Image.new("RGBA", (5, 7)), GRAY[0], torch.zeros(3, 9, 4), RGB[1] > 100,
        np.zeros((6, 5, 4), np.uint8), np.ones((1, 8, 8), np.float32),
    ]  # fmt: skip
    source = as_source(values)
    shapes = [source.read(str(row)).shape for row in range(6)]
    assert shapes == [(7, 5, 3), (32, 32), (9, 4, 3), (32, 32, 3), (6, 5, 3), (8, 8)]
    assert source.read("5").max() == 255


def test_a_data_set_names_its_classes_also_in_part():
    images, _ = labeled_images(as_source(torch.utils.data.Subset(TorchData(), [0, 5])), "test")
    assert images.classes == CLASSES[:2]
    assert images.labels == (0, 1)


class Odd(torch.utils.data.Dataset):
    """Images of a function of their number."""

    def __init__(self, image, count=3):
        self.image, self.count = image, count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return self.image(row)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(RGB)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (RGB.astype(np.float32), None),
        (RGB / 3, "no 8-bit values"),
        (RGB.astype(np.int32) * 2, "no 8-bit values"),
        (np.full((2, 4, 4, 3), np.nan), "no 8-bit values"),
        (RGB[..., :2], "1 or 3 channels"),
        (RGB.reshape(12, -1), "shape"),
        (RGB[:0], "no images|shape"),
        ((RGB, LABELS[:5]), "12 images and 5 labels"),
        ((RGB, np.eye(12)), "several labels an image"),
        (5, "images can't be given as int"),
        ({"images": RGB}, "images can't be given as dict"),
        ([], "images can't be given as list"),
        (["a.png", "b.png"], "images can't be given as list"),
        (Odd(lambda row: np.random.default_rng().integers(0, 255, (4, 4, 3))), "random transforms"),
        (Odd(lambda row: {"image": RGB[0]}), "shape"),
        (Odd(lambda row: RGB[0], 0), "no images"),
        (Stream(), "IterableDataset"),
        (torch.randn(2, 3, 8, 8), "no 8-bit values"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_can_not_be_images_is_said(value, said):
    if said is None:
        assert as_source(value).read("0").dtype == np.uint8
        return
    with pytest.raises(UsageError, match=said) as caught:
        as_source(value)
    assert "from Python, uint8 images" in str(caught.value)


def test_a_frame_without_labels_is_a_pool_and_no_training_set(tmp_path):
    Image.fromarray(RGB[0]).save(tmp_path / "a.png")
    source = as_source(pd.DataFrame({"file": [str(tmp_path / "a.png")], "price": [3.5]}))
    assert source.listing("pool").names == (str(tmp_path / "a.png"),)
    with pytest.raises(DataProblem, match="'price', of which none is a label"):
        source.listing("labeled")
