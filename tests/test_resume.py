"""Stopped runs go on: killed in every stage, interrupted, or with a full disk."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import starts
import toy
from safetensors.torch import load_file

KILLS = [  # stage, and the how-manieth file that is being written in it
    ("check", 2),
    ("plan", 1),
    ("00-baseline", 6),
    ("00-baseline", 13),  # its weights of halfway
    ("00-baseline", 7),
    ("01-labels", 2),
    ("01-student", 5),
    ("02-student", 3),
    ("evaluate", 2),
    ("model", 2),
    ("report", 1),
]


def run_cli(*arguments: str) -> CompletedProcess[str]:
    return starts.run(starts.COMMAND, *arguments)


def weights(run: Path):
    return {p.relative_to(run): load_file(p) for p in sorted(run.rglob("*.safetensors"))}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert len(first) >= 3  # two rounds or more, and the model
    for name in first:
        for key, tensor in first[name].items():
            assert tensor.equal(second[name][key]), f"{name}: {key}"


@pytest.fixture(scope="module")
def calm(images, tmp_path_factory) -> Path:
    """A run that was left alone."""
    out = tmp_path_factory.mktemp("calm") / "run"
    done = run_cli("selftrain", *toy.selftrain_flags(images, out))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_with_the_same_weights(images, calm, tmp_path):
    out = tmp_path / "run"
    flags = ["selftrain", *toy.selftrain_flags(images, out)]
    finished: dict[Path, int] = {}
    for stage, number in KILLS:  # each start goes on from the kill before
        killed = starts.run(starts.KILLER, stage, number, *flags)
        assert killed.returncode == -signal.SIGKILL, f"{stage} {number}: {killed.stderr}"
        for path, when in finished.items():
            assert path.stat().st_mtime_ns == when, f"{path} was made again"
        found = [*out.glob("rounds/*/*.safetensors"), *out.glob("labels/*.parquet")]
        finished = {path: path.stat().st_mtime_ns for path in found}
    last = run_cli(*flags)
    assert last.returncode == 0, last.stderr
    for path, when in finished.items():
        assert path.stat().st_mtime_ns == when, f"{path} was made again"
    assert_same_weights(calm, out)
    before, after = (json.loads((run / "run.json").read_text()) for run in (calm, out))
    assert before["stages"]["evaluate"]["verdict"] == after["stages"]["evaluate"]["verdict"]


OTHERS = {  # method -> kills, each the how-manieth file written in a stage
    "meta-pseudo-labels": [("01-warmup", 3), ("02-student", 4), ("03-finetune", 2)],
}


def flags_for(method: str, images: Path, out: Path) -> list[str]:
    found = toy.selftrain_flags(images, out, method=method, rounds=1, steps=10)
    at = found.index("--select.threshold")
    return ["selftrain", *found[:at], *found[at + 2 :]]


def killed_and_continued(flags: list[str], kills: list[tuple[str, int]]) -> None:
    for stage, number in kills:
        killed = starts.run(starts.KILLER, stage, number, *flags)
        assert killed.returncode == -signal.SIGKILL, f"{stage} {number}: {killed.stderr}"
    last = run_cli(*flags)
    assert last.returncode == 0, last.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_every_kind_of_training_goes_on_where_it_was_killed(method, images, tmp_path):
    calm, out = tmp_path / "calm", tmp_path / "killed"
    assert run_cli(*flags_for(method, images, calm)).returncode == 0
    killed_and_continued(flags_for(method, images, out), OTHERS[method])
    assert_same_weights(calm, out)


@pytest.mark.slow
def test_a_distillation_goes_on_where_it_was_killed(images, tmp_path):
    teacher = tmp_path / "teacher"
    sound = toy.selftrain_flags(images, teacher, method="fixmatch", rounds=1, steps=20)
    at = sound.index("--select.threshold")
    assert run_cli("selftrain", *sound[:at], *sound[at + 2 :]).returncode == 0

    def flags(out):
        given = {
            "data": images / "labeled", "unlabeled": images / "pool", "test": images / "test",
            "teacher": teacher, "student": "test_resnet", "img-size": 16, "steps": 12, "batch": 8,
            "ratio": 2, "val-fraction": 0, "device": "cpu", "out": out,
        }  # fmt: skip
        return [
            "distill",
            *(part for key, value in given.items() for part in (f"--{key}", str(value))),
        ]

    quiet, out = tmp_path / "calm", tmp_path / "killed"
    assert run_cli(*flags(quiet)).returncode == 0
    killed_and_continued(flags(out), [("01-student", 4)])
    assert_same_weights(quiet, out)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_how_to_go_on(images, calm, tmp_path, number):
    out = tmp_path / "run"
    long = ["selftrain", *toy.selftrain_flags(images, out, steps=4000)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *long], stderr=subprocess.PIPE, text=True
    )
    metrics = out / "rounds" / "00-baseline" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert "to go on: tutelage selftrain --data" in said
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
    assert (out / "rounds" / "00-baseline" / "last.pt").exists()


@pytest.mark.slow
def test_a_finished_run_is_not_computed_again(images, calm):
    before = {p: p.stat().st_mtime_ns for p in calm.rglob("*.safetensors")}
    again = run_cli("selftrain", *toy.selftrain_flags(images, calm))
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in calm.rglob("*.safetensors")} == before
    assert "points" in again.stdout


@pytest.mark.slow
def test_a_full_disk_is_named_and_nothing_is_lost(images, calm, tmp_path):
    out = tmp_path / "run"
    flags = ["selftrain", *toy.selftrain_flags(images, out)]
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
    code = limit + "from tutelage.cli import main; sys.exit(main(sys.argv[1:]))"
    full = starts.run(code, *flags)
    assert full.returncode == 1
    assert "the disk is full" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(out.rglob("*.part"))
    assert run_cli(*flags).returncode == 0
    assert_same_weights(calm, out)


@pytest.mark.slow
def test_other_settings_are_refused_and_named(images, calm):
    other = run_cli("selftrain", *toy.selftrain_flags(images, calm, batch=6))
    assert other.returncode == 2
    assert "batch: 8 -> 6" in other.stderr
    assert "--overwrite" in other.stderr
