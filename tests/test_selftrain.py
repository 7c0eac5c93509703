"""Self-training as a user runs it: each published ablation is a flag, methods may take turns."""

import json
import shutil

import pytest
import torch
import toy
import yaml
from safetensors.torch import load_file

import tutelage
from tutelage.cli import main
from tutelage.core import Batch, Clock, Labeled, Unlabeled
from tutelage.data.pool import load
from tutelage.data.sources.folder import Folder
from tutelage.errors import UsageError
from tutelage.jobs import SelftrainSettings
from tutelage.learner import Learner, modes
from tutelage.methods.method import State
from tutelage.methods.noisy_student import NoisyStudent
from tutelage.networks.build import build
from tutelage.pipelines import rounds
from tutelage.pipelines import selftrain as pipeline
from tutelage.pipelines.prepare import prepare
from tutelage.progress import Screen
from tutelage.run import open_run
from tutelage.settings import Optim


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), pool=43)  # 11 of three classes, 10 of one


def selftrain(images, out, *more, **flags):
    flags = toy.selftrain_flags(
        images, out, **{"rounds": 1, "noise.dropout": 0.3, "steps": 10, "optim.ema": 0.5} | flags
    )
    assert main(["selftrain", *flags, *more]) == 0
    return json.loads((out / "run.json").read_text())


def weights(out):
    return load_file(out / "model" / "model.safetensors")


def differ(one, other):
    return any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def usual(images, tmp_path_factory):
    """The run that each switch is compared with."""
    out = tmp_path_factory.mktemp("usual") / "run"
    selftrain(images, out)
    return out


def assert_changed(out, usual):
    one, other = weights(out), weights(usual)
    assert one.keys() != other.keys() or differ(one, other), "the flag changed nothing"


SWITCHES = {  # Noisy Student, section 4 and appendix: what is varied -> the flag; and below
    "no augmentation of the pool": ["--pool-noise", "network"],
    "no noise on the pool": ["--pool-noise", "none"],
    "a larger teacher": ["--teacher", "test_efficientnet"],
    "hard labels": ["--pool-targets", "hard"],
    "one band of confidence": ["--select.ceiling", "0.8"],
    "a larger student": ["--students", "test_efficientnet"],
    "no balancing": ["--select.no-balance"],
    "another ratio": ["--ratio", "3"],
    "a student that starts as its teacher": ["--student-init", "teacher"],
    "weights by image": ["--normalize", "per_sample"],
}


@pytest.mark.parametrize("flags", SWITCHES.values(), ids=SWITCHES)
def test_each_published_ablation_is_one_flag(flags, images, usual, tmp_path):
    out = tmp_path / "run"
    content = selftrain(images, out, *flags)
    assert content["state"] == "done"
    assert_changed(out, usual)


def test_a_noised_teacher_gives_other_labels_and_the_same_ones_again(images, usual, tmp_path):
    tables = []
    for name in ("one", "two"):
        assert selftrain(images, tmp_path / name, "--teacher-noise")["state"] == "done"
        assert_changed(tmp_path / name, usual)
        tables.append(load(tmp_path / name / "labels" / "01-student.parquet"))
    clean = load(usual / "labels" / "01-student.parquet")
    assert torch.equal(tables[0].top_probs, tables[1].top_probs)
    assert not torch.allclose(tables[0].top_probs, clean.top_probs)


def test_a_share_of_the_pool_is_drawn_once_and_the_rest_is_not_touched(images, usual, tmp_path):
    content = selftrain(images, tmp_path / "run", "--pool-share", "0.5")
    assert content["state"] == "done"
    assert_changed(tmp_path / "run", usual)
    assert content["stages"]["check"]["images"]["pool"] == 22
    assert len(load(tmp_path / "run" / "labels" / "01-student.parquet")) == 22


def prepared(images, out, share):
    settings = SelftrainSettings(
        data=images / "labeled", unlabeled=images / "pool", test=images / "test", val_fraction=0,
        model="test_resnet", device="cpu", pool_share=share, out=out,
    )  # fmt: skip
    with open_run("selftrain", settings, overwrite=False) as run:
        return prepare(
            settings, run, torch.device("cpu"), Screen(), pool=settings.unlabeled, pool_share=share
        )


def test_of_a_share_of_the_pool_no_other_image_is_read(images, tmp_path, monkeypatch):
    read, real = set(), Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, name: read.add(name) or real(self, name))
    names = prepared(images, tmp_path / "run", 0.25).parts["pool"].names
    assert len(names) == 11
    assert {name for name in read if "/" not in name} == set(names)
    assert prepared(images, tmp_path / "again", 0.25).parts["pool"].names == names
    with pytest.raises(UsageError, match=r"--pool-share 0\.01 of 43 pool images has none"):
        prepared(images, tmp_path / "none", 0.01)


