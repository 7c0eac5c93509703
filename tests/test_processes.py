"""The life of a command that several processes work at: stopped, killed, failing, and going on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import failing as failing_script
import pytest
import torch
import toy
from safetensors.torch import load_file

from tutelage.cli import main
from tutelage.distributed import board, crew, launcher
from tutelage.distributed.launcher import run_in_processes
from tutelage.errors import Dismissed, Interrupted, RunMismatch, UsageError
from tutelage.jobs import TrainSettings
from tutelage.run import held, is_held, open_run

STEPS = 200
SECONDS = 60  # within which all processes are gone, on a machine that does much else


@dataclass
class Command:
    """`tutelage train --devices 2`, running, and what it says."""

    images: Path
    out: Path
    said: str = ""
    code: int | None = None
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        flags = toy.train_settings(self.images, self.out, steps=STEPS, memory="0", devices=2)
        words = [w for key, v in flags.items() for w in (f"--{key.replace('_', '-')}", str(v))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", "train", *words], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"}, preexec_fn=hear_ctrl_c,
        )  # fmt: skip

    def until_it_trains(self) -> None:
        """Until it has written a line more of its metrics."""
        log = self.out / "rounds" / "00-supervised" / "metrics.jsonl"
        before = lines(log)
        deadline = time.monotonic() + 240
        while lines(log) <= before or not is_held(self.out):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, *, within: float = SECONDS) -> None:
        """Wait for its end, and for that of all its processes."""
        start = time.monotonic()
        self.said, _ = self.process.communicate(timeout=within)  # when all have closed it
        self.code = self.process.returncode
        while is_held(self.out):
            assert time.monotonic() < start + within
            time.sleep(0.05)
        assert "Traceback" not in self.said
        assert "Warning" not in self.said


def hear_ctrl_c() -> None:
    """As in a terminal, also where these tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def children(pid: int) -> list[int]:
    command = ["ps", "-A", "-o", "pid=,ppid=,stat="]
    found = subprocess.run(command, capture_output=True, text=True)
    rows = [row.split() for row in found.stdout.splitlines()]
    return [int(own) for own, parent, state in rows if int(parent) == pid and state[0] != "Z"]


def state(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["state"]


def checkpoint_time(run: Path) -> int:
    return (run / "rounds" / "00-supervised" / "last.pt").stat().st_mtime_ns


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return toy.write_toy(tmp_path_factory.mktemp("toy"))


def kill_the_launcher(command: Command) -> None:
    known = [command.process.pid, *children(command.process.pid)]
    command.process.kill()
    command.end()
    assert command.code == -signal.SIGKILL
    command.code = 4  # which nobody was there to return
    assert state(command.out) == "interrupted"
    end = time.monotonic() + 20  # the state is written before a process is gone
    while (left := set(known) & set(children(1))) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def press_ctrl_c(command: Command) -> None:
    """And let all others hear of it at the same time, as a scheduler does."""
    everyone = children(command.process.pid)
    os.killpg(command.process.pid, signal.SIGINT)
    for one in everyone:
        os.kill(one, signal.SIGTERM)
    command.end()
    assert state(command.out) == "interrupted"
    assert "stopped at step" in command.said


TROUBLES = [press_ctrl_c, kill_the_launcher]


@pytest.mark.slow
def test_whatever_ends_a_run_the_same_command_goes_on_to_the_same_weights(images, tmp_path):
    calm = Command(images, tmp_path / "calm")
    calm.end(within=300)
    assert calm.code == 0, calm.said
    out = tmp_path / "run"
    for trouble in TROUBLES:
        command = Command(images, out)
        command.until_it_trains()
        trouble(command)
        assert command.code == 4, command.said
        assert command.said.count("to go on: tutelage train --data") == 1, command.said
    last = Command(images, out)
    last.end(within=300)
    assert last.code == 0, last.said
    assert state(out) == "done"
    one, other = (load_file(run / "model" / "model.safetensors") for run in (calm.out, out))
    assert all(other[name].equal(tensor) for name, tensor in one.items())


def failing(kind: str, capfd) -> tuple[int, str]:
    """The exit code and the words of two processes of which one fails."""
    code = run_in_processes(2, [sys.executable, failing_script.__file__, kind])
    return code, capfd.readouterr().err


@pytest.mark.slow
def test_the_person_reads_once_why_another_process_failed(capfd):
    code, said = failing("image", capfd)
    assert (code, said) == (3, "rank 0: cat/7.png has vanished: bring it back\n")
    code, said = failing("memory", capfd)
    assert code == 1
    assert said.startswith("rank 0: process 1 of 2 failed:\nTraceback")
    assert said.endswith("MemoryError: no room for 3 GB\n")
    assert said.count("MemoryError: no room") == 1


@pytest.mark.slow
def test_an_error_of_the_leader_or_of_all_is_said_by_the_leader(capfd):
    assert failing("disk", capfd) == (1, "rank 0: the disk is full: make room\n")
    assert failing("given up", capfd) == (1, "rank 0: the loss became nan\n")


@pytest.mark.slow
def test_a_process_that_is_lost_interrupts_the_others(capfd):
    code, said = failing("gone", capfd)
    assert code == 4
    assert "process 0 of 2 lost another one" in said
    assert "process 1 of 2 was ended by SIGKILL" in said


@pytest.mark.slow
def test_a_process_that_ends_before_it_has_met_the_others_is_not_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(launcher, "ALONE", 5)
    start = time.monotonic()
    with pytest.raises(Interrupted, match="process 0 of 2 didn't end after another one had"):
        failing("never there", capfd)
    assert time.monotonic() - start < min(SECONDS, launcher.LATE)


def script(folder: Path, *lines: str) -> list[str]:
    """A command in the place of the real one."""
    file = folder / "command.sh"
    file.write_text("\n".join(lines))
    return ["bash", str(file)]


def test_the_exit_code_is_that_of_the_leader(tmp_path):
    assert run_in_processes(3, script(tmp_path, "exit $((RANK * 5))")) == 0
    assert run_in_processes(2, script(tmp_path, "exit $((3 - RANK))")) == 3


def test_a_leader_that_a_signal_ends_is_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "ALONE", 0.2)
    with pytest.raises(Interrupted, match="process 0 of 2 was ended by SIGSEGV"):
        run_in_processes(2, script(tmp_path, "[ $RANK = 0 ] && kill -SEGV $$", "sleep 30"))


