"""What a new user meets first: a wrong path, a run folder taken, output that is cut or long."""

import io
import os
import subprocess
import sys

import pytest
from PIL import Image
from rich.console import Console

from tutelage.cli import main
from tutelage.data.find import open_source
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
        with pytest.raises(UsageError, match=f"budget '{text}': .*write 90s, 20m or 1h30m"):
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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--optim.name", "sdg"], "there is no such optimizer; did you mean sgd"),
        (["--init", "nothing"], "--init nothing: there is no such run"),
        (["--init", "{tmp}/dta"], "round or weights file; did you mean data?"),
        (["--model", "levit_128", "--img-size", "31"], "levit_128 can't take images of 31 pixels"),
        (["--precision", "fp16", "--device", "cpu"], "--precision fp16 is for accelerators"),
        (["--device", "gpu"], "--device gpu: there is no such device; take cpu, cuda"),
        (["--batch", "1"], "--batch is at least 2"),
        (["--freeze", "2"], "--freeze is for --transfer frozen-stem: give both, or leave"),
        (["--optim.lr-end", "2"], "--optim.lr-end is 0 to 1, got 2"),
        (["--options", "smothing=1"], "--options of supervised: unknown setting smothing; did you"),
    ],
)
def test_a_wrong_setting_is_said_by_its_flag_before_images_are_read(tmp_path, capsys, flags, words):
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(b"no image")
    needed = ["--data", str(tmp_path / "data"), "--model", "test_resnet"]
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    assert main(["train", *needed, "--out", str(tmp_path / "run"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "data").exists()


def test_select_names_its_flags_without_the_prefix_that_selftrain_has(tmp_path, capsys):
    assert main(["select", str(tmp_path), "--out", str(tmp_path / "out"), "--ood", "2"]) == 2
    assert "select: --ood is at least 0 and below 1, got 2" in capsys.readouterr().err


def test_a_settings_file_is_named_with_what_is_wrong_in_it(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("noise: {flipp: true}")
    assert main(["train", "--config", str(file), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"{file}: unknown setting noise.flipp; did you mean flip?" in said
    assert main(["train", "--config", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "give the path of a YAML file" in capsys.readouterr().err


def test_a_single_image_is_no_data_set(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match=r"one\.png is a single image: give the folder"):
        open_source(tmp_path / "one.png")


def test_images_that_were_not_read_are_not_called_usable(tmp_path, capsys):
    for name in ("cat", "Cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    assert main(["check", "--data", str(tmp_path / "data"), "--out", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert "images found, not read: labeled 2" in said.out + said.err
    assert "usable" not in said.out + said.err


def test_a_name_in_utf_8_is_not_blamed_where_python_reads_ascii():
    code = (
        "import sys; from tutelage.data.sources.folder import why_unwritable as why; "
        "print(why(sys.argv[1]), why(sys.argv[2]))"
    )
    names = [os.fsencode("h\u00fcnd"), b"h\xfcnd"]
    done = subprocess.run(
        [sys.executable, "-c", code, *names], capture_output=True, text=True, check=True,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.stdout.strip() == (
        "the name is UTF-8, and Python reads names as ascii here: set PYTHONUTF8=1 "
        "the name is not UTF-8: rename the file or folder"
    )


@pytest.mark.parametrize(("wish", "colored"), [("", True), ("1", False)])
def test_help_has_no_color_where_nobody_wants_it(wish, colored, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", wish)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert ("\x1b[" in capsys.readouterr().out) == colored
