"""The command as a user meets it: verbs, wrong input, and what comes out."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toy
import yaml
from PIL import Image

import tutelage
from tutelage import cli
from tutelage.cli import VERBS, main
from tutelage.pipelines import plan
from tutelage.pipelines.plan import StepTime


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert main(["selftrain", *toy.selftrain_flags(images, out)]) == 0
    return out


@pytest.fixture
def own(images, tmp_path):
    """A copy of the images that a test may spoil."""
    return shutil.copytree(images, tmp_path / "own")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def selftrain(images, out, **more):
    return main(["selftrain", *toy.selftrain_flags(images, out, **more)])


def test_the_run_folder_is_as_designed(run):
    for name in (
        "run.json", "config.yaml", "environment.json", "data/manifest.parquet",
        "data/classes.json", "data/issues.csv", "rounds/00-baseline/metrics.jsonl",
        "rounds/02-student/model.safetensors", "rounds/02-student/predictions-test.parquet",
        "labels/01-student.parquet", "labels/02-student/part-00000.parquet",
        "model/model.safetensors", "model/config.json", "model/README.md", "report/index.html",
        "logs/log.txt",
    ):  # fmt: skip
        assert (run / name).exists(), name
    assert not list(run.rglob("*.part"))
    content = json.loads((run / "run.json").read_text())
    assert content["state"] == "done"
    assert content["stages"]["evaluate"]["judge"] == "test"
    assert "unlabeled images" in content["stages"]["evaluate"]["verdict"]["sentence"] or (
        "no gain shown" in content["stages"]["evaluate"]["verdict"]["sentence"]
    )


def test_the_resolved_config_has_no_auto_left_but_in_select(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("img_size", "steps", "device", "precision"):
        assert config[name] != "auto", name


def test_a_config_file_reproduces_the_run(run, images, tmp_path):
    again = tmp_path / "again"
    config = run / "config.yaml"
    assert main(["selftrain", "--config", str(config), "--out", str(again)]) == 0
    one, other = (r / "model" / "model.safetensors" for r in (run, again))
    assert one.read_bytes() == other.read_bytes()


def test_predict_writes_csv_with_the_models_class_names(run, images, tmp_path, capsys):
    out = tmp_path / "preds.csv"
    assert main(["predict", str(run), str(images / "test"), "--out", str(out), "--top", "2"]) == 0
    rows = table(out)
    assert len(rows) == 24
    assert list(rows[0]) == ["path", "label", "confidence", "label_2", "probability_2"]
    assert {row["label"] for row in rows} <= set(toy.CLASSES)
    assert all(float(row["confidence"]) >= float(row["probability_2"]) for row in rows)


def test_predict_works_on_a_model_folder_alone(run, images, tmp_path, capsys):
    shutil.copytree(run / "model", tmp_path / "model")
    assert main(["predict", str(tmp_path / "model"), str(images / "test" / "dot" / "0.png")]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:3] == ["path", "label", "confidence"]
    assert row.split("\t")[1] in toy.CLASSES


def test_evaluate_agrees_with_the_run(run, images, capsys):
    assert main(["evaluate", str(run), "--data", str(images / "test")]) == 0
    said = capsys.readouterr().out
    rows = json.loads((run / "run.json").read_text())["stages"]["evaluate"]["rounds"]
    share = rows[-1]["test"]["right"] / rows[-1]["test"]["total"]
    assert f"accuracy {share:.1%}".replace("%", " %") in said
    assert all(name in said for name in toy.CLASSES)


def test_label_writes_parts_that_are_not_made_again(run, images, tmp_path):
    out = tmp_path / "labels"
    arguments = ["label", "--model", str(run), "--data", str(images / "pool"), "--out", str(out)]
    assert main(arguments) == 0
    part = out / "part-00000.parquet"
    before = part.stat().st_mtime_ns
    assert main(arguments) == 0
    assert part.stat().st_mtime_ns == before


def test_report_can_be_written_again(run, capsys):
    page = run / "report" / "index.html"
    before = page.read_bytes()
    assert main(["report", str(run)]) == 0
    assert page.read_bytes() == before


def test_train_learns_from_labels_alone(images, tmp_path):
    outcome = tutelage.train(
        data=str(images / "labeled"), test=str(images / "test"), model="test_vit", img_size=32,
        steps=4, batch=8, out=tmp_path / "run", val_fraction=0.25,
    )  # fmt: skip
    assert outcome.verdict is None
    assert outcome.content["stages"]["check"]["images"] == {"labeled": 12, "test": 24, "val": 4}
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_the_verdict_is_spoken_on_validation_images_where_there_is_no_test(images, tmp_path):
    outcome = tutelage.selftrain(
        data=str(images / "labeled"), unlabeled=str(images / "pool"), model="test_resnet",
        img_size=16, steps=4, rounds=1, batch=8, ratio=1, val_fraction=0.5,
        select={"threshold": 0.0}, out=tmp_path / "run",
    )  # fmt: skip
    assert "8 validation images" in outcome.verdict["sentence"]


def test_a_run_can_teach_and_students_may_differ(images, tmp_path):
    out, run = tmp_path / "run", tmp_path / "teacher"
    tutelage.train(
        data=images / "labeled", model="test_resnet", img_size=16, steps=40, batch=8,
        val_fraction=0, out=run,
    )  # fmt: skip
    flags = {"teacher": run, "rounds": 1, "model": "test_efficientnet"}
    assert selftrain(images, out, **flags) == 0
    names = sorted(path.name for path in (out / "rounds").iterdir())
    assert names == ["00-baseline", "01-student"]
    stages = json.loads((out / "run.json").read_text())["stages"]
    assert stages["01-labels"]["teacher"] == str(run)
    given = tmp_path / "given"
    more = ["--students", "test_resnet", "test_efficientnet"]
    assert main(["selftrain", *toy.selftrain_flags(images, given), *more]) == 0
    names = sorted(path.name for path in (given / "rounds").iterdir())
    assert names == ["00-baseline", "01-teacher", "02-student", "03-student"]


def test_a_budget_is_planned_once_and_kept(images, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "step_time", lambda recipe, prepared, teacher: StepTime(0.1))
    out = tmp_path / "run"
    flags = toy.selftrain_flags(images, out, budget="24s", rounds=1)
    at = flags.index("--steps")
    del flags[at : at + 2]
    assert main(["selftrain", *flags]) == 0
    content = json.loads((out / "run.json").read_text())
    steps = content["stages"]["plan"]["steps"]
    assert 20 <= steps <= 0.95 * 24 / (0.1 + 6 * 0.1)  # a student's step, and six of the baseline
    assert yaml.safe_load((out / "config.yaml").read_text())["steps"] == steps
    assert content["stages"]["plan"]["step_seconds"] == {"00-baseline": 0.1, "01-student": 0.1}


def test_a_budget_that_is_too_small_says_what_it_takes(images, tmp_path, capsys):
    flags = toy.selftrain_flags(images, tmp_path / "run", budget="0.5s")
    at = flags.index("--steps")
    del flags[at : at + 2]
    assert main(["selftrain", *flags]) == 2
    assert "give at least" in capsys.readouterr().err


# Wrong input: the exit code, what the message names, and that nothing was trained.


def refused(code, out, capsys, *words):
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert not (out / "rounds").exists()
    return code


def test_an_unknown_model_gets_the_nearest_names(images, tmp_path, capsys):
    out = tmp_path / "run"
    code = selftrain(images, out, model="resnet19")
    assert refused(code, out, capsys, "'resnet19'", "resnet18", "tutelage models") == 2


def test_an_image_size_that_the_network_cannot_take_names_one_that_it_can(images, tmp_path, capsys):
    out = tmp_path / "run"
    code = selftrain(images, out, model="crossvit_9_240", **{"img-size": 64})
    assert refused(code, out, capsys, "64 pixels", "--img-size 240") == 2


def test_a_refused_command_does_not_bind_the_run_folder(images, tmp_path):
    out = tmp_path / "run"
    assert selftrain(images, out, model="resnet19") == 2
    assert selftrain(images, out, rounds=1) == 0


def test_an_unknown_verb_gets_the_nearest_one(capsys):
    assert main(["selftrian"]) == 2
    assert "did you mean selftrain" in capsys.readouterr().err


def test_an_unknown_flag_gets_the_nearest_one(images, tmp_path, capsys):
    assert selftrain(images, tmp_path / "run", rouds=3) == 2
    assert "there is no flag --rouds, see tutelage selftrain --help; did you mean --rounds" in (
        capsys.readouterr().err
    )


def test_an_unknown_setting_gets_the_nearest_one(images, tmp_path):
    with pytest.raises(tutelage.errors.UsageError, match="did you mean rounds"):
        tutelage.selftrain(data="a", unlabeled="b", model="c", out="d", ronds=2)
    file = tmp_path / "config.yaml"
    file.write_text("noise:\n  magnitud: 3\n")
    assert main(["selftrain", "--config", str(file)]) == 2


def test_a_missing_folder_gets_the_nearest_name(images, tmp_path, capsys):
    out = tmp_path / "run"
    code = selftrain(images, out, data=images / "labelled")
    assert refused(code, out, capsys, "labelled", "did you mean labeled") == 2


def test_many_unreadable_images_are_fatal_and_listed(own, tmp_path, capsys):
    (own / "labeled" / "dot" / "0.png").write_bytes(b"no image")
    out = tmp_path / "run"
    code = selftrain(own, out)
    assert refused(code, out, capsys, "1 of 16 images can't be read", "dot/0.png") == 3
    rows = table(out / "data" / "issues.csv")
    assert any(row["kind"] == "unreadable" and "dot/0.png" in row["path"] for row in rows)


def test_few_unreadable_images_are_dropped_and_listed(own, tmp_path, capsys):
    for i in range(100):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(own / "pool" / f"more{i}.png")
    whole = (own / "pool" / "000.png").read_bytes()
    (own / "pool" / "000.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "run"
    assert selftrain(own, out, rounds=1) == 0
    rows = table(out / "data" / "issues.csv")
    assert [row["severity"] for row in rows if "000.png" in row["path"]] == ["dropped"]
    assert json.loads((out / "run.json").read_text())["stages"]["check"]["images"]["pool"] == 139


def test_pool_images_that_are_test_images_are_taken_out(own, tmp_path):
    Image.open(own / "test" / "dot" / "0.png").save(own / "pool" / "leak.bmp")
    out = tmp_path / "run"
    assert selftrain(own, out, rounds=1) == 0
    assert json.loads((out / "run.json").read_text())["stages"]["check"]["images"]["pool"] == 40
    assert "leak.bmp" in (out / "data" / "issues.csv").read_text()


def test_a_class_of_the_test_alone_is_refused(own, tmp_path, capsys):
    (own / "test" / "dot").rename(own / "test" / "dots")
    out = tmp_path / "run"
    assert refused(selftrain(own, out), out, capsys, "'dots'", "did you mean dot") == 3


def test_an_empty_class_folder_is_refused(own, tmp_path, capsys):
    (own / "labeled" / "circle").mkdir()
    out = tmp_path / "run"
    assert refused(selftrain(own, out), out, capsys, "circle has no images") == 3


def test_an_empty_pool_is_refused(own, tmp_path, capsys):
    shutil.rmtree(own / "pool")
    (own / "pool").mkdir()
    (own / "pool" / "notes.txt").write_text("no image")
    out = tmp_path / "run"
    assert refused(selftrain(own, out), out, capsys, "has no images") == 3


def test_too_few_labels_for_the_split_are_refused(own, tmp_path, capsys):
    for i in (1, 2, 3):
        (own / "labeled" / "dot" / f"{i}.png").unlink()
    out = tmp_path / "run"
    code = selftrain(own, out, **{"val-fraction": 0.2})
    assert refused(code, out, capsys, "'dot' has 1 usable", "--val-fraction 0") == 3


def test_no_selection_says_how_sure_the_teacher_was(images, tmp_path, capsys):
    assert selftrain(images, tmp_path / "run", **{"select.threshold": 1.0}) == 3
    assert "the teacher's surest answer is " in capsys.readouterr().err


def test_a_folder_with_other_things_is_no_run_folder(images, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert selftrain(images, tmp_path) == 2
    assert "notes.txt" in capsys.readouterr().err


def test_an_empty_selection_can_be_mended_without_training_the_baseline_again(images, tmp_path):
    out = tmp_path / "run"
    assert selftrain(images, out, rounds=1, **{"select.threshold": 1.0}) == 3
    weights = out / "rounds" / "00-baseline" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert selftrain(images, out, rounds=1, **{"select.threshold": 0.1}) == 0
    assert weights.stat().st_mtime_ns == before


def test_a_teacher_that_has_seen_the_judging_images_is_refused(images, run, tmp_path, capsys):
    out = tmp_path / "run"
    flags = toy.selftrain_flags(images, out, teacher=run, test=images / "labeled")
    flags[flags.index(str(images / "labeled"))] = str(images / "test")
    assert main(["selftrain", *flags]) == 2
    assert "trained on 16 of the images that would judge it" in capsys.readouterr().err


def test_copies_of_a_labeled_image_stay_on_one_side_of_the_split(own, tmp_path):
    for name in toy.CLASSES:
        for path in list((own / "labeled" / name).iterdir()):
            shutil.copy(path, path.with_stem(path.stem + "-copy"))
    out = tmp_path / "run"
    assert selftrain(own, out, rounds=1, **{"val-fraction": 0.5}) == 0
    manifest = pq.read_table(out / "data" / "manifest.parquet").to_pydict()
    contents = {part: set() for part in ("labeled", "val", "pool", "test")}
    for part, content in zip(manifest["part"], manifest["content"], strict=True):
        contents[part].add(content)
    assert len(contents["val"]) == 8
    assert not contents["val"] & contents["labeled"]


def test_an_image_under_two_classes_is_left_out_and_said(own, tmp_path):
    shutil.copy(own / "labeled" / "dot" / "0.png", own / "labeled" / "square" / "twin.png")
    out = tmp_path / "run"
    assert selftrain(own, out, rounds=1) == 0
    rows = [row for row in table(out / "data" / "issues.csv") if row["kind"] == "two classes"]
    assert [row["detail"] for row in rows] == ["the same pixels are labeled dot and square"] * 2


def test_overwrite_leaves_a_folder_alone_that_is_no_run(images, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    flags = toy.selftrain_flags(images, tmp_path / "mine")
    assert main(["selftrain", *flags, "--overwrite"]) == 2
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_overwrite_takes_a_folder_that_a_check_wrote_to(images, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in (".lock", "issues.csv"):
        (out / name).touch()
    assert main(["selftrain", *toy.selftrain_flags(images, out, rounds=1), "--overwrite"]) == 0


def test_options_that_would_do_nothing_are_refused(images, tmp_path, capsys):
    out = tmp_path / "run"
    assert selftrain(images, out, pool_targets="hard", temperature=0.5) == 2
    assert "--temperature is for --pool-targets soft" in capsys.readouterr().err


def test_a_run_without_anything_to_judge_on_is_refused(images, tmp_path, capsys):
    out = tmp_path / "run"
    flags = toy.selftrain_flags(images, out)
    at = flags.index("--test")
    code = main(["selftrain", *flags[:at], *flags[at + 2 :]])
    assert refused(code, out, capsys, "--val-fraction above 0") == 2


def test_paths_may_be_text_in_python(run, images, tmp_path):
    out = str(tmp_path / "p.parquet")
    found = tutelage.predict(str(run), str(images / "test" / "dot" / "0.png"), out=out)
    assert len(found.paths) == 1
    assert tutelage.load_model(str(run)).classes == toy.CLASSES
    tutelage.check(str(images / "labeled"), unlabeled=str(images / "pool"), out=str(tmp_path))
    tutelage.evaluate(str(run), data=str(images / "test"))


def test_overwrite_moves_the_old_run_aside(images, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    assert main(["selftrain", *toy.selftrain_flags(images, out, rounds=1), "--overwrite"]) == 0
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("run.old-")]
    assert len(aside) == 1
    assert (aside[0] / "rounds" / "02-student").exists()


def test_a_finished_run_is_told_again_also_without_the_files_of_its_rounds(
    images, run, tmp_path, capsys
):
    out = shutil.copytree(run, tmp_path / "run")
    flags = toy.selftrain_flags(images, out)
    assert main(["selftrain", *flags]) == 0
    said = capsys.readouterr().out
    shutil.rmtree(out / "rounds" / "00-baseline")
    assert main(["selftrain", *flags]) == 0
    assert capsys.readouterr().out == said


def test_smoothing_is_for_methods_that_have_it(images, tmp_path, capsys):
    flags = toy.train_settings(
        images, tmp_path / "run", unlabeled=images / "pool", method="fixmatch", smoothing=0.2
    )
    asked = [part for k, v in flags.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    assert main(["train", *asked]) == 2
    assert "--smoothing: fixmatch smooths no labels" in capsys.readouterr().err


def test_a_changed_image_stops_a_run_that_goes_on(own, tmp_path, capsys):
    out = tmp_path / "run"
    assert selftrain(own, out, rounds=1) == 0
    toy.picture(0, np.random.default_rng(9)).save(own / "pool" / "003.png")
    assert selftrain(own, out, rounds=1) == 3
    assert "003.png has changed" in capsys.readouterr().err


def test_a_second_process_is_refused(images, run, capsys):
    import fcntl

    with (run / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert selftrain(images, run) == 2
    assert "another process" in capsys.readouterr().err


def test_check_writes_issues_and_stops_with_3(own, tmp_path, capsys):
    out = tmp_path / "out"
    folders = ["--data", str(own / "labeled"), "--unlabeled", str(own / "pool")]
    assert main(["check", *folders, "--out", str(out)]) == 0
    (own / "labeled" / "Dot").mkdir()
    assert main(["check", *folders, "--out", str(out)]) == 3
    assert "differ in case only" in (out / "issues.csv").read_text()


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert f"Example: tutelage {verb}" in " ".join(capsys.readouterr().out.split())
    assert getattr(tutelage, {"methods": "list_methods"}.get(verb, verb)).__doc__


def test_models_lists_names_and_suggests(capsys):
    assert main(["models", "densenet12*"]) == 0
    assert "densenet121" in capsys.readouterr().out.splitlines()
    assert main(["models", "resnte50"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_noise_of_the_network_is_on_where_it_can_be(images, tmp_path, capsys):
    from tutelage.networks.build import takes

    assert takes("test_resnet", "drop_path_rate")
    assert not takes("vgg11", "drop_path_rate")
    out = tmp_path / "run"
    given = {"noise.drop-path": 0.2, "model": "vgg11", "img-size": 32}
    assert refused(selftrain(images, out, **given), out, capsys, "take --noise.drop-path") == 2


SIGNALLED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where tests run in the background
sys.path.insert(0, {folder!r})
from tutelage import cli
def importing(verb, arguments):
    import slow
    time.sleep(20)
cli._call = importing
code = cli.main(["train", "--out", "run"])
print(code, sys.modules["slow"].ready)
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_that_comes_during_an_import_waits_for_its_end(tmp_path, number):
    (tmp_path / "slow.py").write_text(
        f"import signal, time\nsignal.raise_signal(signal.{number})\n"
        "time.sleep(0.1)\nready = True\n"
    )
    code = SIGNALLED.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "4 True\n", done.stderr
    assert done.stderr == "stopped\nto go on: tutelage train --out run\n"


@pytest.mark.parametrize("error", [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
])  # fmt: skip
def test_a_lack_of_memory_is_said_in_words(monkeypatch, capsys, error):
    def call(verb, arguments):
        raise error

    monkeypatch.setattr(cli, "_call", call)
    assert main(["train"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tutelage train: out of memory (")
    assert "run the same command again" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "words", ["shapes differ", "CUDA error: an illegal memory access was encountered"]
)
def test_an_error_of_our_own_code_is_not_taken_for_a_lack_of_memory(monkeypatch, words):
    def call(verb, arguments):
        raise RuntimeError(words)

    monkeypatch.setattr(cli, "_call", call)
    with pytest.raises(RuntimeError, match=words):
        main(["train"])
