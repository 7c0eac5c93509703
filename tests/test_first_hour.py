"""What a new user meets first: a wrong path, a run folder taken, output that is cut or long."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console

from tutelage.cli import main
from tutelage.data.issues import Issue
from tutelage.deploy.model_folder import load_model
from tutelage.deploy.predict import find_images
from tutelage.errors import RunMismatch, UsageError
from tutelage.files import write_json
from tutelage.jobs import SelftrainSettings, TrainSettings
from tutelage.reports.check_table import show
from tutelage.run import content_of, read_run
from tutelage.training_settings import seconds


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "tutelage", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_lacks_a_sign_for_is_written_as_an_escape(tmp_path, encoding):
    folder = tmp_path / "K\u00e4tzchen \u732b"
    folder.mkdir()
    for words in (
        ["check", "--data", str(folder), "--out", str(tmp_path)],
        ["label", "--help"],
        ["methods"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tutelage", *words], capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        )  # fmt: skip
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 3)
        if words[0] == "check":
            assert rb"\u732b" in done.stderr


def test_a_folder_that_is_not_there_is_answered_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labeled").mkdir()
    assert main(["check", "--data", "labled"]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"no folder or file labled in {tmp_path}; did you mean labeled?\n")
    assert main(["check", "--data", "xyzq"]) == 2
    assert "docs/data.md" in capsys.readouterr().err


def test_images_without_class_folders_are_perhaps_those_of_the_pool(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pool" / "a.png")
    assert main(["check", "--data", "pool"]) == 3
    assert "are --data and --unlabeled swapped?" in capsys.readouterr().err


def run_json(path, settings, stages):
    path.mkdir()
    asked = content_of(path, "train", settings)
    write_json(path / "run.json", asked | {"stages": {name: {"state": "done"} for name in stages}})


def test_a_folder_that_another_verb_has_begun_nothing_in_is_free(tmp_path):
    settings = {"data": "a", "model": "resnet18"}
    train = TrainSettings(**settings, out=tmp_path / "run")
    selftrain = SelftrainSettings(**settings, unlabeled="b", out=tmp_path / "run")
    run_json(tmp_path / "run", train, ["check"])
    assert content_of(tmp_path / "run", "selftrain", selftrain)["verb"] == "selftrain"
    run_json(tmp_path / "begun", train, ["check", "00-supervised"])
    with pytest.raises(RunMismatch, match="is a run of `train`"):
        content_of(tmp_path / "begun", "selftrain", selftrain)


def test_a_path_without_images_says_why(tmp_path):
    (tmp_path / "pool").mkdir()
    with pytest.raises(UsageError, match=r"the folder .*pool has no images, at any depth: .*\.png"):
        find_images([str(tmp_path / "pool")])
    with pytest.raises(UsageError, match=r"no image matches .*\*\.pgn"):
        find_images([str(tmp_path / "*.pgn")])
    with pytest.raises(UsageError, match=r"there is no file or folder .*pol; did you mean pool"):
        find_images([str(tmp_path / "pol")])


def test_what_is_no_run_or_model_says_what_to_give(tmp_path):
    with pytest.raises(UsageError, match="no such folder; give what was the --out of a training"):
        read_run(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no such folder; give a finished run"):
        load_model(tmp_path / "nothing")


def test_a_budget_that_is_none_is_named():
    for text in ("1x", "0s"):
        with pytest.raises(UsageError, match=f"budget '{text}' .*write 90s, 20m or 1h30m"):
            seconds(text)


def test_a_note_of_a_check_is_told_to_its_end_in_80_columns():
    detail = "a long way to say what was found " * 4 + "at last"
    out = io.StringIO()
    show([Issue("note", "other files", "pool", "x", detail)], Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert "at last" in out.getvalue()
    assert "…" not in out.getvalue()
    assert max(map(len, lines)) <= 80


def test_more_students_than_rounds_are_answered_with_what_to_set():
    with pytest.raises(UsageError, match="name fewer, or set --rounds 3"):
        SelftrainSettings(
            data="a", unlabeled="b", model="c", out="d", method=("noisy-student",),
            students=("x", "y", "z"),
        )  # fmt: skip
