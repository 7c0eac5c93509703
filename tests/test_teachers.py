"""Every kind of teacher: found, put into the data's classes, and judged by the labels."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn
from toy import CLASSES, picture

from tutelage.data.pixels import InMemory
from tutelage.deploy.model_folder import Model, run_of, save_model
from tutelage.deploy.teacher_check import check_teacher, exchanged, recorded_accuracy
from tutelage.deploy.teachers import load_teacher
from tutelage.errors import UsageError
from tutelage.evaluation.accuracy import predict
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.probe import PRIOR, fit_head, held_out
from tutelage.files import write_json
from tutelage.networks.build import Net, build
from tutelage.networks.teachers import Ensemble, Reordered, Resized

SIZE = 16
NET = Net(name="test_resnet", num_classes=4, img_size=SIZE)
CPU = torch.device("cpu")


def pictures(per_class, seed):
    rng = np.random.default_rng(seed)
    labels = torch.arange(4).repeat_interleave(per_class)
    images = [np.asarray(picture(int(label), rng, SIZE)) for label in labels]
    return torch.from_numpy(np.stack(images)), labels


@pytest.fixture(scope="module")
def trained():
    """A network that knows the four classes."""
    images, labels = pictures(50, 1)
    shown = images.permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(NET, seed=0)
        optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
        for _ in range(50):
            rows = torch.randint(len(labels), (32,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(shown[rows]), labels[rows]).backward()
            optimizer.step()
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def marked():
    """Labeled images to judge teachers with."""
    images, labels = pictures(10, 2)
    return SimpleNamespace(pixels=InMemory(images), labels=labels)


def load(given, marked, classes=CLASSES, *, img_size=SIZE):
    return load_teacher(given, classes, img_size=img_size, pixels=marked.pixels,
                        labels=marked.labels, device=CPU)  # fmt: skip


def probs(module, marked):
    return predict(module, marked.pixels, SIZE)


def model_folder(folder, module, classes=CLASSES):
    save_model(folder, Model(module, NET, tuple(classes), SIZE), "")
    return folder


def weights(module):
    """Of the timm network behind its normalization."""
    return {name: tensor.clone() for name, tensor in module.net.state_dict().items()}


def with_head(module, rows):
    """Weights whose head has these rows of the module's head."""
    found = weights(module)
    return found | {key: found[key][rows].contiguous() for key in ("fc.weight", "fc.bias")}


class Answers(nn.Module):
    """Takes images in [0, 1] and answers with some of a network's outputs."""

    def __init__(self, module, order):
        super().__init__()
        self.module, self.order = module, order

    def forward(self, images):
        return self.module(images)[:, self.order]


# Folders ------------------------------------------------------------------------------------------


def test_the_trained_network_of_these_tests_is_good(trained, marked):
    assert (probs(trained, marked).argmax(-1) == marked.labels).float().mean() > 0.9


def test_a_model_folder_answers_as_the_model(trained, marked, tmp_path):
    teacher = load(str(model_folder(tmp_path / "m", trained)), marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)
    assert teacher.run is None
    assert len(teacher.notes) == 1
    assert "of the labels" in teacher.notes[0]
    assert not teacher.module.training
    assert not any(p.requires_grad for p in teacher.module.parameters())


def test_weights_and_a_path_mean_their_folder(trained, marked, tmp_path):
    folder = model_folder(tmp_path / "m", trained)
    one, other = load(str(folder / "model.safetensors"), marked), load(folder, marked)
    assert one.digest == other.digest


def test_another_class_order_is_found_by_name(trained, marked, tmp_path):
    order = [2, 0, 3, 1]
    module = build(NET)
    module.load_state_dict(trained.state_dict())
    for parameter in (module.net.fc.weight, module.net.fc.bias):
        parameter.data = parameter.data[order]
    folder = model_folder(tmp_path / "m", module, [CLASSES[i] for i in order])
    teacher = load(folder, marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-6)
    assert "by name" in teacher.notes[0]


