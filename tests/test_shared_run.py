"""A run folder that several processes share, and what they say to others."""

import fcntl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.errors import RunMismatch
from tutelage.pipelines.shared_run import PREPARED, open_shared
from tutelage.progress import Screen
from tutelage.run import open_run, read_run


@dataclass(frozen=True)
class Asked:
    out: Path
    steps: int = 1


def shared(out, verb="search", *, overwrite=False, **more):
    return open_shared(verb, Asked(out, **more), overwrite=overwrite, given={})


def finish(run):
    with run.stage(PREPARED):
        run.content["stages"]["trials"] = {"state": "running"}


def test_a_second_process_joins_what_the_first_has_prepared(tmp_path):
    with shared(tmp_path) as one, shared(tmp_path) as other:
        with one.preparing(Screen()) as run:
            assert not run.is_done(PREPARED)
            finish(run)
        with other.preparing(Screen()) as run:
            assert run.is_done(PREPARED)
    with shared(tmp_path) as one, one.preparing(Screen()), one.alone():
        pass
    assert read_run(tmp_path)["state"] == "done"


def test_others_are_refused_while_a_run_is_shared(tmp_path):
    with shared(tmp_path) as one:
        with one.preparing(Screen()) as run:
            finish(run)
        with pytest.raises(RunMismatch, match="works in"), shared(tmp_path, overwrite=True):
            pass
        with pytest.raises(RunMismatch, match="works in"), open_run("train", Asked(tmp_path)):
            pass
        with shared(tmp_path, steps=2) as two:
            refused = pytest.raises(RunMismatch, match="steps: 1 -> 2")
            with refused, two.preparing(Screen()):
                pass


def test_a_folder_in_which_another_verb_works_is_refused_at_once(tmp_path):
    refused = pytest.raises(RunMismatch, match="is a run of `train`")
    with open_run("train", Asked(tmp_path)), shared(tmp_path) as one, refused:  # noqa: SIM117
        with one.preparing(Screen()):
            pass


def test_who_waits_prepares_where_the_first_ends_before(tmp_path, capsys):
    (tmp_path / "environment.json").write_text("[]")  # what is there before run.json
    gone = (tmp_path / ".lock").open("a+")
    fcntl.flock(gone, fcntl.LOCK_EX)
    found = []

    def wait():
        with shared(tmp_path) as one, one.preparing(Screen()) as run:
            found.append(run.is_done(PREPARED))

    waiting = threading.Thread(target=wait)
    waiting.start()
    while "joining" not in capsys.readouterr().err:
        time.sleep(0.01)
    assert not found
    gone.close()  # as the system does with a process that is killed
    waiting.join(10)
    assert found == [False]
