import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from images import picture, write_picture, write_pool
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.data.decode import decode
from tutelage.data.pixels import InMemory
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.deploy.predict import Surest, as_predictions, find_images, predict_files
from tutelage.deploy.predictions import Predictions, show, table_path, write_predictions
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.accuracy import predict
from tutelage.evaluation.calibrated import calibrated
from tutelage.networks.build import build


@pytest.fixture
def model(tiny):
    return Model(build(tiny, seed=1).eval(), tiny, ("cat", "dog", "eel, grüner"), 32)


@pytest.fixture
def files(tmp_path):
    root = write_pool(tmp_path / "photos", 3, first=0, side=40)
    write_picture(root / "deep" / "a [1].png", 3, side=32)
    (root / "notes.txt").write_text("x")
    return root


def names(images):
    return [Path(name).name for name in images.names]


def test_folders_are_searched_at_any_depth_and_files_taken_as_they_are(files):
    assert names(find_images([str(files)])) == ["0000.png", "0001.png", "0002.png", "a [1].png"]
    assert names(find_images([str(files / "0001.png")])) == ["0001.png"]
    assert names(find_images([str(files / "deep" / "a [1].png")])) == ["a [1].png"]


def test_globs_match_images_alone(files):
    assert names(find_images([str(files / "*")])) == ["0000.png", "0001.png", "0002.png"]
    assert names(find_images([str(files / "000[12].png")])) == ["0001.png", "0002.png"]
    assert names(find_images([str(files / "**" / "*.png")])) == [
        "0000.png", "0001.png", "0002.png", "a [1].png",
    ]  # fmt: skip


def test_each_image_comes_once_in_the_order_given(files):
    patterns = [str(files / "0002.png"), str(files / "*.png"), str(files)]
    assert names(find_images(patterns)) == ["0002.png", "0000.png", "0001.png", "a [1].png"]


@pytest.mark.parametrize(("pattern", "why"), [
    ("nowhere", "there is no file or folder"), ("*.jpg", "no image matches"),
    ("empty", "has no images"), ("notes*", "no image matches"),
])  # fmt: skip
def test_what_matches_nothing_is_said_by_name(files, pattern, why):
    (files / "empty").mkdir()
    with pytest.raises(UsageError, match=why) as caught:
        find_images([str(files), str(files / pattern)])
    assert str(files / pattern) in str(caught.value)


def test_answers_are_the_networks_own_surest_first(files, model, tiny):
    paths = find_images([str(files)])
    found = predict_files(model, paths, top=2)
    images = torch.from_numpy(np.stack([decode(paths.read(i), 32) for i in range(len(paths))]))
    probs = model.module(images.permute(0, 3, 1, 2).float() / 255).softmax(-1)
    assert found.paths == paths.names
    for row, (classes, shares) in enumerate(zip(found.top_classes, found.top_probs, strict=True)):
        best = probs[row].topk(2)
        assert classes == tuple(model.classes[i] for i in best.indices)
        assert shares == pytest.approx(best.values.tolist(), abs=1e-5)
    assert found.unreadable == ()


def test_no_more_classes_are_named_than_there_are(files, model):
    found = predict_files(model, find_images([str(files)]), top=5)
    assert {len(classes) for classes in found.top_classes} == {3}
    assert all(sum(shares) == pytest.approx(1, abs=1e-5) for shares in found.top_probs)


def test_unreadable_files_are_reported_apart_and_change_no_other_answer(files, model):
    clean = predict_files(model, find_images([str(files)]))
    (files / "0000a.png").write_text("no image")
    damaged = files / "deep" / "b.png"
    damaged.write_bytes((files / "0000.png").read_bytes()[:200])
    found = predict_files(model, find_images([str(files)]))
    assert found.paths == clean.paths
    assert found.top_classes == clean.top_classes
    assert [path for path, _ in found.unreadable] == [str(files / "0000a.png"), str(damaged)]
    assert all(problem for _, problem in found.unreadable)


def test_a_folder_without_one_readable_image_is_a_data_problem(tmp_path, model):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(DataProblem, match=r"none of 2 images can be read; .*a\.png"):
        predict_files(model, find_images([str(tmp_path)]))


def test_a_file_of_any_name_is_tried(tmp_path, model):
    path = tmp_path / "download"
    picture(0, 32).save(path, "PNG")
    assert len(predict_files(model, find_images([str(path)])).paths) == 1


PREDICTIONS = Predictions(
    paths=("a, b.png", 'ü "q".png'),
    top_classes=(("cat", "dog"), ("eel, green", "cat")),
    top_probs=((0.75, 0.25), (0.6, 0.3)),
)
COLUMNS = ["path", "label", "confidence", "label_2", "probability_2"]


def test_a_csv_holds_a_row_an_image(tmp_path):
    write_predictions(tmp_path / "out" / "a.csv", PREDICTIONS)
    with (tmp_path / "out" / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        COLUMNS,
        ["a, b.png", "cat", "0.75", "dog", "0.25"],
        ['ü "q".png', "eel, green", "0.6", "cat", "0.3"],
    ]


def test_a_parquet_file_holds_the_same_with_types(tmp_path):
    write_predictions(tmp_path / "a.parquet", PREDICTIONS)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.to_pydict() == PREDICTIONS.columns()
    assert table.column_names == COLUMNS
    assert str(table.schema.field("confidence").type) == "double"


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a\.xlsx: the name has to end in \.csv or \.parquet"):
        table_path(tmp_path / "a.xlsx")


