"""Beginning with given weights: which are kept, by class name, which learn, and where they lie."""

import json
import signal
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starts
import timm
import torch
import toy
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

import tutelage
from tutelage.core import Clock, Stage
from tutelage.data.decode import decode
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.sets import LabeledSet
from tutelage.deploy.model_folder import Model, save_model
from tutelage.deploy.teacher_sources import from_folder
from tutelage.errors import RunMismatch, UsageError
from tutelage.evaluation.probe import can_fit, fit_classifier, fit_head
from tutelage.jobs import TrainSettings
from tutelage.learner import Learner, modes
from tutelage.loop import fit
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net, build, weight_digest
from tutelage.networks.freeze import Freeze, freeze, groups_of, head_names, last_norm
from tutelage.networks.pretrained import WEIGHTS, create_pretrained, local_file
from tutelage.pipelines.transfer import begin_as, open_source
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim

CLASSES = ("ant", "bee", "cat")
HEAD = ("net.fc.weight", "net.fc.bias")
CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path, tiny) -> Path:
    """A model folder with three classes."""
    save_model(tmp_path / "source", Model(build(tiny, seed=7), tiny, CLASSES, 32), "a card")
    return tmp_path / "source"


def begun(source, tiny, classes, seed=0):
    net = replace(tiny, num_classes=len(classes))
    found = from_folder(source, "source", CPU)
    return begin_as(found, net, classes, seed=seed, where="source")


def trunk(module):
    return {k: v for k, v in module.state_dict().items() if k not in HEAD}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def test_the_same_classes_in_another_order_keep_their_rows(source, tiny):
    made = begun(source, tiny, ("cat", "ant", "bee"))
    old, new = build(tiny, seed=7).state_dict(), made.module.state_dict()
    for key in HEAD:
        assert torch.equal(new[key], old[key][[2, 0, 1]])
    assert same(trunk(made.module), trunk(build(tiny, seed=7)))
    assert made.note.endswith("classes: 3 of 3 kept by name and put into the data's order")


def test_classes_that_both_know_are_kept_and_the_others_are_new(source, tiny):
    wanted = ("bee", "dog", "cat", "eel")
    made = begun(source, tiny, wanted, seed=3)
    old = build(tiny, seed=7).state_dict()
    new, fresh = made.module.state_dict(), build(replace(tiny, num_classes=4), seed=3).state_dict()
    for key in HEAD:
        assert torch.equal(new[key][[0, 2]], old[key][[1, 2]])
        assert torch.equal(new[key][[1, 3]], fresh[key][[1, 3]])
    assert made.note.endswith("classes: 2 of 4 kept by name, 2 new (dog, eel)")


def test_without_a_common_class_the_classifier_is_new(source, tiny):
    made = begun(source, tiny, ("x", "y"), seed=3)
    fresh = build(replace(tiny, num_classes=2), seed=3).state_dict()
    assert all(torch.equal(made.module.state_dict()[key], fresh[key]) for key in HEAD)
    assert same(trunk(made.module), trunk(build(tiny, seed=7)))
    assert made.note.endswith("classes: all 2 new, fitted on the labels")
    assert made.fitted
    assert not begun(source, tiny, ("x", "bee")).fitted


def test_a_network_that_does_not_fit_is_refused_with_tensor_and_shapes(source, tiny):
    found = from_folder(source, "source", CPU)
    wide = Net(name="test_convnext", num_classes=3, img_size=32)
    with pytest.raises(
        UsageError, match=r"another network than test_convnext: it lacks \S+ of sha"
    ):
        begin_as(found, wide, CLASSES, seed=0, where="source")
    state = found.module.net.layer2[0].bn1
    state.weight = nn.Parameter(torch.ones(5))
    with pytest.raises(
        UsageError, match=r"layer2\.0\.bn1\.weight has shape \(5,\) there and \(48,\)"
    ):
        begin_as(found, tiny, CLASSES, seed=0, where="source")