def test_of_more_classes_those_of_the_data_are_taken_by_name(trained, marked, tmp_path):
    folder = model_folder(tmp_path / "m", trained)
    some = marked.labels != 1
    keep = some.nonzero()[:, 0]
    images = InMemory(marked.pixels.images[keep])
    names = ("vertical", "dot", "square")
    labels = torch.tensor([names.index(CLASSES[k]) for k in marked.labels[keep]])
    fewer = SimpleNamespace(pixels=images, labels=labels)
    teacher = load(folder, fewer, names)
    expected = predict(trained, images, SIZE)[:, [3, 0, 2]]
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(predict(teacher.module, images, SIZE), expected, atol=1e-5)
    assert "3 of its 4 classes, by name" in teacher.notes[0]


def test_a_class_that_the_teacher_lacks_is_named(trained, marked, tmp_path):
    folder = model_folder(tmp_path / "m", trained)
    with pytest.raises(UsageError, match="doesn't know circle, cross; it knows dot, horizontal"):
        load(folder, marked, ("circle", "cross", "dot", "square"))


def test_of_many_missing_classes_five_are_named(trained, marked, tmp_path):
    folder = model_folder(tmp_path / "m", trained)
    with pytest.raises(UsageError, match="doesn't know a, b, c, d, e and 2 more"):
        load(folder, marked, tuple("abcdefg"))


def test_a_model_of_another_size_is_asked_at_its_own(trained, marked, tmp_path):
    folder = model_folder(tmp_path / "m", trained)
    teacher = load(folder, marked, img_size=24)
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    at_its_size = nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    assert torch.allclose(teacher.module(images), trained(at_its_size), atol=1e-5)
    assert "asked at 16 pixels, not at 24" in teacher.notes


def outcome(*rounds, kept=None):
    rows = [
        {"name": name, "val": {"right": 1, "total": 2}, "test": {"right": right, "total": 40}}
        for name, right in rounds
    ]
    stages = {"evaluate": {"state": "done", "judge": "test", "rounds": rows}} | (
        {"guard": {"state": "done", "kept": kept}} if kept else {}
    )
    return {"verb": "selftrain", "stages": stages}


@pytest.fixture
def run(trained, tmp_path):
    path = tmp_path / "run"
    for part in ("model", "rounds/00-baseline", "rounds/01-student"):
        model_folder(path / part, trained)
    write_json(path / "run.json", outcome(("00-baseline", 30), ("01-student", 38)))
    return path


def test_a_run_its_model_and_its_rounds_are_teachers_and_name_the_run(run, marked):
    parts = [run, run / "model", run / "rounds" / "00-baseline",
             run / "rounds" / "01-student" / "model.safetensors"]  # fmt: skip
    for part in parts:
        assert load(str(part), marked).run == run


def test_what_a_run_noted_belongs_to_the_network_that_is_asked(run):
    kept, first = Accuracy(38, 40), Accuracy(30, 40)
    assert recorded_accuracy(run) == recorded_accuracy(run / "model") == kept
    assert recorded_accuracy(run / "rounds" / "01-student") == kept
    assert recorded_accuracy(run / "rounds" / "00-baseline") == first
    write_json(
        run / "run.json", outcome(("00-baseline", 30), ("01-student", 8), kept="00-baseline")
    )
    assert recorded_accuracy(run) == first
    passed = (("00-baseline", 30), ("01-student", 38))
    write_json(run / "run.json", outcome(*passed, kept="01-student"))
    assert recorded_accuracy(run) == kept
    write_json(run / "run.json", {"verb": "train", "stages": {}})
    assert recorded_accuracy(run) is None
    assert run_of(run.parent) is None


def test_a_run_that_was_better_than_what_is_seen_now_is_refused(run, marked):
    wrong = SimpleNamespace(pixels=marked.pixels, labels=marked.labels.clone())
    wrong.labels[::2] = (wrong.labels[::2] + torch.arange(20) % 3 + 1) % 4
    with pytest.raises(UsageError, match=r"of 40 labeled images right, and its run noted 95\.0 %"):
        load(str(run), wrong)