def test_what_can_not_be_used_of_a_share_has_no_other_image_in_its_place(images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    drawn = prepared(root, tmp_path / "run", 0.5).parts["pool"].names
    for name in drawn[:3]:
        shutil.copy(next((root / "test" / "dot").iterdir()), root / "pool" / name)
    assert prepared(root, tmp_path / "fewer", 0.5).parts["pool"].names == drawn[3:]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["selftrain", "--model", "test_resnet"], "no images are left to judge on"),
        (["distill", "--student", "test_resnet", "--teacher", "no"], "or --no-baseline"),
        (["search", "--base", "efficientnet_b0"], "a search judges networks on validation images"),
    ],
)
def test_nothing_to_judge_on_is_said_before_images_are_read(
    verb, words, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("tutelage.data.check.examine", None)
    asked = [*verb, "--data", str(images / "labeled"), "--val-fraction", "0", "--device", "cpu",
             "--out", str(tmp_path / "run")]  # fmt: skip
    if verb[0] == "selftrain":
        asked += ["--unlabeled", str(images / "pool")]
    assert main(asked) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_pre_training_is_on_the_pool_alone_and_fine_tuning_begins_there(images, usual, tmp_path):
    content = selftrain(images, tmp_path / "run", "--order", "pretrain")
    assert content["state"] == "done"
    assert_changed(tmp_path / "run", usual)
    rounds = [row["name"] for row in content["stages"]["evaluate"]["rounds"]]
    assert rounds == ["00-baseline", "01-student", "02-finetune"]


def batch_of(images, seed):
    draw = torch.Generator().manual_seed(seed)
    labeled = Labeled(torch.rand(4, 3, 32, 32, generator=draw), torch.eye(3)[[0, 1, 2, 0]])
    return Batch(labeled, Unlabeled(torch.arange(4), {"strong": images}, torch.full((4, 3), 1 / 3)))


@pytest.mark.parametrize("noised", [True, False])
def test_dropout_can_be_taken_from_the_pool_images_alone(tiny, noised):
    """What the pool's loss is must not depend on the dropout's dice where it is off."""
    pool = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in (0, 1):
        net = build(tiny.__class__(**{**vars_of(tiny), "dropout": 0.8}))
        state = State(Learner(net, Optim(lr=0.0, ema=None)))
        torch.manual_seed(seed)
        metrics = NoisyStudent(dropout_on_pool=noised).step(state, batch_of(pool, 0), Clock(0, 2))
        found.append((metrics["labels"].item(), metrics["pseudo"].item()))
    (labels, pseudo), (other_labels, other_pseudo) = found
    assert labels != other_labels
    assert (pseudo == other_pseudo) is not noised


def vars_of(net):
    return {name: getattr(net, name) for name in net.__dataclass_fields__}


def test_modes_are_given_back(tiny):
    net = build(tiny)
    before = {name: module.training for name, module in net.named_modules()}
    with modes(net, noise=False, statistics=True):
        norms = [m.training for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert all(norms)
        assert not net.training
    assert {name: module.training for name, module in net.named_modules()} == before


def test_methods_take_turns(images, tmp_path):
    """FixMatch first, then Noisy Student with another network, taught by it."""
    out = tmp_path / "run"
    flags = toy.selftrain_flags(
        images, out, students="test_efficientnet", model="test_resnet", rounds=2
    )
    at = flags.index("--method")
    flags[at : at + 2] = ["--method", "fixmatch", "noisy-student"]
    at = flags.index("--students")
    flags[at : at + 2] = ["--students", "test_resnet", "test_efficientnet"]
    assert main(["selftrain", *flags]) == 0
    content = json.loads((out / "run.json").read_text())
    assert [s for s in content["stages"] if s[:2].isdigit()] == [
        "00-baseline", "01-student", "02-labels", "02-student"
    ]  # fmt: skip
    assert content["stages"]["02-labels"]["teacher"] == "01-student"
    models = [row["model"] for row in content["stages"]["evaluate"]["rounds"]]
    assert models == ["test_efficientnet", "test_resnet", "test_efficientnet"]


def test_stages_disturb_the_student_and_not_a_small_teacher_of_the_methods_own(images, tmp_path):
    flags = toy.selftrain_flags(
        images, tmp_path / "run", rounds=1, steps=4, method="reduced-meta-pseudo-labels",
        **{"img-size": 32, "progressive.stages": 2, "progressive.multiple": 16},
    )  # fmt: skip
    assert main(["selftrain", *flags]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method", "fixmtach"], "did you mean fixmatch"),
        (["--method", "supervised"], "doesn't look at a pool: use `tutelage train`"),
        (["--options", "treshold=1"], "there is no such option"),
        (
            ["--method", "fixmatch", "--rounds", "1", "--pool-targets", "hard"],
            "--pool-targets is for noisy-student",
        ),
        (["--method", "fixmatch", "--select.ood", "0.1"], "--select.ood is for noisy-student"),
        (["--method", "reduced-meta-pseudo-labels", "--order", "pretrain"], "--order is for"),
        (["--student-init", "teacher", "--teacher", "test_efficientnet"], "--student-init teacher"),
        (["--method", "mean-teacher", "--optim.ema", "None"], "asks the weights' average: give"),
    ],
)
def test_what_does_not_go_together_is_said_before_training(flags, words, images, tmp_path, capsys):
    asked = toy.selftrain_flags(images, tmp_path / "run", rounds=1)
    at = asked.index("--select.threshold")
    asked = asked[:at] + asked[at + 2 :]
    assert main(["selftrain", *asked, *flags]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "run").glob("rounds/*"))