def test_a_leader_that_works_alone_is_asked_to_stop_when_another_process_is_gone(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(launcher, "ALONE", 0.2)
    met = '[ $RANK = 0 ] && eval "exec $TUTELAGE_MET>&-"'
    lines = ["[ $RANK = 1 ] && kill -KILL $$", "trap 'exit 4' TERM", met, "sleep 30 & wait"]
    assert run_in_processes(2, script(tmp_path, *lines)) == 4
    assert "process 1 of 2 was ended by SIGKILL" in capfd.readouterr().err


def test_a_leader_that_hears_nothing_is_ended_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "ALONE", 0.1)
    monkeypatch.setattr(launcher, "LATE", 0.3)
    met = '[ $RANK = 0 ] && eval "exec $TUTELAGE_MET>&-"'
    lines = ["[ $RANK = 1 ] && exit 7", "trap '' TERM", met, "exec sleep 30"]
    with pytest.raises(Interrupted, match="process 0 of 2 didn't end after another one had"):
        run_in_processes(2, script(tmp_path, *lines))


def test_the_processes_hear_each_other_on_this_machine_alone(tmp_path):
    out = tmp_path / "env"
    found = run_in_processes(2, script(tmp_path, f"[ $RANK = 0 ] && env > {out}", "true"))
    assert found == 0
    told = dict(line.split("=", 1) for line in out.read_text().splitlines() if "=" in line)
    assert told["MASTER_ADDR"] == "127.0.0.1"
    assert (told["WORLD_SIZE"], told["LOCAL_RANK"]) == ("2", "0")


def test_a_batch_that_devices_cannot_share_is_refused_before_anything_begins(tmp_path, capsys):
    flags = toy.train_settings(tmp_path, tmp_path / "run", batch=64, devices=3)
    words = [w for key, v in flags.items() for w in (f"--{key.replace('_', '-')}", str(v))]
    assert main(["train", *words]) == 2
    assert "3 devices can't share a batch of 64 images evenly" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_devices_are_for_the_command_line_and_not_for_torchrun(monkeypatch):
    with pytest.raises(UsageError, match="torchrun --nproc-per-node 2"):
        launcher.check_devices(2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    launcher.check_devices(4)
    launcher.check_devices(1)
    with pytest.raises(UsageError, match="torchrun has begun 4 processes"):
        launcher.check_devices(2)


def test_more_processes_than_accelerators_are_refused_with_both_numbers(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    crew.check_accelerators("cpu")
    with pytest.raises(UsageError, match=r"4 processes want a CUDA device each .* has 2"):
        crew.check_accelerators("auto")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(Dismissed):  # said once
        crew.check_accelerators("cuda")


@pytest.mark.parametrize("kind", board.KINDS)
def test_an_error_goes_to_the_leader_with_its_kind(kind):
    found = board.from_words(board.in_words(kind("cat.png: not read")))
    assert (type(found), str(found)) == (kind, "cat.png: not read")


def test_two_signals_at_once_are_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(launcher.time, "monotonic", lambda: now[0])
    asked = launcher.Asked()
    assert asked.note(15, None)
    now[0] += 0.5
    assert not asked.note(2, None)
    now[0] += launcher.AGAIN
    assert asked.note(2, None)
    assert asked.times == 2


def test_a_command_that_torchrun_gives_again_goes_on_also_with_overwrite(tmp_path, monkeypatch):
    settings = TrainSettings(data="x", model="test_resnet", out=tmp_path / "run")

    def begun(stage, *, ends=False):
        """Stages that were there before; the run is stopped after this one, or done."""
        with suppress(Interrupted), open_run("train", settings, overwrite=True) as run:
            before = set(run.content["stages"])
            with run.stage(stage):
                pass
            if not ends:
                raise Interrupted("stopped")
        return before

    def by(launch, restarts):
        monkeypatch.setattr("tutelage.run.launch", lambda: launch)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert begun("check") == set()
    assert begun("plan") == {"check"}  # by the same torchrun, which others have joined
    by("1/another machine", 1)
    assert begun("init", ends=True) == {"check", "plan"}  # after the leader's machine was lost
    by("1/a machine of next week", 1)
    assert begun("check") == set()  # a run that was done is not gone on with
    by("2/another torchrun", 1)
    assert begun("check") == set()
    by("2/another torchrun of that id", 0)
    assert begun("check") == set()
    by("", 0)
    assert begun("check") == set()
    assert len(list(tmp_path.glob("run.old-*"))) == 4


def test_who_begins_anew_waits_for_the_folder_of_who_is_about_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("TUTELAGE_SILENCE", "10")
    first = held(tmp_path)
    first.__enter__()
    ending = threading.Timer(0.5, first.__exit__, (None, None, None))
    ending.start()
    with held(tmp_path):
        assert ending.finished.is_set()
    monkeypatch.setenv("TUTELAGE_SILENCE", "0.1")
    refused = pytest.raises(RunMismatch, match=rf"pid {os.getpid()}")
    with held(tmp_path), refused, held(tmp_path):
        pass