# timm's networks ----------------------------------------------------------------------------------


def test_a_weights_file_answers_as_the_network_that_it_is_from(trained, marked, tmp_path):
    save_file(weights(trained), tmp_path / "w.safetensors")
    teacher = load(f"test_resnet={tmp_path / 'w.safetensors'}", marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)
    assert any("have no names: taken to be dot, horizontal, square, …" in n for n in teacher.notes)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_training_scripts_file_is_unwrapped(wrapper, prefix, trained, marked, tmp_path):
    file = tmp_path / "checkpoint.pth"
    found = {prefix + name: tensor for name, tensor in weights(trained).items()}
    torch.save({wrapper: found, "epoch": 3}, file)
    teacher = load(f"test_resnet={file}", marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)


def test_a_file_of_another_network_is_refused_with_the_keys(trained, marked, tmp_path):
    found = weights(trained)
    found["stranger.weight"] = found.pop("conv1.weight" if "conv1.weight" in found else "bn1.bias")
    found["bn1.weight"] = torch.ones(3)
    save_file(found, tmp_path / "w.safetensors")
    with pytest.raises(
        UsageError, match=r"it lacks .*unknown stranger\.weight; another shape has "
    ):
        load(f"test_resnet={tmp_path / 'w.safetensors'}", marked)


class Evil:
    def __reduce__(self):
        return (print, ("code that a file wants to run",))


def test_a_file_that_holds_code_is_not_read(marked, tmp_path, capsys):
    file = tmp_path / "w.pth"
    torch.save({"state_dict": {"x": Evil()}}, file, pickle_module=pickle)
    with pytest.raises(UsageError, match="holds more than weights, and is not read"):
        load(f"test_resnet={file}", marked)
    assert "code" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_that_is_missing_or_damaged_is_said(suffix, marked, tmp_path):
    file = tmp_path / f"w.{suffix}"
    with pytest.raises(UsageError, match="there is no weights file"):
        load(f"test_resnet={file}", marked)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=r"is damaged or holds no weights|holds more than weights"):
        load(f"test_resnet={file}", marked)


def test_a_file_of_numbers_that_are_no_weights_is_said(marked, tmp_path):
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(UsageError, match="holds no weights by name"):
        load(f"test_resnet={tmp_path / 'w.pth'}", marked)


@pytest.mark.parametrize("outputs", [7, 0])
def test_a_head_that_does_not_fit_is_fitted_on_the_labels(outputs, trained, marked, tmp_path):
    if outputs:
        found = with_head(trained, torch.arange(outputs) % 4)
    else:
        found = {k: v for k, v in weights(trained).items() if not k.startswith("fc.")}
    save_file(found, tmp_path / "w.safetensors")
    one, two = (load(f"test_resnet={tmp_path / 'w.safetensors'}", marked) for _ in range(2))
    assert one.digest == two.digest
    what = "it has 7 outputs" if outputs else "it has no head"
    assert f"{what}: a linear head was fitted on its features of 40 labels" in one.notes
    images, labels = pictures(10, 3)
    right = predict(one.module, InMemory(images), SIZE).argmax(-1) == labels
    assert right.float().mean() > 0.8


def test_imagenets_names_are_known_without_being_in_the_file(trained, marked, tmp_path):
    names = timm.data.ImageNetInfo().label_names()
    rows = torch.full((1000,), 0)
    places = [700, 20, 333, 999]
    rows[places] = torch.arange(4)
    save_file(with_head(trained, rows), tmp_path / "w.safetensors")
    classes = tuple(names[place] for place in places)
    teacher = load(f"test_resnet={tmp_path / 'w.safetensors'}", marked, classes)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)
    assert "4 of its 1,000 classes, by name" in teacher.notes


