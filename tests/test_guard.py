"""The guard gives up on a student that leads nowhere, and keeps the baseline."""

import json

import pytest
import torch
import toy
from torch import nn

from tutelage.catalog import make, names
from tutelage.cli import main
from tutelage.data.pixels import InMemory
from tutelage.errors import GivenUp
from tutelage.pipelines import selftrain as selftrain_module
from tutelage.pipelines.guard import Watch, advice, effective_classes, exam_for, watch
from tutelage.pipelines.prepare import Prepared
from tutelage.progress import Screen
from tutelage.settings import Optim
from tutelage.verbs import selftrain
from tutelage.weights import MIDDLE


def test_effective_classes_count_the_classes_that_matter():
    assert effective_classes(torch.arange(40) % 4, 4) == pytest.approx(4)
    assert effective_classes(torch.zeros(40, dtype=torch.int64), 4) == pytest.approx(1)
    mostly_one = torch.tensor([0] * 97 + [1, 2, 3])
    assert 1 < effective_classes(mostly_one, 4) < 1.3


class Says(nn.Module):
    """Answers a class by the brightness of the image, or always the first."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        bright = (images.mean((1, 2, 3)) * 3.999).long() % self.classes
        return nn.functional.one_hot(bright, 4).float()


@pytest.fixture
def watched():
    """A pool in which a sound network finds four classes alike, and a recipe's few facts."""
    return Watch(shades([0, 1, 2, 3] * 16), expected=4.0)


class Facts:
    """The parts of a recipe and of prepared data that an exam reads."""

    class net:
        img_size = 8

    precision = "fp32"
    method = make("fixmatch", ("threshold=0.8",))


class Labels:
    """The part of a data set that an exam and a watch read."""

    classes = tuple("abcd")

    def __init__(self, labels):
        self.labels = torch.tensor(labels)

    def __len__(self):
        return len(self.labels)

    def label_tensor(self):
        return self.labels


def shades(which):
    """Images of four classes, told by their brightness."""
    bright = (torch.tensor(which) * 70 + 20).to(torch.uint8)
    return InMemory(bright[:, None, None, None].expand(len(which), 8, 8, 3).contiguous())


def prepared_with(**parts):
    prepared = Prepared({}, 8, torch.device("cpu"), Screen())
    prepared.parts = {name: Labels(which) for name, which in parts.items()}
    prepared.opened = {(name, 8): shades(which) for name, which in parts.items()}
    return prepared


def exam_of(watched, *, steps=1000, gathered=1, **parts):
    facts = type("Short", (Facts,), {"steps": steps, "optim": Optim(accumulate=gathered)})
    return exam_for(facts, prepared_with(labeled=[0, 1, 2, 3], **parts), watched)


def test_answers_that_collapse_end_the_training_but_not_at_its_beginning(watched):
    look = exam_of(watched)
    assert look(Says(4), 0.9)["classes"] == pytest.approx(4)
    assert look(Says(1), 0.1)["classes"] == pytest.approx(1)
    for early in (exam_of(watched, steps=20), exam_of(watched, gathered=8)):
        assert early(Says(1), 0.9)["classes"] == pytest.approx(1)
    with pytest.raises(GivenUp, match=r"collapsed into 1\.0 classes on 64 pool images"):
        look(Says(1), 0.9)


def test_a_pool_of_few_classes_is_no_collapse_where_validation_images_speak_against_it():
    poor = Watch(shades([0] * 61 + [1, 2, 3]), expected=4.0)  # which a poor baseline answered
    look = exam_of(poor, val=[0, 1, 2, 3] * 4)
    assert look(Says(4), 0.9)["classes"] < 1.5
    with pytest.raises(GivenUp, match="collapsed into"):
        look(Says(1), 0.9)
    with pytest.raises(GivenUp, match="collapsed into"):
        exam_of(poor)(Says(4), 0.9)  # nothing else tells


def test_without_a_baseline_as_many_classes_are_expected_as_so_many_labels_have():
    many = prepared_with(labeled=list(range(2000)), pool=[0, 1, 2, 3] * 200, val=[0, 1])
    for part in many.parts.values():
        part.classes = tuple(map(str, range(2000)))
    expected = watch(many, None, None, seed=0).expected
    assert 400 < expected < 512  # of 512 labels that are drawn, some twice
    del many.parts["val"]
    assert watch(many, None, None, seed=0).expected is None
    look = exam_of(Watch(shades([0] * 64), None))
    assert look(Says(1), 0.9)["classes"] == pytest.approx(1)


def test_advice_names_what_the_method_has(watched):
    look = exam_of(watched)
    with pytest.raises(GivenUp, match=r"threshold=, now 0\.8\), .*--options weight=") as caught:
        look(Says(1), 0.9)
    assert "--select" not in str(caught.value)
    stored = advice(make("noisy-student"))
    assert "--select.threshold" in stored
    assert "--weight, now 1" in stored
    assert "--options" not in stored
    for name in names():
        assert ("--options threshold=" in advice(make(name))) == ("threshold" in vars(make(name)))