def test_the_table_is_shown_in_tab_separated_lines(capsys):
    show(PREDICTIONS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == COLUMNS
    assert lines[1].split("\t") == ["a, b.png", "cat", "0.7500", "dog", "0.2500"]
    assert len(lines) == 3


def test_probs_become_names(model):
    probs = torch.tensor([[0.1, 0.7, 0.2]])
    found = as_predictions(model, ["x.png"], probs, top=2)
    assert found.top_classes == (("dog", "eel, grüner"),)
    assert found.top_probs == ((0.7, 0.2),)


def tempered_by(model, value):
    """The model with a calibration of this temperature."""
    dice = torch.Generator().manual_seed(1)
    its = calibrated(torch.rand(50, 3, generator=dice).softmax(-1), torch.zeros(50).long(), "x")
    its = replace(its, temperature=replace(its.temperature, value=value))
    return replace(model, calibration=its)


@pytest.mark.parametrize("temperature", [None, 1.0, 0.4, 1.7])
@pytest.mark.parametrize("batch", [1, 256, 5000])
def test_the_surest_classes_are_the_same_to_the_last_bit_in_any_batches(temperature, batch, tiny):
    dice = torch.Generator().manual_seed(0)
    probs = (3 * torch.randn(5000, 37, generator=dice)).softmax(-1)
    model = Model(nn.Identity(), tiny, tuple(map(str, range(37))), 32)
    model = model if temperature is None else tempered_by(model, temperature)
    surest = Surest(model, 5000, top=5)
    for some in probs.split(batch):
        surest.take(some)
    best = probs.topk(5).indices
    assert torch.equal(surest.numbers, best)
    assert torch.equal(surest.shares, model.probs(probs).gather(1, best))
    found = surest.named(["a", "b"], [7, 4999], answer_from=0.5)
    whole = as_predictions(model, list(map(str, range(5000))), probs, top=5, answer_from=0.5)
    for values, all_values in zip(vars(found).values(), vars(whole).values(), strict=True):
        if values and values != ("a", "b"):
            assert values == (all_values[7], all_values[4999])


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_answers_of_many_images_are_never_held_whole(temperature, files, tiny):
    """Of 1,200 images and 3,000 classes no tensor has all, nor has any as many numbers."""
    count, classes = 1200, 3000

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            dice = torch.Generator().manual_seed(0)
            self.weights = nn.Parameter(40 * torch.randn(3, classes, generator=dice))

        def forward(self, images):
            return images.mean((2, 3)) @ self.weights

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, operation, types, given=(), more=None):
            found = operation(*given, **(more or {}))
            for one in found if isinstance(found, tuple | list) else (found,):
                self.most = max(self.most, one.numel() if isinstance(one, torch.Tensor) else 0)
            return found

    model = tempered_by(Model(Wide(), tiny, tuple(map(str, range(classes))), 32), temperature)
    (files / "0001.png").write_text("no image")
    names = tuple(str(files / f"{row % 3:04}.png") for row in range(count))
    images = Images(Folder(""), names)
    with Largest() as seen:
        found = predict_files(model, images, answer_from=0.3)
    assert seen.most < count * classes / 2
    pixels = InMemory(torch.from_numpy(np.stack([decode(images.read(0), 32)] * 2)))
    probs = predict(model.module, pixels, 32)[:1].expand(2, -1)
    expected = as_predictions(model, [names[0], names[3]], probs, top=5, answer_from=0.3)
    assert len(found.paths) == 800
    assert found.top_classes[:3:2] == expected.top_classes
    for shares, others in zip(found.top_probs[:3:2], expected.top_probs, strict=True):
        assert shares == pytest.approx(others, abs=2e-6)
    assert found.answered[:3:2] == expected.answered


def test_a_saved_model_gives_the_same_answers_and_other_weights_are_refused(
    tmp_path, files, model, tiny
):
    save_model(tmp_path / "model", model, "# card")
    loaded = load_model(tmp_path / "model")
    paths = find_images([str(files)])
    assert predict_files(loaded, paths) == predict_files(model, paths)
    assert loaded.classes == model.classes
    other = Model(build(tiny, seed=2).eval(), tiny, model.classes, 32)
    save_model(tmp_path / "other", other, "# card")
    weights = (tmp_path / "other" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    with pytest.raises(UsageError, match="are not those that its config"):
        load_model(tmp_path / "model")
    with pytest.raises(UsageError, match="holds no model"):
        load_model(files)


def test_a_file_whose_name_no_table_can_hold_is_left_out_and_said(model, files, tmp_path):
    os.rename(files / "0001.png", os.fsencode(files) + b"/caf\xe9.png")
    found = predict_files(model, find_images([str(files)]))
    write_predictions(tmp_path / "found.csv", found)
    assert [Path(path).name for path in found.paths] == ["0000.png", "0002.png", "a [1].png"]
    ((path, why),) = found.unreadable
    assert path.endswith("caf\udce9.png")
    assert "not UTF-8" in why


def test_what_a_table_leaves_out_is_said(files, tmp_path):
    (tmp_path / "some.csv").write_text(f"path,label\n{files / '0001.png'},x\n,x\n")
    lines = []
    assert names(find_images([str(tmp_path / "some.csv")], lines.append)) == ["0001.png"]
    assert lines == [f"left out {tmp_path / 'some.csv'}, line 3: has no path"]