def test_each_network_learns_by_the_optimizer_that_suits_it(images, usual, tmp_path, monkeypatch):
    """SGD at 0.1, which the student's batch norm takes, would ruin a transformer."""
    used, real = {}, rounds.fit

    def fit(recipe, *given, **more):
        used[recipe.net.name] = (recipe.optim.name, recipe.optim.lr)
        return real(recipe, *given, **more)

    monkeypatch.setattr(rounds, "fit", fit)
    selftrain(images, tmp_path / "run", steps=2, teacher="test_vit")
    assert used == {"test_resnet": ("sgd", 0.1), "test_vit": ("adamw", 0.001)}
    kept = [yaml.safe_load((run / "config.yaml").read_text()) for run in (tmp_path / "run", usual)]
    assert [one["optim"]["name"] for one in kept] == ["auto", "sgd"]


def test_labels_that_new_weights_see_too_seldom_are_noted(images, tmp_path, capsys, monkeypatch):
    selftrain(images, tmp_path / "run", steps=2)
    log = tmp_path / "run" / "rounds" / "00-baseline" / "metrics.jsonl"
    steps = json.loads(log.read_text().split("\n")[0])["total"]
    said = " ".join(capsys.readouterr().err.split())
    assert f"note: 00-baseline sees each labeled image about {steps * 8 / 16:.0f} times" in said
    selftrain(images, tmp_path / "given", steps=2, init=tmp_path / "run" / "model")
    assert "sees each labeled image" not in capsys.readouterr().err
    monkeypatch.setattr(pipeline, "LEARNED_OUT", steps * 8 / 16)
    selftrain(images, tmp_path / "enough", steps=2)
    assert "sees each labeled image" not in capsys.readouterr().err


def test_auto_depends_on_the_labels_of_a_class(images, tmp_path, capsys):
    many = toy.write_toy(tmp_path / "many", labeled=24)
    few_why = "fewer than 20 labels a class, here about 4; measured at 2, 5 and 10"
    many_why = "20 labels a class or more, here about 24; measured at 40"
    for name, root, expected, why in (
        ("few", images, "flexmatch", few_why), ("many", many, "noisy-student", many_why)
    ):  # fmt: skip
        out = tmp_path / f"run-{name}"
        tutelage.selftrain(
            data=root / "labeled", unlabeled=root / "pool", test=root / "test", steps=40, batch=8,
            model="test_resnet", img_size=16, ratio=1, val_fraction=0, device="cpu", out=out,
            baseline_length="steps",
        )  # fmt: skip
        notes = json.loads((out / "run.json").read_text())["stages"]["method"]
        assert notes["method"] == [expected]
        assert notes["why"] == f"{why}: docs/which-method.md"


def test_auto_takes_noisy_student_with_given_weights(images, tmp_path):
    first, out = tmp_path / "first", tmp_path / "run"
    flags = toy.selftrain_flags(images, first, method="auto", steps=3)
    at = flags.index("--rounds")
    del flags[at : at + 2]
    at = flags.index("--select.threshold")
    del flags[at : at + 2]
    assert main(["selftrain", *flags]) == 0
    flags[flags.index(str(first))] = str(out)
    assert main(["selftrain", *flags, "--init", str(first / "model"), "--rounds", "auto"]) == 0
    notes = [json.loads((run / "run.json").read_text())["stages"]["method"] for run in (first, out)]
    assert [one["method"] for one in notes] == [["flexmatch"], ["noisy-student"]]
    assert notes[1]["why"].startswith("given weights, few labels a class or many, here about 4;")


def test_auto_says_what_it_took_and_why_and_takes_it_again(images, tmp_path, capsys):
    out = tmp_path / "run"
    flags = toy.selftrain_flags(images, out, method="auto")
    at = flags.index("--select.threshold")
    flags = flags[:at] + flags[at + 2 :] + ["--select.threshold", "0.1"]
    assert main(["selftrain", *flags]) == 0
    notes = json.loads((out / "run.json").read_text())["stages"]["method"]
    assert notes["method"] == ["noisy-student"]
    assert "was given, which is for it" in notes["why"]
    assert f"method: noisy-student ({notes['why']})" in capsys.readouterr().err