def test_nothing_to_look_at_is_no_exam():
    assert exam_of(None) is None


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"), labeled=8, pool=40)


def flags(images, out, **more):
    found = toy.selftrain_flags(images, out, **{"method": "fixmatch", "rounds": 1} | more)
    at = found.index("--select.threshold")
    return found[:at] + found[at + 2 :]


def test_a_student_without_a_finite_loss_ends_the_run_with_the_baseline(images, tmp_path, capsys):
    out = tmp_path / "run"
    wild = [*flags(images, out), "--options", "threshold=0", "weight=1e38"]
    assert main(["selftrain", *wild]) == 0
    said = capsys.readouterr().out
    assert "gave up on 01-student: the loss became" in said
    assert "00-baseline is kept" in said
    content = json.loads((out / "run.json").read_text())
    assert content["state"] == "done"
    assert [row["name"] for row in content["stages"]["evaluate"]["rounds"]] == ["00-baseline"]
    baseline = out / "rounds" / "00-baseline" / "model.safetensors"
    assert (out / "model" / "model.safetensors").read_bytes() == baseline.read_bytes()
    before = baseline.stat().st_mtime_ns
    assert main(["selftrain", *wild]) == 0  # again: nothing is trained, the reason is told
    assert "gave up on 01-student" in capsys.readouterr().out
    assert baseline.stat().st_mtime_ns == before
    (baseline.parent / MIDDLE).unlink()  # which no student asks for any more
    (out / "model" / "model.safetensors").write_bytes(b"damaged")
    assert main(["selftrain", *wild]) == 0
    assert baseline.stat().st_mtime_ns == before
    assert (out / "model" / "model.safetensors").read_bytes() == baseline.read_bytes()


def test_a_round_that_passed_and_was_damaged_is_made_again_after_the_guard_gave_up(
    images, tmp_path, monkeypatch
):
    real = selftrain_module.check_against

    def check_against(baseline, student, run, prepared):
        if student.name == "02-student":
            raise GivenUp("it leads nowhere")
        real(baseline, student, run, prepared)

    monkeypatch.setattr(selftrain_module, "check_against", check_against)
    out = tmp_path / "run"
    asked = toy.selftrain_flags(images, out, **{"select.threshold": 0})
    assert main(["selftrain", *asked]) == 0
    assert json.loads((out / "run.json").read_text())["stages"]["guard"]["kept"] == "01-student"
    weights = [out / part / "model.safetensors" for part in ("rounds/01-student", "model")]
    before = [file.read_bytes() for file in weights]
    for file in (*weights, out / "rounds" / "01-student" / "last.pt"):
        file.write_bytes(b"damaged")
    assert main(["selftrain", *asked]) == 0
    assert [file.read_bytes() for file in weights] == before


def test_a_student_below_its_baseline_on_validation_images_is_not_kept(images, tmp_path):
    asked = {
        "data": images / "labeled", "unlabeled": images / "pool", "test": images / "test",
        "val": images / "test", "model": "test_resnet", "img_size": 16, "batch": 8, "ratio": 2,
        "out": tmp_path / "run", "device": "cpu",
    }  # fmt: skip
    (tmp_path / "other").mkdir()
    other = toy.write_toy(tmp_path / "other" / "toy", labeled=8, pool=40, test=40, seed=3)
    asked |= {"val": other / "test", "steps": 40, "baseline_length": "steps"}
    outcome = selftrain(
        **asked, method="fixmatch", options=("threshold=0", "weight=30"), optim={"ema": 0.9}
    )
    baseline, *students = outcome.content["stages"]["evaluate"]["rounds"]
    guard = outcome.content["stages"].get("guard")
    assert guard is not None, (baseline["val"], [student["val"] for student in students])
    kept = tmp_path / "run" / "model" / "model.safetensors"
    first = tmp_path / "run" / "rounds" / "00-baseline" / "model.safetensors"
    assert kept.read_bytes() == first.read_bytes()


def test_a_student_as_good_as_its_baseline_passes(images, tmp_path):
    content = selftrain(
        data=images / "labeled", unlabeled=images / "pool", val=images / "test", img_size=16,
        model="test_resnet", method="fixmatch", steps=4, batch=8, ratio=2, device="cpu",
        baseline_length="steps",
        out=tmp_path / "run",
    ).content  # fmt: skip
    assert "guard" not in content["stages"]
    names = [row["name"] for row in content["stages"]["evaluate"]["rounds"]]
    assert names == ["00-baseline", "01-student"]
    lines = (tmp_path / "run" / "rounds" / "01-student" / "metrics.jsonl").read_text()
    assert 1 <= json.loads(lines.splitlines()[-1])["classes"] <= 4
