"""A student that begins as the baseline was halfway: when, from which weights, and after damage."""

import json

import pytest
import torch
import toy
from safetensors.torch import load_file

from tutelage.cli import main
from tutelage.pipelines import rounds
from tutelage.pipelines.halfway import HALFWAY, keeping


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy.write_toy(tmp_path_factory.mktemp("toy"))


def words_of(images, out, **flags):
    words = toy.selftrain_flags(
        images, out, **{"method": "flexmatch", "rounds": 1, "steps": 4} | flags
    )
    if flags.get("method") != "noisy-student":  # which alone selects
        at = words.index("--select.threshold")
        del words[at : at + 2]
    return words


def selftrain(images, out, **flags):
    assert main(["selftrain", *words_of(images, out, **flags)]) == 0
    return json.loads((out / "run.json").read_text())


def recorded(monkeypatch):
    """The networks that students begin as, in the order of the trainings."""
    begun, real = [], rounds._student_of
    monkeypatch.setattr(
        rounds, "_student_of", lambda *given: begun.append(real(*given)) or begun[-1]
    )
    return begun


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["flexmatch", "noisy-student"])
def test_a_student_begins_as_the_baseline_was_halfway(method, images, tmp_path, monkeypatch):
    begun, out = recorded(monkeypatch), tmp_path / "run"
    selftrain(images, out, method=method)
    kept = load_file(out / "rounds" / "00-baseline" / HALFWAY)
    ready = load_file(out / "rounds" / "00-baseline" / "model.safetensors")
    assert begun[0] is None
    assert same(begun[1].state_dict(), kept)
    assert not same(kept, ready)


def test_both_see_as_many_images(images, tmp_path, capsys):
    selftrain(images, tmp_path / "run")
    assert "beginning as 00-baseline halfway" in capsys.readouterr().err
    baseline, student = (
        json.loads(
            (tmp_path / "run" / "rounds" / name / "metrics.jsonl").read_text().split("\n")[0]
        )
        for name in ("00-baseline", "01-student")
    )
    views = 1 + 2 * 2  # of a step of FlexMatch for each labeled image: two of each pool image
    assert student["total"] == 4
    assert baseline["total"] == baseline["total"] / 2 + student["total"] * views


def test_the_weights_are_those_at_the_first_look_from_the_middle_on(tmp_path):
    looks = []
    exam = keeping(lambda module, done: looks.append(done) or {"seen": done}, tmp_path)
    for done in (0.4, 0.55, 1.0):
        net = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(net.weight, done)
        assert exam(net, done) == {"seen": done}
    assert looks == [0.4, 0.55, 1.0]
    assert load_file(tmp_path / HALFWAY)["weight"].item() == pytest.approx(0.55)
    assert keeping(None, tmp_path)(torch.nn.Linear(1, 1), 0.1) == {}


@pytest.mark.parametrize(
    "flags",
    [
        {"student-init": "scratch"},
        {"baseline-length": "steps"},
        {"method": "meta-pseudo-labels"},
        {"method": "noisy-student", "order": "pretrain"},
        {"method": "noisy-student", "student-init": "teacher"},
    ],
    ids=lambda flags: " ".join(flags.values()),
)
def test_others_do_not(flags, images, tmp_path, capsys):
    selftrain(images, tmp_path / "run", **flags)
    assert "halfway" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "rounds" / "00-baseline" / HALFWAY).exists()


def test_given_weights_are_begun_with_unless_it_is_asked_for(images, tmp_path, capsys):
    selftrain(images, tmp_path / "first", **{"student-init": "scratch"})
    init = {"init": tmp_path / "first" / "rounds" / "00-baseline"}
    capsys.readouterr()
    selftrain(images, tmp_path / "usual", **init)
    assert "halfway" not in capsys.readouterr().err
    selftrain(images, tmp_path / "asked", **init, **{"student-init": "baseline"})
    assert "beginning as 00-baseline halfway" in capsys.readouterr().err


def test_a_student_of_another_network_begins_anew(images, tmp_path, monkeypatch):
    begun, out = recorded(monkeypatch), tmp_path / "run"
    flags = toy.selftrain_flags(images, out, steps=3)
    students = ["--students", "test_resnet", "test_efficientnet"]
    assert main(["selftrain", *flags, *students]) == 0
    baseline, teacher, first, second = begun
    assert baseline is teacher is first is None
    assert same(second.state_dict(), load_file(out / "rounds" / "00-baseline" / HALFWAY))


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_the_baseline_is_trained_again_where_its_weights_of_halfway_are(
    harm, images, tmp_path, capsys
):
    out, whole = tmp_path / "run", tmp_path / "whole"
    selftrain(images, whole)
    selftrain(images, out)
    content = json.loads((out / "run.json").read_text())
    for stage in ("01-student", "evaluate", "model", "report"):
        del content["stages"][stage]
    (out / "run.json").write_text(json.dumps(content | {"state": "interrupted"}))
    for file in (out / "rounds" / "01-student").iterdir():
        file.unlink()
    kept = out / "rounds" / "00-baseline" / HALFWAY
    before = kept.read_bytes()
    if harm == "gone":
        kept.unlink()
    else:
        kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    capsys.readouterr()
    selftrain(images, out)
    assert "00-baseline is made again" in capsys.readouterr().err
    assert kept.read_bytes() == before
    assert same(*(load_file(run / "model" / "model.safetensors") for run in (out, whole)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"method": "meta-pseudo-labels", "student-init": "baseline"}, "warm-up of its own"),
        ({"student-init": "baseline", "baseline-length": "steps"}, "--baseline-length images"),
        ({"method": "flexmatch", "student-init": "teacher"}, "--student-init is for noisy-student"),
    ],
)
def test_what_can_not_be_is_said_before_images_are_read(flags, words, images, tmp_path, capsys):
    assert main(["selftrain", *words_of(images, tmp_path / "run", **flags)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "rounds").exists()
