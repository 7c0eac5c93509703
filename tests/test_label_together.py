"""Pools labeled by several real processes: the same parts, also after a kill."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import label_ranks
import pytest
import torch
from once import made_once

from tutelage.cli import VERBS, main
from tutelage.data.label_parts import Portion, read_part
from tutelage.data.pixels import Chosen, InMemory
from tutelage.distributed.board import from_words, in_words
from tutelage.errors import DataProblem, TutelageError
from tutelage.jobs import SelftrainSettings
from tutelage.labeling import pieces
from tutelage.labeling.answers import Answers
from tutelage.labeling.pieces import put_together
from tutelage.pipelines.pool_labels import NoisedPixels, NoisedTeacher

SHARED = {"train", "selftrain", "distill", "label"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that label_ranks.py fills."""
    return made_once(tmp_path_factory, "ranks", label_all)


def label_all(out: Path) -> None:
    command = [sys.executable, label_ranks.__file__, str(out)]
    subprocess.run(command, check=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})


def parts(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("part-*.parquet")}
    assert found
    return found


@pytest.mark.parametrize(("pool", "count"), [("pool", 3), ("tars", 5), ("memory", 3)])
def test_two_processes_write_the_parts_of_one_to_the_last_bit(done, pool, count):
    codes = json.loads((done / "codes.json").read_text())
    assert (codes[f"{pool}-1"], codes[f"{pool}-2"]) == ([0], [0, 0])
    alone = parts(done / f"{pool}-1")
    assert len(alone) == count
    assert parts(done / f"{pool}-2") == alone
    answers = [read_part(done / f"{pool}-1" / name).labels for name in sorted(alone)]
    assert len(torch.cat(answers).unique()) > 3
    if pool != "memory":
        lists = [(done / f"{pool}-{ranks}" / "issues.csv").read_text() for ranks in (1, 2)]
        assert lists[0] == lists[1]
        assert "cannot identify image" in lists[0]


@pytest.mark.parametrize(("name", "codes"), [("follower", [4, -9]), ("stopped", [4, 4])])
def test_whoever_dies_the_same_command_ends_with_the_same_parts(done, name, codes):
    ended = json.loads((done / "codes.json").read_text())
    assert ended[name] == codes
    assert set(ended[f"{name}-again"]) == {0}
    assert parts(done / name) == parts(done / "pool-1")
    said = (done / f"{name}.txt").read_text()
    assert said.count("to go on: tutelage label") == 1
    assert ("lost another one" in said) == (name != "stopped")


def test_what_goes_wrong_in_another_process_is_said_as_it_is_by_one(done):
    assert json.loads((done / "codes.json").read_text())["gone"] == [3, 3]
    assert (done / "gone.txt").read_text() == "an image is gone\n"


def test_what_a_teacher_and_its_images_are_made_of_travels(tmp_path):
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 16, 16, 3), dtype=torch.uint8, generator=dice)
    settings = SelftrainSettings(
        data="labeled", unlabeled="pool", model="test_resnet", out=tmp_path, teacher_noise=True
    )
    pixels = NoisedPixels(Chosen(InMemory(images), torch.arange(2, 12)), settings, 16)
    teacher = NoisedTeacher(label_ranks.teacher(), seed=3).eval()
    again, same = pickle.loads(pickle.dumps((pixels, teacher)))
    rows = torch.tensor([3, 4, 7])
    assert torch.equal(again.at(rows), pixels.at(rows))
    batch = images[:4].permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        assert torch.equal(same(batch), teacher(batch))


def test_pieces_in_any_order_make_their_portions(monkeypatch):
    monkeypatch.setattr(pieces, "AT_ONCE", 2)
    wanted = [Portion(0, "", tuple("abcde")), Portion(1, "s", ()), Portion(2, "", tuple("fg"))]
    cut = list(pieces.pieces(wanted))
    assert [(one.number, one.first, one.names) for one in cut] == [
        (0, 0, ("a", "b")), (0, 2, ("c", "d")), (0, 4, ("e",)), (1, 0, ()), (2, 0, ("f", "g")),
    ]  # fmt: skip
    shard = Answers(Portion(1, "s", ("h",)), (), ())
    said = [shard if one.shard else Answers(one, ((one.first,),), ((0, "lost"),)) for one in cut]
    found = list(put_together(said[::-1], wanted))
    assert [one.portion.number for one in found] == [2, 1, 0]
    assert found[1] is shard
    assert found[2] == Answers(
        wanted[0], ((0,), (2,), (4,)), ((0, "lost"), (2, "lost"), (4, "lost"))
    )


def test_errors_of_one_process_can_be_raised_in_another(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    kept = from_words(in_words(DataProblem("x is gone")))
    assert (type(kept), str(kept)) == (DataProblem, "x is gone")
    kept = from_words(in_words(ZeroDivisionError("a b")))
    assert type(kept) is TutelageError
    assert "process 1 of 2" in str(kept)
    assert "ZeroDivisionError: a b" in str(kept)


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - SHARED))
def test_verbs_of_one_process_refuse_several_and_say_so_once(verb, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, times in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main([verb]) == 2
        assert (
            capsys.readouterr().err.count(f"tutelage {verb}: this command works in one process")
            == times
        )


def test_devices_are_refused_where_they_do_not_fit(tmp_path, capsys):
    flags = ["label", "--model", "m", "--data", "d", "--out", str(tmp_path / "out")]
    assert main([*flags, "--devices", "2", "--cluster", "auto"]) == 2
    assert "--cluster has workers of its own" in capsys.readouterr().err
    assert main([*flags, "--devices", "0"]) == 2
    assert "devices is at least 1" in capsys.readouterr().err


def test_devices_begins_processes_of_the_same_command(monkeypatch, tmp_path):
    from tutelage.distributed import launcher

    begun = []
    monkeypatch.setattr(
        launcher, "run_in_processes", lambda devices, argv: begun.append((devices, argv)) or 0
    )
    flags = ["--model", "m", "--data", "d", "--out", str(tmp_path / "out"), "--devices", "2"]
    assert main(["label", *flags]) == 0
    assert begun == [(2, [sys.executable, "-m", "tutelage", "label", *flags])]
