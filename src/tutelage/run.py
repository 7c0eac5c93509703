"""The run folder: what was asked, what is done, and who is working in it."""

import fcntl
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from tutelage.distributed.collectives import world
from tutelage.distributed.launcher import is_restartable, launch, was_restarted
from tutelage.distributed.watch import patience
from tutelage.errors import Damaged, Interrupted, RunMismatch, UsageError
from tutelage.files import (
    as_written,
    explaining,
    made_folder,
    read_json,
    set_aside,
    sweep,
    write_json,
    write_text,
)
from tutelage.speed.machine import environment
from tutelage.values import differences, to_plain

NOT_BINDING = frozenset(
    {"check", "init", "method", "plan"}
)  # stages after which settings may still change
USED_BY_STUDENTS = frozenset(
    {"select", "pool_targets", "temperature", "weight", "normalize", "pool_noise"}
)
NOT_COMPARED = frozenset({"out", "overwrite", "memory", "devices", "sync_bn", "shard"})
BEFORE_A_RUN = frozenset(  # what may lie in a folder before its run.json, also after a kill
    {".lock", "issues.csv", "environment.json", "environment.json.part", "run.json.part"}
)
KINDS = {"verb": str, "state": str, "stage": str, "settings": dict, "stages": dict}  # of run.json


class Run:
    """One run folder, held by one process at a time."""

    def __init__(
        self, path: Path, content: dict[str, Any], given: Mapping[str, Any] | None = None
    ) -> None:
        """Hold the folder, the content of its run.json, and sources given from Python."""
        self.path = path
        self.content = content
        self.given = given or {}
        self.began = time.monotonic()
        self.seconds_before = sum(notes.get("seconds", 0.0) for notes in content["stages"].values())

    def save(self) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", self.content)

    def is_done(self, stage: str) -> bool:
        """Whether the stage was finished, by this process or an earlier one."""
        return self.content["stages"].get(stage, {}).get("state") == "done"

    def reopen(self, stage: str) -> None:
        """Let a finished stage be done again."""
        if self.is_done(stage):
            self.content["stages"][stage]["state"] = "running"
            self.save()

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Work on a stage: what is put into the dict is kept, with the time, once it is done."""
        before = self.content["stages"].get(name, {})
        notes: dict[str, Any] = {}
        self.content["stage"] = name
        self.content["stages"][name] = before | {"state": "running"}
        self.save()
        start = time.monotonic()
        try:
            yield notes
        except BaseException:
            spent = before.get("seconds", 0.0) + time.monotonic() - start
            self.content["stages"][name]["seconds"] = round(spent, 2)
            raise
        spent = before.get("seconds", 0.0) + time.monotonic() - start
        self.content["stages"][name] = {"state": "done", "seconds": round(spent, 2)} | notes
        self.save()

    def notes(self, stage: str) -> dict[str, Any]:
        """What a finished stage left."""
        return dict(self.content["stages"][stage])


@contextmanager
def open_run(
    verb: str, settings: Any, *, overwrite: bool = False, given: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """The run folder `settings.out`, new or continued, locked against other processes.

    Raises RunMismatch where it holds a run with other settings, naming what differs, or where
    another process works in it; UsageError where the folder holds something else.
    """
    path: Path = settings.out
    if overwrite and path.exists() and not _is_of_this_launch(path):
        move_aside(path)
    with held(path):
        run = Run(path, content_of(path, verb, settings), given)
        remember_environment(path)
        with noted(run):
            yield run
        run.content["state"] = "done"
        run.save()


def _is_of_this_launch(path: Path) -> bool:
    """Whether the torchrun that began this process has also begun the run, in the same command."""
    file = path / "environment.json"
    if not launch() or not file.exists():
        return False
    with as_written(path):
        before = read_json(file)[-1].get("launch", "")
    again = was_restarted() and before.partition("/")[0] == launch().partition("/")[0]
    return before == launch() or (again and read_run(path).get("state") != "done")


@contextmanager
def noted(run: Run) -> Iterator[None]:
    """Note in run.json that the run goes on, and how it ended where it didn't get through."""
    run.content["state"] = "running"
    run.content.pop("error", None)
    try:
        run.save()
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        run.content["state"] = "interrupted" if stopped else "failed"
        run.content["error"] = "" if stopped else f"{type(error).__name__}: {error}"
        _try_to_save(run)
        raise


def _try_to_save(run: Run) -> None:
    """Note the failure where the disk allows; the error that is under way matters more."""
    try:
        run.save()
    except Exception:
        return