def test_a_transformer_is_put_to_the_new_image_size(tmp_path):
    old = Net(name="test_vit", num_classes=3, img_size=64)
    save_model(tmp_path / "vit", Model(build(old, seed=7), old, CLASSES, 64), "a card")
    found = from_folder(tmp_path / "vit", "vit", CPU)
    digest = weight_digest(found.module)
    made = begin_as(found, replace(old, img_size=32), CLASSES, seed=0, where="vit").module
    assert weight_digest(found.module) == digest
    before, after = build(old, seed=7).state_dict(), made.state_dict()
    assert before["net.pos_embed"].shape[1] > after["net.pos_embed"].shape[1]
    for key in before.keys() - {"net.pos_embed"}:
        assert torch.equal(before[key], after[key])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_weights_file_is_read_whoever_wrote_it(tmp_path, tiny, suffix):
    module = build(tiny, seed=7)
    for name, state in (("ours", module.state_dict()), ("timms", module.net.state_dict())):
        file = tmp_path / f"{name}.{suffix}"
        (save_file if suffix == "safetensors" else torch.save)(state, file)
        made = begin_as(open_source(str(file), tiny.name, 32), tiny, CLASSES, seed=0, where="w")
        assert same(made.module.state_dict(), module.state_dict())
        assert "all 3 kept in the data's order, as the file names none" in made.note


def test_a_source_that_is_not_there_is_said():
    with pytest.raises(UsageError, match="--init nothing: there is no such run, model folder, rou"):
        open_source("nothing", "test_resnet", 32)


# Freezing -----------------------------------------------------------------------------------------


def learned(module, how, steps=3, **optim):
    """Names of all that some steps of training change; the average too must agree on them."""
    net = deepcopy(module)
    freeze(net, how)
    learner = Learner(net, Optim(name="sgd", lr=0.1, **optim))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for step in range(steps):
        loss = nn.functional.cross_entropy(learner(images), torch.arange(8) % 3)
        learner.minimize(loss, Clock(step, steps))
    slow = learner.average.state_dict()
    moved = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert {key for key, value in slow.items() if not value.equal(before[key])} == moved
    return moved


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_probe_changes_the_classifier_alone(tiny, weight_decay):
    module = build(replace(tiny, dropout=0.5, drop_path=0.5))
    assert learned(module, Freeze(part="body"), weight_decay=weight_decay) == set(HEAD)


def test_a_frozen_stem_keeps_its_weights_and_statistics(tiny):
    module = build(tiny)
    moved = learned(module, Freeze(part="stem", groups=2))
    first = {name for group in (0, 1) for name in groups_of(module)[group]}
    shallow = ("net.conv1.", "net.bn1.", "net.layer1.")
    assert first == {n for n, _ in module.named_parameters() if n.startswith(shallow)}
    deep = {k for k in module.state_dict() if not k.startswith(shallow)}
    assert moved == deep - {"mean", "std"}


@pytest.mark.parametrize("count", [0, 6, 9])
def test_a_stem_of_all_groups_or_none_is_refused(tiny, count):
    with pytest.raises(UsageError, match="ResNet has 6, of which the last has the classifier"):
        freeze(build(tiny), Freeze(part="stem", groups=count))


@pytest.mark.parametrize(
    ("name", "norm", "head"),
    [
        ("test_resnet", "net.layer4.0.bn2", ("net.fc",)),  # a shortcut's norm is registered later
        ("resnet18", "net.layer4.1.bn2", ("net.fc",)),
        ("resnet50", "net.layer4.2.bn3", ("net.fc",)),  # the one that the FixRes code names
        ("test_efficientnet", "net.bn2", ("net.classifier",)),
        ("test_convnext", None, ("net.head.fc",)),
    ],
)
def test_the_last_norm_and_the_classifier_are_found(name, norm, head):
    module = build(Net(name=name, num_classes=3, img_size=32))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert (last_norm(module), head_names(module)) == (norm, head)
    assert module.training
    assert same(module.state_dict(), before)


def test_frozen_layers_rest_whatever_mode_is_asked(tiny):
    module = build(tiny)
    freeze(module, Freeze(part="body"))
    for one in (module.train(), deepcopy(module).eval().train()):
        assert one.training
        assert not one.net.layer1.training
        assert not one.net.layer4[0].bn2.training
        with modes(one, noise=True, statistics=True):
            assert not any(m.training for m in one.modules() if isinstance(m, nn.BatchNorm2d))
        assert one.net.training


