"""Checkpoints that are damaged, cut short or of another make: exact, or said in words."""

import os
import resource
import shutil
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tutelage import checkpoint
from tutelage.errors import RunMismatch, TutelageError, UsageError
from tutelage.learner import Learner
from tutelage.methods.method import State
from tutelage.settings import Optim


def state_after(steps: int) -> State:
    """A small training's state; the number of steps can be read off its memory."""
    torch.manual_seed(steps)
    learner = Learner(nn.Linear(3, 5), Optim(ema=0.9))
    return State(learner, memory={"steps": torch.tensor(steps), "seen": torch.rand(40)})


def same(one: State, other: State) -> bool:
    pairs = zip(flat(one.state_dict()), flat(other.state_dict()), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def flat(value):
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flat(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in flat(one)]
    return [value]


def resumed(folder: Path, state: State | None = None) -> tuple[int, State, str]:
    said: list[str] = []
    state = state or state_after(99)
    step = checkpoint.resume(folder / "last.pt", state, recipe="r", say=said.append)
    return step, state, "\n".join(said)


def save(folder: Path, step: int) -> None:
    checkpoint.save(folder / "last.pt", state_after(step), step=step, recipe="r")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Checkpoints after 10 and 25 steps; read only."""
    folder = tmp_path_factory.mktemp("whole") / "00-baseline"
    for step in (10, 25):
        save(folder, step)
    return folder


@pytest.fixture
def pair(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "00-baseline"))


def test_the_last_checkpoint_is_continued_without_a_word(pair):
    step, state, said = resumed(pair)
    assert (step, said) == (25, "")
    assert same(state, state_after(25))
    assert sorted(p.name for p in pair.iterdir()) == ["before.pt", "last.pt"]


DAMAGES = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("grow"), st.just(0.0), st.integers(1, 255)),
    st.tuples(st.just("gone"), st.just(0.0), st.just(0)),
    st.tuples(st.just("other"), st.just(0.0), st.integers(0, 255)),
)


def damaged(raw: bytes, kind: str, where: float, value: int) -> bytes | None:
    at = int(where * len(raw))
    if kind == "flip":
        return raw[:at] + bytes([raw[at] ^ value]) + raw[at + 1 :]
    if kind == "gone":
        return None
    return {"cut": raw[:at], "grow": raw + bytes([value]), "other": bytes([value]) * 900}[kind]


@given(last=DAMAGES, before=st.one_of(st.none(), DAMAGES))
@settings(max_examples=80, deadline=None)
def test_any_damage_is_found_and_the_state_is_that_of_a_whole_one(
    whole, tmp_path_factory, last, before
):
    folder = tmp_path_factory.mktemp("damaged")
    for name, damage in (("last.pt", last), ("before.pt", before)):
        raw = (whole / name).read_bytes()
        raw = raw if damage is None else damaged(raw, *damage)
        if raw is not None:
            (folder / name).write_bytes(raw)
    step, state, said = resumed(folder)
    assert step == (10 if before is None else 0)
    assert same(state, state_after(step or 99))
    assert said or {last[0], before and before[0]} == {"gone"}
    assert ("last.pt is damaged" in said) == (last[0] != "gone")
    assert resumed(folder)[0] == step  # and so it is at the next start
    save(folder, 30)
    assert resumed(folder)[0] == 30
    (folder / "last.pt").write_bytes(b"")
    assert resumed(folder)[0] == step  # whose file no damaged one has taken the place of


def test_what_is_damaged_and_how_much_is_repeated_is_said(pair):
    with (pair / "last.pt").open("r+b") as file:
        file.truncate(700)
    _, _, said = resumed(pair)
    assert said == (
        f"{pair / 'last.pt'} is damaged (its checksum doesn't match; it is now last.damaged.pt): "
        f"going on from {pair / 'before.pt'}, after step 10; 15 steps are repeated"
    )
    assert (pair / "last.damaged.pt").stat().st_size == 700
    assert resumed(pair)[2].startswith(f"there is no {pair / 'last.pt'}: going on from")


def test_where_both_are_damaged_the_beginning_is_said(pair):
    (pair / "last.pt").write_bytes(b"")
    (pair / "before.pt").write_bytes((pair / "before.pt").read_bytes()[:-1])
    step, _, said = resumed(pair)
    assert step == 0
    assert "last.pt is damaged (it is empty" in said
    assert "before.pt is damaged (its checksum doesn't match" in said
    assert said.endswith(f": {pair} begins anew; 10 steps are repeated")
    checkpoint.forget(pair)
    assert list(pair.iterdir()) == []


def test_whole_files_that_are_no_checkpoint_of_this_training_are_refused_and_kept(pair):
    file = pair / "last.pt"
    with pytest.raises(
        RunMismatch, match=r"last\.pt was written with other settings \(of digest r, not q\)"
    ):
        checkpoint.resume(file, state_after(0), recipe="q")
    other = State(Learner(nn.Linear(4, 5), Optim(ema=0.9)))
    checkpoint.save(file, other, step=1, recipe="r")
    with pytest.raises(UsageError, match=r"last\.pt is whole, but .*for this network"):
        resumed(pair)
    assert file.exists()


def test_a_file_of_another_program_is_kept_aside(pair, tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    shutil.copy(tmp_path / "weights.pt", pair / "last.pt")
    step, state, said = resumed(pair)
    assert "it doesn't begin as a checkpoint does; it is now last.damaged.pt" in said
    assert step == 10
    assert same(state, state_after(10))
    assert (pair / "last.damaged.pt").read_bytes() == (tmp_path / "weights.pt").read_bytes()


def test_code_in_a_checkpoint_is_not_run(pair):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(pair / "made"),)

    checkpoint.save(
        pair / "last.pt", SimpleNamespace(state_dict=lambda: Code()), step=1, recipe="r"
    )
    with pytest.raises(UsageError, match=r"last\.pt is whole, but"):
        resumed(pair)
    assert not (pair / "made").exists()


def test_a_later_format_is_no_damage(pair, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    save(pair, 30)
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"last\.pt has format 3, and this version reads up to 2"):
        resumed(pair)


def in_a_child(work) -> int:
    """The exit code of a copy of this process that does the work; 1 where it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads that are not copied
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


CALLS = [
    (os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "mkdir"), (Path, "unlink"),
    (checkpoint._Hashed, "write"), (checkpoint._Hashed, "flush"),
]  # fmt: skip


def killed_at(number: int, work) -> None:
    """Do the work and end, with nothing cleaned up, where that many calls were made."""
    left = [number]

    def counted(call):
        def instead(*arguments, **named):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return call(*arguments, **named)

        return instead

    for owner, name in CALLS:
        setattr(owner, name, counted(getattr(owner, name)))
    work()


def test_a_kill_at_any_call_of_a_write_leaves_a_whole_checkpoint(pair, tmp_path):
    """Of 10, and 25 steps, while that of 40 is written."""
    state, steps, code = state_after(40), [], 9
    while code == 9:
        folder = Path(shutil.copytree(pair, tmp_path / f"killed-{len(steps)}"))
        write = partial(checkpoint.save, folder / "last.pt", state, step=40, recipe="r")
        code = in_a_child(partial(killed_at, len(steps), write))
        step, found, _ = resumed(folder)
        assert same(found, state_after(step))
        steps.append(step)
        if len(steps) % 8 == 0 or step != 25 or not (folder / "last.pt").exists():
            save(folder, 50)
            assert resumed(folder)[0] == 50
    assert code == 0
    assert len(steps) > 40
    assert steps == sorted(steps)
    assert set(steps) == {25, 40}


def test_a_full_disk_keeps_both(pair):
    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with pytest.raises(TutelageError, match=r"the disk is full: .*last\.pt could not be"):
            save(pair, 40)

    assert in_a_child(write) == 0
    assert sorted(p.name for p in pair.iterdir()) == ["before.pt", "last.pt"]
    assert resumed(pair)[0] == 25
