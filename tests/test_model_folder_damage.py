"""Model folders with a config.json that is damaged, or was written by somebody else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.errors import TutelageError, UsageError
from tutelage.networks.build import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tutelage.networks.build import Net

    net = Net(name="test_resnet", num_classes=3, img_size=32, small_stem=True)
    where = tmp_path_factory.mktemp("model")
    save_model(where, Model(build(net), net, ("a", "b", "c"), 36), "card")
    return where


ODD = {
    "no json": "{", "deep": "[" * 5000, "list": "[]", "null": "null", "not text": b"\xff",
    "no net": {"net": None}, "no size": {"preprocessing": {}}, "classes": {"classes": [1, 2, 3]},
    "few classes": {"classes": ["a"]}, "size": {"preprocessing": {"resize_shorter_side": -1}},
    "calibration": {"calibration": []}, "no weights": {"weights": None},
}  # fmt: skip


@pytest.mark.parametrize("how", ODD)
def test_a_damaged_config_is_named(folder, tmp_path, how):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config, change = tmp_path / "config.json", ODD[how]
    if isinstance(change, dict):
        change = json.dumps(json.loads(config.read_text()) | change)
    config.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        load_model(tmp_path)


values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=30)
@given(key=some.sampled_from(["format", "net", "classes", "preprocessing", "weights",
                              "calibration"]), value=values)  # fmt: skip
def test_any_value_in_a_config_is_right_or_refused_in_our_words(folder, key, value):
    file = folder / "config.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {key: value}))
        load_model(folder)
    except TutelageError:
        pass
    finally:
        file.write_text(before)