def probe_recipe(tiny, steps=6):
    return Recipe(
        net=tiny, method=Supervised(), optim=Optim(name="sgd", lr=0.1), noise=Noise(), batch=4,
        stages=(Stage(steps=steps, size=32, magnitude=5.0),), freeze=Freeze(part="body"),
    )  # fmt: skip


def test_a_stopped_probe_goes_on_bit_for_bit(tiny, tmp_path, monkeypatch):
    recipe = probe_recipe(tiny)
    images = torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8)
    labeled = LabeledSet(InMemory(images), torch.arange(9) % 3, 3)

    def batches():
        return Batches(
            labeled, None, stages=recipe.stages, views=("strong", ()), batch=4, ratio=0,
            noise=recipe.noise, seed=0,
        )  # fmt: skip

    calm = fit(recipe, batches(), tmp_path / "calm", device=CPU)
    real, seen = Batches.at, []

    def stumbling(self, step):
        seen.append(step)
        if len(seen) == 4:
            raise OSError("the cable")
        return real(self, step)

    monkeypatch.setattr("tutelage.loop.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Batches, "at", stumbling)
    with pytest.raises(OSError, match="the cable"):
        fit(recipe, batches(), tmp_path / "stopped", device=CPU)
    again = fit(recipe, batches(), tmp_path / "stopped", device=CPU)
    assert seen[4] == 3
    assert same(again.state_dict(), calm.state_dict())
    fresh = build(tiny, seed=recipe.seed)
    assert same(trunk(again), trunk(fresh))


# Weights on this machine --------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """An empty folder for pre-trained weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS, str(folder))
    return folder


@pytest.mark.parametrize(
    "file", ["test_resnet.r160_in1k.safetensors", "test_resnet.safetensors", "test_resnet.pth"]
)
def test_weights_in_the_folder_are_taken(weights, file):
    torch.manual_seed(5)
    made = timm.create_model("test_resnet").state_dict()
    (save_file if file.endswith("safetensors") else torch.save)(made, weights / file)
    found = create_pretrained("test_resnet")
    assert same(found.state_dict(), made)
    net = Net(name="test_resnet", num_classes=3, img_size=32)
    found = open_source("pretrained", "test_resnet", 32)
    begun = begin_as(found, net, CLASSES, seed=1, where="pretrained").module.state_dict()
    assert all(torch.equal(begun[f"net.{key}"], made[key]) for key in made if "fc." not in key)


def test_a_pretrained_transformer_is_put_to_the_image_size_as_timm_does_it(weights):
    made = timm.create_model("test_vit").state_dict()
    save_file(made, weights / "test_vit.safetensors")
    net = Net(name="test_vit", num_classes=3, img_size=32)
    found = open_source("pretrained", "test_vit", 32)
    begun = begin_as(found, net, CLASSES, seed=1, where="pretrained")
    timms = create_pretrained("test_vit", img_size=32).state_dict()
    ours = begun.module.state_dict()
    assert all(torch.equal(ours[f"net.{key}"], timms[key]) for key in timms if "head." not in key)
    assert made["pos_embed"].shape != begun.module.state_dict()["net.pos_embed"].shape


def test_a_tag_that_is_named_takes_its_own_file_alone(weights):
    (weights / "resnet18.safetensors").touch()
    assert local_file("resnet18").name == "resnet18.safetensors"
    assert local_file("resnet18.a1_in1k") is None
    (weights / "resnet18.a1_in1k.bin").touch()
    assert local_file("resnet18.a1_in1k").name == "resnet18.a1_in1k.bin"
    assert local_file("resnet18").name == "resnet18.a1_in1k.bin"


def test_a_file_of_another_network_or_with_code_in_it_is_refused(weights, capsys):
    save_file(timm.create_model("test_vit").state_dict(), weights / "test_resnet.safetensors")
    with pytest.raises(UsageError, match=r"test_resnet\.safetensors is damaged, .* of test_resnet"):
        create_pretrained("test_resnet")
    torch.save({"x": Evil()}, weights / "test_vit.pth")
    with pytest.raises(UsageError, match=r"test_vit\.pth is damaged, holds more than weights"):
        create_pretrained("test_vit")
    assert "code" not in capsys.readouterr().out


class Evil:
    def __reduce__(self):
        return (print, ("code that a file wants to run",))


def test_without_a_network_the_file_its_page_folder_and_name_are_said(weights, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UsageError) as caught:
        create_pretrained("resnet10t")
    text = str(caught.value)
    assert "127.0.0.1 can't be reached" in text
    assert "download model.safetensors from https://huggingface.co/timm/resnet10t.c3_in1k" in text
    assert f"save it as {weights}/resnet10t.c3_in1k.safetensors" in text
    assert f"set {WEIGHTS}={weights}" in text


def test_a_folder_that_is_missing_and_a_network_without_weights_are_said(monkeypatch, tmp_path):
    monkeypatch.delenv(WEIGHTS, raising=False)
    with pytest.raises(
        UsageError, match="timm has no pre-trained weights for cspresnet50d; `tutel"
    ):
        create_pretrained("cspresnet50d")
    monkeypatch.setenv(WEIGHTS, str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="which is no folder"):
        create_pretrained("resnet18")


# Runs ---------------------------------------------------------------------------------------------


asked = toy.train_settings


def test_pretrained_is_init_pretrained_and_its_file_binds_the_run(images, tmp_path, weights):
    torch.manual_seed(5)
    made = timm.create_model("test_resnet").state_dict()
    save_file(made, weights / "test_resnet.safetensors")
    one, other = tmp_path / "one", tmp_path / "other"
    tutelage.train(**asked(images, one, pretrained=True, transfer="probe"))
    tutelage.train(**asked(images, other, init="pretrained", transfer="probe"))
    assert same(toy.weights_of(one, "00-supervised"), toy.weights_of(other, "00-supervised"))
    kept = toy.weights_of(one, "00-supervised")
    assert all(torch.equal(kept[f"net.{key}"], made[key]) for key in made if "fc." not in key)
    (one / "rounds" / "00-supervised" / "model.safetensors").unlink()
    content = json.loads((one / "run.json").read_text())
    for stage in ("00-supervised", "evaluate", "model"):
        del content["stages"][stage]
    (one / "run.json").write_text(json.dumps(content))
    save_file(timm.create_model("test_resnet").state_dict(), weights / "test_resnet.safetensors")
    with pytest.raises(RunMismatch, match="weights of --init pretrained have changed"):
        tutelage.train(**asked(images, one, pretrained=True, transfer="probe"))


def test_self_training_begins_with_the_weights_of_a_run(images, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    tutelage.train(**asked(images, run))
    rate = {"optim": {"lr": 0.0, "ema": None, "weight_decay": 0.0}}
    more = asked(images, out, unlabeled=images / "pool", method="fixmatch", init=str(run), ratio=1)
    tutelage.selftrain(**more | rate)
    said = capsys.readouterr().err
    assert f"begins as {run}: all weights of the trunk kept; classes: 4 of 4 kept by name" in said
    learned = {key for key, _ in build(Net(name="test_resnet", num_classes=4, img_size=16))
               .named_parameters()}  # fmt: skip
    before = toy.weights_of(run, "00-supervised")
    for name in ("00-baseline", "01-student"):
        after = toy.weights_of(out, name)
        assert all(torch.equal(before[key], after[key]) for key in learned)


def test_a_stem_that_there_is_not_is_said_before_images_are_read(tmp_path):
    wrong = {"pretrained": True, "transfer": "frozen-stem", "freeze": 9}
    with pytest.raises(UsageError, match="give --freeze 1 to 5"):
        tutelage.train(data=str(tmp_path / "none"), model="resnet18", out=tmp_path / "run", **wrong)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_weights_that_have_seen_the_judging_images_are_refused(images, tmp_path):
    tutelage.train(**asked(images, tmp_path / "run", data=images / "test", test=images / "labeled"))
    with pytest.raises(
        UsageError, match=r"--init .* was trained on 24 of the images that would judge"
    ):
        tutelage.train(**asked(images, tmp_path / "out", init=str(tmp_path / "run")))


def test_weights_that_have_learned_the_validation_images_are_refused(images, tmp_path):
    """They would calibrate the model, and it would be too sure of itself."""
    run, other = tmp_path / "run", toy.write_toy(tmp_path / "other", test=8, seed=7)
    tutelage.train(**asked(images, run))
    parts = {"data": images / "test", "test": other / "test", "val": images / "labeled"}
    with pytest.raises(UsageError, match=r"--init .* was trained on 16 of the validation images"):
        tutelage.train(**asked(images, tmp_path / "out", init=str(run), **parts))


@pytest.mark.parametrize(
    "wrong",
    [
        {"transfer": "probe"},
        {"pretrained": True, "freeze": 2},
        {"pretrained": True, "init": "run"},
        {"pretrained": True, "transfer": "frozen-stem", "freeze": 0},
        {"batch_norm": "frozen"},
        {"pretrained": True, "sync_bn": True},
        {"pretrained": True, "optim": Optim(ema_buffers="recalibrate")},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(UsageError):
        TrainSettings(**{"data": "d", "model": "m", "out": Path("o")} | wrong)


@pytest.fixture
def stranger(tmp_path, tiny) -> Path:
    """A model folder with classes that nobody else has."""
    net = replace(tiny, num_classes=4)
    classes = ("u", "v", "w", "x")
    save_model(tmp_path / "stranger", Model(build(net, seed=7), net, classes, 32), "a card")
    return tmp_path / "stranger"


def at_start(images, out, source, **more):
    """Weights after one step that changes nothing but what isn't learned."""
    still = {"optim": {"lr": 0.0, "ema": None, "weight_decay": 0.0}, "steps": 1}
    tutelage.train(**asked(images, out, init=str(source), **still) | more)
    return toy.weights_of(out, "00-supervised")


def test_a_new_classifier_is_fitted_on_the_labels_before_the_training(images, tmp_path, stranger):
    found = at_start(images, tmp_path / "out", stranger)
    files = sorted((images / "labeled").glob("*/*.png"))
    shown = torch.from_numpy(np.stack([decode(file.read_bytes(), 16) for file in files]))
    labels = torch.tensor([toy.CLASSES.index(file.parent.name) for file in files])
    module = tutelage.load_model(stranger).module
    module.net.fc = nn.Identity()
    head = fit_head(module(shown.permute(0, 3, 1, 2) / 255), labels, 4)
    assert torch.allclose(head.weight, found["net.fc.weight"], atol=1e-3)
    assert torch.allclose(head.bias, found["net.fc.bias"], atol=1e-3)


@pytest.mark.parametrize("name", ["dla46x_c", "test_convnext"])  # a convolution, and a linear layer
def test_a_classifier_of_any_kind_is_fitted_to_what_it_is_asked(name):
    net = Net(name=name, num_classes=3, img_size=32)
    module, labels = build(net, seed=0), torch.arange(12) % 3
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (12, 32, 32, 3), dtype=torch.uint8, generator=dice)
    images[torch.arange(12), :, labels * 8] += 120  # a bar, at another place for each class
    before = deepcopy(module).eval()
    made = fit_classifier(module, InMemory(images), labels, net)
    assert module.training
    assert can_fit(module, 3)
    assert not can_fit(module, 2_000)
    assert {key.removesuffix(".weight").removesuffix(".bias") for key in made} == set(
        head_names(module)
    )
    assert not module.load_state_dict(made, strict=False).unexpected_keys
    shown = images.permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        answers = [one.eval()(shown).argmax(-1).eq(labels).sum() for one in (before, module)]
    assert answers[1] > answers[0]


def test_all_rounds_share_one_fit(images, tmp_path, stranger, monkeypatch):
    fits = []

    def counted(*given):
        fits.append(given)
        return fit_classifier(*given)

    monkeypatch.setattr("tutelage.pipelines.transfer.fit_classifier", counted)
    more = {"unlabeled": images / "pool", "method": "fixmatch", "ratio": 1, "init": str(stranger)}
    tutelage.selftrain(**asked(images, tmp_path / "out", **more))
    assert (tmp_path / "out" / "rounds" / "01-student").exists()
    assert len(fits) == 1


def test_pretrained_is_no_folder_of_that_name(images, tmp_path, weights, monkeypatch):
    save_file(timm.create_model("test_resnet").state_dict(), weights / "test_resnet.safetensors")
    monkeypatch.chdir(tmp_path)
    more = {"img_size": "auto", "steps": 1, "pretrained": True}
    tutelage.train(**asked(images, Path("pretrained"), **more))
    found = json.loads(Path("pretrained/model/config.json").read_text())
    assert found["net"]["img_size"] == 160


def test_statistics_of_batch_norm_stay_as_given_weights_have_them(images, tmp_path, stranger):
    before = tutelage.load_model(stranger).module.state_dict()
    statistics = [key for key in before if "running" in key]
    for how, kept in (("auto", True), ("frozen", True), ("moving", False)):
        after = at_start(images, tmp_path / how, stranger, batch_norm=how)
        assert {torch.equal(after[key], before[key]) for key in statistics} == {kept}


def test_given_weights_are_trained_by_adamw_at_a_small_rate():
    def chosen(name="auto", *, batch_norm=True, pretrained=True):
        made = Optim(name=name).resolved(batch_norm=batch_norm, pretrained=pretrained)
        return made.name, made.lr

    assert chosen() == ("adamw", 3e-4)
    assert chosen(batch_norm=False) == ("adamw", 1e-4)
    assert chosen("sgd") == ("sgd", 0.003)
    assert chosen(pretrained=False) == ("sgd", 0.1)


def test_size_and_first_layers_are_those_that_given_weights_know(images, tmp_path, weights, capsys):
    def config(out):
        return json.loads((tmp_path / out / "model" / "config.json").read_text())["net"]

    save_file(timm.create_model("test_resnet").state_dict(), weights / "test_resnet.safetensors")
    free = {"img_size": "auto", "steps": 1}
    tutelage.train(**asked(images, tmp_path / "new", **free))
    tutelage.train(**asked(images, tmp_path / "published", pretrained=True, **free))
    assert "are shown at 160 px, as given weights know larger ones" in capsys.readouterr().err
    for init in ("new", "published"):
        more = {"init": str(tmp_path / init), **free}
        tutelage.train(**asked(images, tmp_path / f"of-{init}", **more))
    sizes = {one: config(one)["img_size"] for one in ("new", "published", "of-new", "of-published")}
    assert sizes == {"new": 32, "published": 160, "of-new": 32, "of-published": 160}
    assert config("new")["small_stem"]
    assert config("of-new")["small_stem"]
    more = {"init": str(tmp_path / "new"), "img_size": 64, "steps": 1}
    tutelage.train(**asked(images, tmp_path / "larger", **more))
    assert config("larger")["small_stem"]
    assert config("larger")["stem_size"] == 32
    assert not config("published")["small_stem"]
    assert not config("of-published")["small_stem"]


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["probe", "full"])
def test_given_weights_go_on_where_the_training_was_killed(images, tmp_path, stranger, transfer):
    def given(out):
        more = {"init": str(stranger), "transfer": transfer, "fix_size": 24, "fix_share": 0.2}
        return asked(images, out, steps=10, **more)

    calm, out = tmp_path / "calm", tmp_path / "killed"
    pairs = [(f"--{key.replace('_', '-')}", str(value)) for key, value in given(out).items()]
    flags = ["train", *(part for pair in pairs for part in pair)]
    for stage, number in (("00-supervised", 4), ("01-fix", 2)):
        killed = starts.run(starts.KILLER, stage, number, *flags)
        assert killed.returncode == -signal.SIGKILL, f"{stage} {number}: {killed.stderr}"
    for path in (calm, out):
        tutelage.train(**given(path))
    names = ("00-supervised", "01-fix")
    assert all(same(toy.weights_of(calm, name), toy.weights_of(out, name)) for name in names)
    begin, after = tutelage.load_model(stranger).module, toy.weights_of(calm, names[0])
    moved = {key for key, value in begin.state_dict().items() if not torch.equal(value, after[key])}
    own = {key for key in after if "running" in key or key.endswith("tracked")}
    assert moved == (set(HEAD) if transfer == "probe" else set(after) - own - {"mean", "std"})