def content_of(path: Path, verb: str, settings: Any, *, busy: bool = False) -> dict[str, Any]:
    """The folder's run.json if it fits the settings, else a fresh one where nothing has come of
    another verb or other settings yet; busy: another process works in it.

    Raises RunMismatch where it doesn't fit, UsageError where the folder has other files.
    """
    asked = {k: v for k, v in to_plain(settings).items() if k not in NOT_COMPARED}
    fresh = {"verb": verb, "state": "running", "stage": "", "settings": asked, "stages": {}}
    file = path / "run.json"
    if not file.exists():
        strangers = [p.name for p in path.iterdir() if p.name not in BEFORE_A_RUN]
        if strangers:
            raise UsageError(
                f"{path} is not empty and no run (it has {strangers[0]}): choose another --out"
            )
        return fresh
    content = _content(file, KINDS)
    other, changed = content["verb"] != verb, differences(content["settings"], asked)
    bound = set(content["stages"]) - NOT_BINDING or (path / "trials.jsonl").exists()
    if (other or changed) and not bound and not (other and busy):
        return fresh
    if other:
        raise RunMismatch(f"{path} is a run of `{content['verb']}`: choose another --out")
    labeled = any(name.endswith("-labels") and stage["state"] == "done"
                  for name, stage in content["stages"].items())  # fmt: skip
    late = all(re.split("[.:]", line)[0] in USED_BY_STUDENTS for line in changed)
    if verb == "selftrain" and not labeled and late:
        return content | {"settings": asked}
    if changed:
        raise RunMismatch(
            f"{path} was started with other settings:\n  " + "\n  ".join(changed) + "\n"
            "give the same ones to continue it, choose another --out, or --overwrite to move it "
            "aside"
        )
    return content


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Make the folder and hold it; the system lets go when the process ends, however it ends.

    Where torchrun began this process, after another that led on a machine which is lost perhaps,
    the folder is waited for. Raises RunMismatch where another process holds it, UsageError
    where it can't be made, TutelageError where nothing can be written into it.
    """
    made_folder(path)
    lock = path / ".lock"
    with explaining(lock):
        file = lock.open("a+")
    with file:
        deadline = time.monotonic() + (2 * patience() if is_restartable() else 0)
        while not _locked(file):
            if time.monotonic() > deadline:
                file.seek(0)
                raise RunMismatch(
                    f"another process ({file.read().strip() or 'unknown'}) works in {path}: wait "
                    "for it, or choose another --out"
                )
            time.sleep(0.2)
        with explaining(lock):
            file.truncate(0)
            file.write(f"pid {os.getpid()}")
            file.flush()
        sweep(path)
        yield


def _locked(file: IO[str]) -> bool:
    """Lock a file for this process, unless another one has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a living process holds the folder."""
    file = path / ".lock"
    if not file.exists():
        return False
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def move_aside(path: Path) -> None:
    """Rename the old run, unless a process works in it; nothing is ever deleted."""
    if not (path / "run.json").exists():
        if any(p.name not in BEFORE_A_RUN for p in path.iterdir()):
            raise UsageError(f"{path} is no run, so it is not overwritten: choose another --out")
        return
    with held(path):
        set_aside(path)


def remember_environment(path: Path) -> None:
    """environment.json: versions, machine and command, a row for each start."""
    file = path / "environment.json"
    starts = read_json(file) if file.exists() else []
    if not isinstance(starts, list):
        raise Damaged(
            f"{file} is damaged, it is no list of starts: move it away and give the command again"
        )
    starts.append(
        {
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
            "processes": world(),
            **({"launch": launch()} if launch() else {}),
            **environment(torch.get_num_threads()),
        }
    )
    write_json(file, starts)


def write_config(run: Run, resolved: Any) -> None:
    """config.yaml: the settings with every 'auto' that the run decides replaced."""
    plain = {key: value for key, value in to_plain(resolved).items() if key not in NOT_COMPARED}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    write_text(run.path / "config.yaml", text)


def read_run(path: Path) -> dict[str, Any]:
    """The run.json of a run folder; raises UsageError where there is none."""
    file = path / "run.json"
    if not file.exists():
        why = "it has no run.json" if path.exists() else "there is no such folder"
        raise UsageError(f"{path} is no run folder: {why}; give what was the --out of a training")
    return _content(file, {"verb": str, "stages": dict})


def _content(file: Path, kinds: Mapping[str, type]) -> dict[str, Any]:
    """What a run.json holds; raises Damaged where it lacks one of these, or a stage's state."""
    content = read_json(file)
    known = content if isinstance(content, dict) else {}
    wrong = [key for key, kind in kinds.items() if not isinstance(known.get(key), kind)]
    for name, notes in known["stages"].items() if not wrong else ():
        if not isinstance(notes, dict) or not isinstance(notes.get("state"), str):
            wrong.append(f"state of {name}")
    if wrong:
        raise Damaged(f"{file} is damaged (it has no {wrong[0]}): bring back a copy of it")
    return known
