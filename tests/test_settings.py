import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.catalog import kind_of, names
from tutelage.errors import UsageError
from tutelage.jobs import REDUCED, DistillSettings, SelftrainSettings, TrainSettings
from tutelage.settings import Noise, Optim, Select
from tutelage.training_settings import NOISY_STUDENT, seconds

NEEDED = {"data": "d", "model": "m", "out": Path("o")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90), ("20m", 1200), ("1h30m", 5400), ("1h30m15s", 5415), ("2h", 7200),
        ("45", 45), ("0.5s", 0.5), ("1h5s", 3605), (" 20m ", 1200),
    ],
)  # fmt: skip
def test_times_are_read(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1d", "-5s", "m", "1m1h", "0", "0s", "0h0m", "1 h", "1h30", "inf"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="that is no time"):
        seconds(text)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Noise, {"magnitude": 10.5}),
        (Noise, {"magnitude": -0.1}),
        (Noise, {"magnitude": float("nan")}),
        (Noise, {"magnitude": 30.5, "scale": "tf"}),
        (Noise, {"policy": "randaug"}),
        (Noise, {"policy": "autoaugment:imagenet21k"}),
        (Noise, {"policy": "torchvision:randaug"}),
        (Noise, {"policy": "timm:"}),
        (Noise, {"policy": "timm:rand-m9.5"}),
        (Noise, {"policy": "timm:rand-m9-x3"}),
        (Noise, {"policy": "timm:randm9"}),
        (Noise, {"op_prob": 1.5}),
        (Noise, {"magnitude_std": -0.5}),
        (Noise, {"erase": 1.5}),
        (Noise, {"num_ops": -1}),
        (Noise, {"cutout": 1.1}),
        (Noise, {"min_area": -0.1}),
        (Noise, {"dropout": 2}),
        (Noise, {"drop_path": -1}),
        (Optim, {"lr": -0.1}),
        (Optim, {"lr": float("nan")}),
        (Optim, {"warmup": 1.1}),
        (Optim, {"ema": 1.1}),
        (Optim, {"weight_decay": -1e-4}),
        (Optim, {"clip": 0.0}),
        (Select, {"threshold": 1.5}),
        (Select, {"max_copies": 0}),
        (Select, {"per_class": 0}),
        (Select, {"ood": 1.0}),
        (Select, {"ood": -0.1}),
        (Select, {"ood": float("nan")}),
        (Select, {"mode": "histogram", "balance": False}),
    ],
)
def test_values_out_of_range_are_refused_by_name(kind, wrong):
    with pytest.raises(UsageError) as caught:
        kind(**wrong)
    assert next(iter(wrong)).replace("_", "-") in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"val_fraction": 0.95},
        {"smoothing": -0.1},
        {"batch": 0},
        {"batch": 1},
        {"steps": 0},
        {"img_size": -32},
        {"budget": "soon"},
        {"budget": "20m", "steps": 10},
    ],
)
def test_training_refuses_what_it_can_not_do(wrong):
    with pytest.raises(UsageError):
        TrainSettings(**NEEDED | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"ratio": 0},
        {"temperature": 0.0},
        {"weight": -1.0},
        {"batch": 1},
        {"students": ("a", "b", "c"), "rounds": 2, "method": ("noisy-student",)},
        {"pool_share": 1.5},
        {"method": ()},
        {"method": ("auto", "fixmatch")},
        {"method": ("fixmatch",), "pool_targets": "hard"},
        {"method": ("fixmatch",), "select": Select(threshold=0.9)},
        {"method": ("fixmatch",), "rounds": 2},
        {"method": ("fixmatch", "noisy-student"), "rounds": 1},
        {"method": ("noisy-student", "fixmatch")},
    ],
)
def test_self_training_refuses_what_it_can_not_do(wrong):
    with pytest.raises(UsageError):
        SelftrainSettings(**NEEDED | {"unlabeled": "u"} | wrong)


def test_distillation_refuses_what_it_can_not_do():
    needed = {"data": "d", "student": "m", "out": Path("o")}
    for wrong in ({"teacher": ()}, {"teacher": ("t",), "ratio": 0}):
        with pytest.raises(UsageError):
            DistillSettings(**needed | wrong)


def test_rounds_follow_the_methods():
    needed = NEEDED | {"unlabeled": "u"}
    assert SelftrainSettings(**needed, method=("noisy-student",)).num_rounds == 2
    assert SelftrainSettings(**needed, method=("fixmatch",)).num_rounds == 1
    both = SelftrainSettings(**needed, method=("fixmatch", "noisy-student"), rounds=3)
    names = [both.method_of(number) for number in range(1, both.num_rounds + 1)]
    assert names == ["fixmatch", "noisy-student", "noisy-student"]


def test_the_last_student_goes_on_and_the_model_is_the_default():
    needed = NEEDED | {"unlabeled": "u", "rounds": 4}
    grown = SelftrainSettings(**needed, students=("a", "b"))
    assert [grown.student(number) for number in (1, 2, 3, 4)] == ["a", "b", "b", "b"]
    assert SelftrainSettings(**needed).student(3) == "m"


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [
        ("sgd", 0.1, 1e-3), ("SGD", 0.1, 1e-3), ("nesterov", 0.1, 1e-3),
        ("lookahead_sgd", 0.1, 1e-3), ("rmsproptf", 1e-3, 1e-5), ("adam", 1e-3, 0.0),
        ("adamw", 1e-3, 0.05), ("lamb", 1e-3, 0.05), ("adopt", 1e-3, 0.0), ("adoptw", 1e-3, 0.05),
        ("adagrad", 1e-3, 0.0), ("madgrad", 1e-3, 0.0),
    ],
)  # fmt: skip
def test_usual_rates_follow_the_kind_of_optimizer(name, lr, decay):
    found = Optim(name=name).resolved(batch_norm=True, pretrained=False)
    assert (found.name, found.lr, found.weight_decay) == (name, lr, decay)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Optim(milestones=(0.5,)),
        lambda: Optim(scale_base=64),
        lambda: TrainSettings(**NEEDED, fix="shallow-frozen"),
        lambda: TrainSettings(**NEEDED, freeze=2),
    ],
)
def test_settings_that_nothing_would_read_are_refused(wrong):
    with pytest.raises(UsageError, match="is for"):
        wrong()


def test_small_images_are_shifted_and_photos_are_cropped_unless_told():
    assert Noise().crop_for(32) == "pad"
    assert Noise().crop_for(64) == "pad"
    assert Noise().crop_for(65) == "resized"
    assert Noise(crop="resized").crop_for(32) == "resized"
    assert Noise(crop="pad").crop_for(224) == "pad"


def test_settings_are_read_without_loading_torch():
    code = "import sys, tutelage.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_selects_labels_is_read_by_all_methods_that_store_them():
    stored = {name for name in names() if kind_of(name).stored}
    assert stored == {NOISY_STUDENT, REDUCED}
    for name in stored:
        SelftrainSettings(**NEEDED, unlabeled="u", method=(name,), select=Select(threshold=0.1))
