"""A student that begins as the baseline was halfway: when, from which weights, and after damage."""

import json
import math
from dataclasses import replace

import pytest
import torch
import toy
from safetensors.torch import load_file

import tutelage
from tutelage import loop
from tutelage.cli import main
from tutelage.core import Stage
from tutelage.errors import UsageError
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net
from tutelage.pipelines import rounds
from tutelage.pipelines.transfer import open_source
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.weights import MIDDLE, WEIGHTS


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


def toy_recipe(steps):
    return Recipe(
        net=Net(name="test_resnet", num_classes=3, img_size=16),
        method=Supervised(),
        stages=(Stage(steps=steps, size=16, magnitude=0.0),),
        optim=Optim(lr=0.1),
        noise=Noise(),
        batch=4,
    )


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["flexmatch", "noisy-student"])
def test_a_student_begins_as_the_baseline_was_halfway(method, images, tmp_path, monkeypatch):
    begun, out = recorded(monkeypatch), tmp_path / "run"
    selftrain(images, out, method=method)
    kept = load_file(out / "rounds" / "00-baseline" / MIDDLE)
    ready = load_file(out / "rounds" / "00-baseline" / "model.safetensors")
    assert begun[0] is None
    assert same(begun[1].state_dict(), kept)
    assert not same(kept, ready)


def test_the_weights_of_halfway_are_those_that_its_path_names(images, tmp_path):
    selftrain(images, tmp_path / "run")
    for name in (MIDDLE, WEIGHTS):
        file = tmp_path / "run" / "rounds" / "00-baseline" / name
        found = open_source(str(file), "test_resnet", 16)
        assert same(found.module.state_dict(), load_file(file))
        assert found.classes == toy.CLASSES
        assert found.stem_size == 16  # as the network of the round has it, not timm's


def test_the_weights_of_halfway_have_seen_what_their_run_has(images, tmp_path):
    selftrain(images, tmp_path / "run")
    seen = {"data": images / "test", "test": images / "labeled"}
    given = tmp_path / "run" / "rounds" / "00-baseline" / MIDDLE
    with pytest.raises(UsageError, match="was trained on 16 of the images that would judge it"):
        tutelage.train(**toy.train_settings(images, tmp_path / "out", **seen, init=str(given)))


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


@pytest.mark.parametrize("steps", range(1, 60))
def test_halfway_is_half_of_the_steps_rounded_up(steps):
    assert toy_recipe(steps).middle == math.ceil(steps / 2)


def test_halfway_is_half_of_the_images_where_batches_change():
    stages = tuple(Stage(steps=4, size=16, magnitude=0.0, batch=batch) for batch in (8, 4, 4))
    assert replace(toy_recipe(12), stages=stages).middle == 4  # 32 of 64 images


def test_the_network_is_kept_exactly_then_and_no_other_look_is_taken(images, tmp_path, monkeypatch):
    """Seven steps are 42 of the baseline, whose tenths don't meet its middle."""
    seen, real = [], loop._graduate

    def graduate(work, state, *, done):
        seen.append((work.out.name, done))
        return real(work, state, done=done)

    monkeypatch.setattr(loop, "_graduate", graduate)
    selftrain(images, tmp_path / "run", steps=7, ratio=1)
    assert seen[:2] == [("00-baseline", 21), ("00-baseline", 42)]


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
    assert not (tmp_path / "run" / "rounds" / "00-baseline" / MIDDLE).exists()


def test_given_weights_are_begun_with_unless_it_is_asked_for(images, tmp_path, capsys):
    selftrain(images, tmp_path / "first", **{"student-init": "scratch"})
    init = {"init": tmp_path / "first" / "rounds" / "00-baseline"}
    capsys.readouterr()
    selftrain(images, tmp_path / "usual", **init)
    assert "halfway" not in capsys.readouterr().err
    selftrain(images, tmp_path / "asked", **init, **{"student-init": "baseline"})
    assert "beginning as 00-baseline halfway" in capsys.readouterr().err


def test_students_of_several_networks_begin_anew(images, tmp_path, capsys, monkeypatch):
    begun, out = recorded(monkeypatch), tmp_path / "run"
    flags = toy.selftrain_flags(images, out, steps=3)
    students = ["--students", "test_resnet", "test_efficientnet"]
    assert main(["selftrain", *flags, *students]) == 0
    assert begun == [None] * 4  # baseline, teacher, two students


@pytest.mark.parametrize("method", ["noisy-student", "auto"])
def test_one_baseline_is_not_halfway_to_several_networks(method, images, tmp_path, capsys):
    words = words_of(images, tmp_path / "run", **{"method": method, "student-init": "baseline"})
    at = words.index("--rounds")
    words = [*words[:at], *words[at + 2 :], "--students", "test_resnet", "test_efficientnet"]
    assert main(["selftrain", *words]) == 2
    said = capsys.readouterr().err
    assert "students are test_resnet and test_efficientnet; leave it out" in said
    assert not (tmp_path / "run" / "rounds").exists()


def without_student(out):
    """A run as if it had been killed before its student's first checkpoint."""
    content = json.loads((out / "run.json").read_text())
    for stage in ("01-student", "evaluate", "model", "report"):
        content["stages"].pop(stage, None)
    (out / "run.json").write_text(json.dumps(content | {"state": "interrupted"}))
    for file in (out / "rounds" / "01-student").iterdir():
        file.unlink()


def lose(kept, harm):
    if harm == "gone":
        kept.unlink()
    else:
        data = kept.read_bytes()
        kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("harm", ["damaged", "gone"])
@pytest.mark.parametrize("state", ["done", "past its middle", "without its weights"])
def test_a_baseline_past_its_middle_begins_anew_where_the_weights_of_then_are_lost(
    state, harm, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)  # so that there are two checkpoints
    out, whole = tmp_path / "run", tmp_path / "whole"
    selftrain(images, whole)
    selftrain(images, out)
    without_student(out)
    baseline = out / "rounds" / "00-baseline"
    assert (baseline / "before.pt").exists()
    if state != "done":
        (baseline / "model.safetensors").unlink()
    if state == "past its middle":
        content = json.loads((out / "run.json").read_text())
        content["stages"]["00-baseline"]["state"] = "running"
        (out / "run.json").write_text(json.dumps(content))
    kept = baseline / MIDDLE
    before = kept.read_bytes()
    lose(kept, harm)
    capsys.readouterr()
    selftrain(images, out)
    said = capsys.readouterr().err
    assert "00-baseline is made again" in said
    assert "goes on after step" not in said
    assert kept.read_bytes() == before
    assert same(*(load_file(run / "model" / "model.safetensors") for run in (out, whole)))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"method": "meta-pseudo-labels", "student-init": "baseline"}, "the teacher of meta-ps"),
        ({"method": "reduced-meta-pseudo-labels", "student-init": "baseline"}, "teacher of redu"),
        ({"student-init": "baseline", "init": "some", "wise": 0.8}, "draws networks towards"),
        ({"student-init": "baseline", "baseline-length": "steps"}, "--baseline-length images"),
        ({"method": "flexmatch", "student-init": "teacher"}, "--student-init is for noisy-student"),
    ],
)
def test_what_can_not_be_is_said_before_images_are_read(flags, words, images, tmp_path, capsys):
    assert main(["selftrain", *words_of(images, tmp_path / "run", **flags)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "rounds").exists()