def test_the_labels_choose_between_the_students_size_and_the_published_one(
    trained, marked, tmp_path
):
    """The network learned at 16 pixels, and test_resnet is published for 160."""
    save_file(weights(trained), tmp_path / "w.safetensors")
    teacher = load(f"test_resnet={tmp_path / 'w.safetensors'}", marked)
    assert not any("pixels" in note for note in teacher.notes)
    module = timm.create_model("test_resnet", num_classes=4)
    module.load_state_dict(weights(trained))
    assert not any("pixels" in note for note in load(module, marked).notes)
    module.pretrained_cfg = module.pretrained_cfg | {"input_size": (3, SIZE, SIZE)}
    images = marked.pixels.images.repeat_interleave(4, 1).repeat_interleave(4, 2)
    large = SimpleNamespace(pixels=InMemory(images), labels=marked.labels)
    assert "asked at 16 pixels, not at 64" in load(module, large, img_size=64).notes


def test_a_network_of_fixed_size_is_asked_at_its_size(marked, tmp_path):
    torch.manual_seed(0)
    module = timm.create_model("test_vit", num_classes=9)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    teacher = load(f"test_vit={tmp_path / 'w.safetensors'}", marked)
    assert "asked at 160 pixels, not at 16" in teacher.notes
    assert teacher.module(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 4)
    module = timm.create_model("test_vit", num_classes=9, img_size=32)
    save_file(module.state_dict(), tmp_path / "small.safetensors")
    teacher = load(f"test_vit={tmp_path / 'small.safetensors'}", marked, img_size=32)
    assert not any("pixels" in note for note in teacher.notes)


def test_a_hub_folder_brings_its_names(trained, marked, tmp_path):
    order = [3, 1, 0, 2]
    save_file(with_head(trained, torch.tensor(order)), tmp_path / "model.safetensors")
    config = {
        "architecture": "test_resnet", "num_classes": 4,
        "label_names": [CLASSES[i] for i in order],
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE], "mean": [0.5] * 3, "std": [0.5] * 3,
                           "num_classes": 4, "classifier": "fc", "first_conv": "conv1"},
    }  # fmt: skip
    write_json(tmp_path / "config.json", config)
    teacher = load(f"local-dir:{tmp_path}", marked)
    assert "its classes put into the data's order, by name" in teacher.notes
    assert (probs(teacher.module, marked).argmax(-1) == marked.labels).float().mean() > 0.9


def test_names_that_do_not_exist_are_said(marked):
    with pytest.raises(UsageError, match="timm has no model 'resnet81'; did you mean"):
        load("resnet81", marked)
    with pytest.raises(UsageError, match="there is no such run, model folder or round"):
        load("runs/nothing", marked)


@pytest.mark.parametrize("name", ["test_resnet", "hf-hub:nobody/nothing"])
def test_weights_that_can_not_be_had_are_said(name, marked, monkeypatch):
    def offline(*args, **more):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    with pytest.raises(UsageError, match=r"no pre-trained weights.* no route .*NAME=FILE"):
        load(name, marked)


# Modules ------------------------------------------------------------------------------------------


def test_a_module_takes_images_from_0_to_1_and_is_copied(trained, marked):
    module = Answers(trained, torch.arange(4)).train()
    teacher = load(module, marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)
    assert teacher.name == "Answers"
    assert module.training
    assert teacher.module is not module


def test_a_module_of_timm_gets_its_normalization(trained, marked):
    module = timm.create_model("test_resnet", num_classes=4)
    module.load_state_dict(weights(trained))
    teacher = load(module, marked)
    assert torch.allclose(probs(teacher.module, marked), probs(trained, marked), atol=1e-5)


def test_a_module_with_other_outputs_gets_a_head_on_them(trained, marked):
    teacher = load(Answers(trained, [0, 1, 2, 3, 3]), marked)
    assert any("5 outputs: a linear head was fitted" in note for note in teacher.notes)
    assert (probs(teacher.module, marked).argmax(-1) == marked.labels).float().mean() > 0.8


@pytest.mark.parametrize("order", [[1, 2, 3, 0], [1, 0, 3, 2]])
def test_a_module_with_all_classes_in_another_order_is_refused(order, trained, marked):
    with pytest.raises(UsageError, match="which is chance for 4 classes: check that its classes"):
        load(Answers(trained, order), marked)


def test_two_exchanged_classes_are_refused(trained, marked):
    with pytest.raises(UsageError, match="takes 2 of the 4 classes for each other throughout"):
        load(Answers(trained, [0, 1, 3, 2]), marked)


def test_a_network_that_was_never_trained_is_refused(marked):
    with pytest.raises(UsageError, match="which is chance"):
        load(build(NET, seed=5), marked)


def test_a_module_that_gives_no_logits_is_said(marked):
    with pytest.raises(UsageError, match=r"Conv2d can't be asked at 16 pixels: .*logits \(B, K\)"):
        load(nn.Conv2d(3, 4, 3), marked)
    with pytest.raises(UsageError, match="Linear can't be asked"):
        load(nn.Linear(5, 4), marked)


# The check ----------------------------------------------------------------------------------------


def verdict(right, total, classes, recorded=None):
    """The check of a teacher with that many right answers, the wrong ones spread evenly."""
    labels = torch.arange(total) % classes
    answers = labels.clone()
    wrong = torch.arange(right, total)
    answers[wrong] = (labels[wrong] + 1 + (wrong // classes) % (classes - 1)) % classes
    return check_teacher("t", torch.eye(classes)[answers], labels, recorded)


@pytest.mark.parametrize(
    ("right", "total", "classes"),
    [(10, 100, 10), (0, 40, 4), (3, 100, 10), (50, 100, 2), (10, 40, 4), (1, 5000, 1000)],
)
def test_chance_is_refused(right, total, classes):
    with pytest.raises(UsageError, match="chance"):
        verdict(right, total, classes)


@pytest.mark.parametrize(
    ("right", "total", "classes"),
    [(1, 2, 2), (3, 5, 2), (2, 6, 3), (2, 10, 10), (70, 100, 2), (25, 100, 10), (9, 1000, 1000)],
)
def test_few_labels_or_a_weak_teacher_are_no_reason_to_refuse(right, total, classes):
    assert f"{total:,} images" in verdict(right, total, classes)


def test_a_useful_teacher_is_hardly_ever_refused_and_a_guess_mostly_is():
    """Over random teachers, with 10 classes and 200 labels."""
    dice = torch.Generator().manual_seed(0)

    def refused(share):
        count = 0
        for _ in range(200):
            right = int((torch.rand(200, generator=dice) < share).sum())
            try:
                verdict(right, 200, 10)
            except UsageError:
                count += 1
        return count / 200

    assert refused(0.3) == 0
    assert refused(0.1) > 0.8


def test_three_sigmas_below_the_record_are_refused_and_two_are_not():
    record = Accuracy(900, 1000)
    assert verdict(178, 200, 10, record)
    assert verdict(200, 200, 10, record)
    assert verdict(170, 200, 10, record)  # 2.1 sigmas
    with pytest.raises(UsageError, match=r"80\.0 % of 200 .*noted 90\.0 % of 1000"):
        verdict(160, 200, 10, record)  # 4.1 sigmas


def test_exchanged_classes_are_those_in_a_circle():
    table = torch.tensor([[1, 9, 0, 0, 0], [8, 2, 0, 0, 0], [0, 0, 5, 4, 0], [0, 0, 7, 3, 0],
                          [0, 0, 0, 0, 0]])  # fmt: skip
    assert exchanged(table).tolist() == [1, 0, 2, 3, 4]
    assert exchanged(torch.eye(3).roll(1, 0)).tolist() == [2, 0, 1]


# Parts --------------------------------------------------------------------------------------------


def test_a_head_is_the_logistic_regression_of_scikit_learn():
    dice = torch.Generator().manual_seed(0)
    found = torch.randn(60, 7, generator=dice) * torch.arange(1, 8) + 5
    labels = torch.randint(3, (60,), generator=dice)
    head = fit_head(found, labels, 3)
    x = found.double()
    x = (x - x.mean(0)) / x.std(0, unbiased=False) / 7**0.5
    oracle = LogisticRegression(C=1 / PRIOR, tol=1e-10, max_iter=10_000).fit(
        x.numpy(), labels.numpy()
    )
    expected = torch.from_numpy(oracle.predict_proba(x.numpy())).float()
    assert torch.allclose(head(found).softmax(-1), expected, atol=1e-4)


def test_a_head_does_not_depend_on_the_features_scale_or_on_constant_ones():
    dice = torch.Generator().manual_seed(0)
    found, labels = torch.randn(40, 5, generator=dice), torch.arange(40) % 4
    one = fit_head(found, labels, 4)(found)
    other = 100 * found + 3
    assert torch.allclose(fit_head(other, labels, 4)(other), one, atol=1e-3)
    still = torch.cat([found, torch.ones(40, 1)], 1)
    assert torch.isfinite(fit_head(still, labels, 4)(still)).all()


def test_held_out_answers_know_nothing_of_their_labels():
    """On features without meaning a fitted head is right, and held-out answers are a guess."""
    dice = torch.Generator().manual_seed(0)
    found, labels = torch.randn(90, 100, generator=dice), torch.arange(90) % 3
    fitted = fit_head(found, labels, 3)(found).argmax(-1) == labels
    probs, rows = held_out(found, labels, 3)
    assert fitted.float().mean() > 0.9
    assert (probs.argmax(-1) == labels[rows]).float().mean() < 0.5
    assert sorted(rows.tolist()) == list(range(90))
    probs, rows = held_out(found[:4], torch.tensor([0, 1, 1, 2]), 3)
    assert sorted(rows.tolist()) == [1, 2]
    assert held_out(found[:3], torch.arange(3), 3)[0].shape == (0, 3)


def test_one_label_a_class_is_enough_for_a_head(trained, tmp_path):
    images, labels = pictures(1, 4)
    save_file(with_head(trained, torch.arange(7) % 4), tmp_path / "w.safetensors")
    one = SimpleNamespace(pixels=InMemory(images), labels=labels)
    teacher = load(f"test_resnet={tmp_path / 'w.safetensors'}", one)
    assert "too few labels to judge it" in teacher.notes


class Says(nn.Module):
    def __init__(self, *logits):
        super().__init__()
        self.register_buffer("logits", torch.tensor([logits]))

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_an_ensemble_is_the_mean_of_probabilities_or_of_logits():
    one, other, images = Says(4.0, 0.0, -2.0), Says(-1.0, 3.0, 0.0), torch.zeros(2, 3, 4, 4)
    expected = (one(images).softmax(-1) + other(images).softmax(-1)) / 2
    assert torch.allclose(Ensemble([one, other])(images).softmax(-1), expected, atol=1e-6)
    found = Ensemble([one, other], over="logits")(images)
    assert torch.allclose(found, (one(images) + other(images)) / 2)


@pytest.mark.parametrize("over", ["probs", "logits"])
def test_an_ensemble_of_equals_is_one_of_them(over):
    one, images = Says(4.0, 0.0, -2.0), torch.zeros(2, 3, 4, 4)
    found = Ensemble([one, one, one], over=over)(images).softmax(-1)
    assert torch.allclose(found, one(images).softmax(-1), atol=1e-6)


def test_the_order_of_classes_is_part_of_a_teachers_digest(trained, marked):
    first = load(Reordered(trained, [0, 1, 2, 3]), marked)
    fewer = SimpleNamespace(pixels=marked.pixels, labels=torch.tensor([1, 0, 2, 3])[marked.labels])
    second = load(Reordered(trained, [1, 0, 2, 3]), fewer)
    assert first.digest != second.digest


def test_images_of_the_right_size_are_passed_on_untouched():
    class Same(nn.Module):
        def forward(self, images):
            return images

    images = torch.rand(2, 3, 8, 8)
    assert Resized(Same(), 8)(images) is images
    assert Resized(Same(), 4)(images).shape == (2, 3, 4, 4)
