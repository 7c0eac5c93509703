"""A pool in shards: each kept image as often as its copies, the same batches for any history."""

import itertools
import json
import re
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starts
import torch
import toy
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from same import assert_same
from shards import png, write_labels, write_selection, write_shards, write_tar

import tutelage
from tutelage.core import Stage
from tutelage.data import stream
from tutelage.data.decode import decode
from tutelage.data.entries import ShardedPool
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory, OnDisk
from tutelage.data.sets import LabeledSet
from tutelage.data.shard_labels import Parts
from tutelage.data.source import Images
from tutelage.data.sources.webdataset import WebDataset
from tutelage.data.stream import StreamedPool, lanes_for
from tutelage.errors import DataProblem, UsageError
from tutelage.labeling.select_parts import select_parts
from tutelage.progress import Screen
from tutelage.settings import Noise, Select

CLASSES = ("cat", "dog", "owl")
CPU = torch.device("cpu")
COPIES = [[1, 0, 2], [0, 0], [3, 1, 1, 1, 1], [1] * 7]


def names_of(source):
    return {shard: source.names_in(shard) for shard in source.shards()}


def written(root, counts, copies=None, **labels):
    """Shards with labels, and where copies are given a selection."""
    source = WebDataset(str(write_shards(root / "pool", counts)))
    folder = write_labels(root / "labels", names_of(source), classes=CLASSES, **labels)
    selected = None if copies is None else write_selection(root / "selected", copies)
    return source, Parts(folder, selected)


def sharded(source, parts, **more):
    counts = parts.count(source.shards())
    numbers = np.arange(len(CLASSES))
    return ShardedPool(
        source, parts, counts.entries, counts.sums, numbers, int(counts.images.sum()), **more
    )


def streamed(pool, **more):
    return StreamedPool(pool, **{"canvas": 8, "device": CPU, "lanes": 2, "window": 4} | more)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """17 entries of 17 images in four shards, one of which has none."""
    root = tmp_path_factory.mktemp("small")
    return sharded(*written(root, [len(its) for its in COPIES], COPIES))


def wanted(copies):
    return Counter({(shard << 32) + row: count for shard, its in enumerate(copies)
                    for row, count in enumerate(its) if count})  # fmt: skip


def seen(drawn):
    return drawn.pixels.at(drawn.places)


def rows(pool, start, count, seed=0):
    return pool.entries(start, count, seed=seed).rows.tolist()


@given(lanes=st.integers(1, 6), window=st.integers(1, 20), seed=st.integers(0, 3))
@hypothesis_settings(max_examples=25)
def test_an_epoch_has_each_kept_image_exactly_as_often_as_its_copies(small, lanes, window, seed):
    pool = streamed(small, lanes=lanes, window=window)
    total, epochs = 17, 3
    assert total == pool.total
    for lane in range(lanes):  # lengths differ by one, so lanes end their epochs on their own
        _, length = pool._range(lane)
        assert length in (total // lanes, total // lanes + 1)
    by_epoch = [Counter() for _ in range(epochs)]
    for lane in range(lanes):
        _, length = pool._range(lane)
        for at in range(epochs * length):
            by_epoch[at // length].update(pool._of_lane(lane, at, 1, seed).rows.tolist())
    assert by_epoch == [wanted(COPIES)] * epochs


def test_steps_of_any_size_give_what_the_lanes_hold_in_turn(small):
    for sizes in ([2] * 30, [10, 2, 4, 14, 30], [60]):
        pool, at, by_lane = streamed(small), 0, [[], []]
        for count in sizes:
            drawn = rows(pool, at, count)
            by_lane[0] += drawn[: count // 2]
            by_lane[1] += drawn[count // 2 :]
            at += count
        assert by_lane == [
            [streamed(small)._of_lane(lane, 0, 30, 0).rows.tolist()][0] for lane in range(2)
        ]


def test_a_draw_depends_on_its_place_and_seed_alone(small):
    forward = streamed(small)
    first = [rows(forward, 6 * step, 6) for step in range(12)]
    jumping = streamed(small)
    for step in (11, 3, 3, 0, 7, 5, 8):
        assert rows(jumping, 6 * step, 6) == first[step]
    assert [rows(forward, 6 * step, 6, seed=1) for step in range(12)] != first
    assert first[:3] != first[3:6]


def test_draws_that_overlap_give_what_they_give_in_turn(small):
    alone, together = streamed(small), streamed(small)
    steps = [step for first in range(0, 24, 4) for step in (first + 2, first, first + 3, first + 1)]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda step: rows(together, 6 * step, 6), steps))
    assert found == [rows(alone, 6 * step, 6) for step in steps]
    assert all(len(ready) <= 6 for ready in together._ready.values())


@pytest.mark.parametrize("world", [2, 3, 4, 8])
def test_any_number_of_processes_sees_the_same_batches(small, monkeypatch, world):
    whole = streamed(small, lanes=4)
    for step in range(6):
        parts = []
        for rank in range(world):
            part = slice(rank * 24 // world, (rank + 1) * 24 // world)
            with monkeypatch.context() as patched:
                patched.setattr(stream, "part_of", lambda count, part=part: part)
                parts.append(rows(streamed(small, lanes=4), 24 * step, 24))
        assert [len(part) for part in parts] == [24 // world] * world
        assert [row for part in parts for row in part] == rows(whole, 24 * step, 24)


def test_lanes_read_shards_of_their_own(tmp_path):
    pool = streamed(sharded(*written(tmp_path, [8] * 12)), lanes=4, window=8)
    of = [{row >> 32 for row in pool._of_lane(lane, 0, 24, 0).rows.tolist()} for lane in range(4)]
    assert [len(shards) for shards in of] == [3] * 4
    assert len(set.union(*of)) == 12


def test_a_window_is_shuffled_over_its_shards(tmp_path):
    pool = streamed(sharded(*written(tmp_path, [10, 10])), lanes=1, window=20)
    first, second = rows(pool, 0, 20), rows(pool, 20, 20)
    assert sorted(first) == sorted(second)
    assert first != second
    assert len({row >> 32 for row in first[:8]}) == 2


def test_images_and_targets_are_those_of_their_rows(small):
    pool = streamed(small)
    drawn = pool.draw(0, 18, seed=0)
    images = drawn.pixels.at(drawn.places)
    for row, image, target in zip(drawn.rows.tolist(), images, drawn.targets, strict=True):
        shard, inside = row >> 32, row & 0xFFFFFFFF
        labels = small.parts.read(shard, pool.shards[shard])
        pixels = np.array(decode(small.source.read(labels.names[inside]), 8))
        assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
        classes = labels.top_classes[inside].tolist()
        probs = labels.top_probs[inside].astype(np.float32)
        assert torch.allclose(target[classes], torch.from_numpy(probs), atol=2e-3)
    assert torch.allclose(drawn.targets.sum(-1), torch.ones(18))
    certain = StreamedPool(
        ShardedPool(**vars(small) | {"soft": False}), canvas=8, device=CPU, lanes=2, window=4
    ).draw(0, 18, seed=0)
    assert torch.equal(certain.targets.argmax(-1), drawn.targets.argmax(-1))
    assert set(certain.targets.unique().tolist()) == {0.0, 1.0}


def test_classes_are_matched_by_the_given_numbers(small):
    turned = ShardedPool(**vars(small) | {"numbers": np.array([2, 0, 1])})
    one, other = (streamed(pool).draw(0, 18, seed=0).targets for pool in (small, turned))
    assert torch.equal(one, other[:, [2, 0, 1]])


def test_unreadable_images_are_never_drawn(tmp_path):
    bad = ("pool-0.tar/00001.png", "pool-1.tar/00004.png")
    pool = streamed(sharded(*written(tmp_path, [3, 3], unreadable=bad)), lanes=1)
    assert Counter(rows(pool, 0, 4)) == wanted([[1, 0, 1], [1, 0, 1]])


def test_lanes_divide_every_batch():
    assert lanes_for([256], 10**6) == 8
    assert lanes_for([12, 18], 10**6) == 6
    assert lanes_for([7 * 11], 10**6) == 7
    assert lanes_for([13], 10**6) == 1
    assert lanes_for([256], 3) == 2


def batches(pool, **more):
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    options = {
        "batch": 4, "ratio": 2, "noise": Noise(), "seed": 0, "views": ("weak", ("weak", "strong")),
        "stages": [Stage(steps=3, size=8, magnitude=5.0, batch=batch) for batch in (None, 6)],
    } | more  # fmt: skip
    return Batches(LabeledSet(InMemory(images), torch.tensor([0, 1, 2, 0]), 3), pool, **options)


def test_batches_from_shards_are_a_function_of_the_step(small):
    forward, first = batches(streamed(small)), []
    for step in range(6):
        first.append(forward.at(step).pool())
    assert [len(part.rows) for part in first] == [8, 8, 8, 12, 12, 12]
    jumping = batches(streamed(small))
    for step in (5, 1, 2, 2, 4, 0):
        part = jumping.at(step).pool()
        assert torch.equal(part.rows, first[step].rows)
        assert torch.equal(part.targets, first[step].targets)
        assert_same(dict(part.views), dict(first[step].views))


class Listed:
    """A streamed pool's draws out of the same images as a list of names has them."""

    in_memory = False

    def __init__(self, pool, canvas):
        self.pool = pool
        names = [name for its in names_of(pool.pool.source).values() for name in its]
        self.ids = [(shard << 32) + row for shard, its in enumerate(COPIES)
                    for row in range(len(its))]  # fmt: skip
        self.disk = OnDisk(Images(pool.pool.source, tuple(names)), canvas, CPU)

    def __len__(self):
        return len(self.pool)

    def draw(self, start, count, *, seed):
        drawn = self.pool.draw(start, count, seed=seed)
        places = torch.tensor([self.ids.index(row) for row in drawn.rows.tolist()])
        return replace(drawn, pixels=self.disk, places=places)


@pytest.mark.parametrize(("canvas", "size"), [(110, 96), (32, 32)])
def test_photos_from_shards_give_the_views_of_photos_in_files(tmp_path, canvas, size):
    source = WebDataset(str(tmp_path / "pool"))
    for shard, its in enumerate(COPIES):
        write_tar(
            tmp_path / "pool" / f"pool-{shard}.tar",
            {f"{shard}{row}.png": png(10 * shard + row, 150, 120) for row in range(len(its))},
        )
    labels = write_labels(tmp_path / "labels", names_of(source), classes=CLASSES)
    pool = streamed(sharded(source, Parts(labels)), canvas=canvas)
    stages = [Stage(steps=2, size=size // 2, crop=size, magnitude=5.0),
              Stage(steps=2, size=size, magnitude=5.0)]  # fmt: skip
    views = ("strong", ("weak", "strong", "plain"))
    more = {"stages": stages, "views": views, "noise": Noise(crop="resized")}
    from_shards, from_files = batches(pool, **more), batches(Listed(pool, canvas), **more)
    for step in range(4):
        assert_same(from_shards.at(step).pool().views, from_files.at(step).pool().views)


def test_an_image_that_cannot_be_read_is_named_and_never_replaced(tmp_path):
    source, parts = written(tmp_path, [4])
    path = tmp_path / "pool" / "pool-0.tar"
    data = bytearray(path.read_bytes())
    offset = int(source.images_in("pool-0.tar").offsets[2])
    data[offset : offset + 60] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(DataProblem, match=r"pool/pool-0\.tar/00002\.png can't be read"):
        seen(streamed(sharded(source, parts), lanes=1).draw(0, 4, seed=0))
    pool = streamed(sharded(source, parts), lanes=1)
    drawn = pool.draw(0, 1, seed=0)
    path.unlink()
    with pytest.raises(DataProblem, match=r"pool-0\.tar/0000\d\.png is gone; put it back"):
        seen(drawn)


def test_labels_of_other_images_are_refused(tmp_path):
    source, parts = written(tmp_path, [3, 3])
    pool = sharded(source, parts)
    write_tar(tmp_path / "pool" / "pool-1.tar", {f"{i}.png": png(i) for i in range(2)})
    with pytest.raises(
        DataProblem, match=r"part-00001\.parquet has 3 rows and shard pool-1\.tar has 2"
    ):
        streamed(pool, lanes=1).draw(0, 6, seed=0)  # fmt: skip
    write_tar(tmp_path / "pool" / "pool-1.tar", {f"{i}.png": png(i) for i in range(3)})
    with pytest.raises(DataProblem, match=r"row 0 of .*part-00001.* shard pool-1\.tar has 0\.png"):
        streamed(pool, lanes=1).draw(0, 6, seed=0)


def test_a_selection_that_changes_while_it_is_used_is_noticed(tmp_path):
    source, parts = written(tmp_path, [3], [[1, 2, 0]])
    pool = sharded(source, parts)
    write_selection(tmp_path / "selected", [[1, 1, 0]])
    with pytest.raises(DataProblem, match="have changed since the run began"):
        streamed(pool, lanes=1).draw(0, 3, seed=0)


def test_labels_of_another_teacher_are_noticed_where_a_run_goes_on(tmp_path):
    source, parts = written(tmp_path, [3])
    pool = sharded(source, parts)
    probs = np.random.default_rng(1).dirichlet(np.ones(3), 3)
    write_labels(parts.labels, names_of(source), classes=CLASSES, teacher="t2", probs=probs)
    with pytest.raises(DataProblem, match="have changed since the run began"):
        streamed(pool, lanes=1).draw(0, 3, seed=0)


def test_a_selection_of_labels_that_were_made_anew_is_refused(tmp_path):
    source, parts = written(tmp_path, [30, 30])
    rule = Select(threshold=0.5, balance=False)
    select_parts(parts.labels, tmp_path / "selected", rule, screen=Screen())
    parts = Parts(parts.labels, tmp_path / "selected")
    assert 0 < parts.count(source.shards()).entries.sum() < 60
    probs = np.random.default_rng(1).dirichlet(np.ones(3), 60)
    write_labels(parts.labels, names_of(source), classes=CLASSES, probs=probs)
    with pytest.raises(DataProblem, match=r"00000.* was selected from other labels .*select anew"):
        parts.count(source.shards())


def test_no_whole_file_of_another_folder_is_said_to_be_deleted(tmp_path):
    source, parts = written(tmp_path, [3], [[1, 1, 1]])
    labels, selected = parts.labels, tmp_path / "selected"
    (labels / "selection.json").write_text("{}")
    for swapped, what in ((Parts(selected), "labels"), (Parts(labels, labels), "a selection")):
        with pytest.raises(DataProblem, match=f"is no part of {what} .*give the --out") as raised:
            swapped.count(source.shards())
        assert "delete" not in str(raised.value)


def test_a_shard_that_has_changed_comes_with_the_way_back(tmp_path):
    source, parts = written(tmp_path, [3])
    pool = sharded(source, parts)
    write_tar(tmp_path / "pool" / "pool-0.tar", {"other.png": png(9)})
    with pytest.raises(DataProblem, match="put it back, or delete that part, label the pool again"):
        streamed(pool, lanes=1).draw(0, 3, seed=0)


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda r: (r / "labels" / "part-00001.parquet").unlink(), r"1 of 2 parts are missing .*00001"),
    (lambda r: (r / "labels" / "part-00001.parquet").write_bytes(b"?"), "00001.parquet is damaged"),
    (lambda r: (r / "selected" / "selection.json").unlink(), "has no selection.json: select to"),
    (lambda r: write_selection(r / "selected", [[1, 1, 1], [1, 1]]), "has 2 rows and the labels"),
    (lambda r: write_selection(r / "selected", [[1, 1, -1], [1] * 3]), "has negative copies"),
    (lambda r: write_selection(r / "selected", [[1] * 3] * 2, teacher="t2"), "of teacher t2"),
    (lambda r: write_selection(r / "selected", [[1] * 3] * 3), "has 3 parts and the pool has 2"),
    (lambda r: write_labels(r / "labels", {"x.tar": ["x.tar/1", "x.tar/2", "x.tar/3"]},
                            classes=CLASSES), "has the labels of shard x.tar, and at its place"),
    (lambda r: write_labels(r / "labels", {"pool-0.tar": ["a", "b", "c"]},
                            classes=CLASSES, teacher="t2"), "labeled by another teacher"),
])  # fmt: skip
def test_parts_that_do_not_fit_the_pool_are_refused(tmp_path, spoil, said):
    source, parts = written(tmp_path, [3, 3], [[1] * 3] * 2)
    spoil(tmp_path)
    with pytest.raises(DataProblem, match=said):
        parts.count(source.shards())


def test_an_empty_selection_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no pool image was selected"):
        sharded(*written(tmp_path, [3], [[0, 0, 0]]))


# ---- training


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Toy images, and their pool in three shards with labels and a selection."""
    root = toy.write_toy(tmp_path_factory.mktemp("toy"), pool=30)
    files = sorted((root / "pool").iterdir())
    for number in range(3):
        its = files[number * 10 : number * 10 + 10]
        write_tar(root / "shards" / f"pool-{number}.tar", {f.name: f.read_bytes() for f in its})
    source = WebDataset(str(root / "shards"))
    probs = np.full((30, 4), 0.02)
    probs[np.arange(30), np.arange(30) % 4] = 0.94
    write_labels(root / "labels", names_of(source), classes=toy.CLASSES, probs=probs)
    write_selection(root / "selected", [[1, 2, 0, 1, 1, 3, 1, 1, 1, 0]] * 3)
    return root


def settings_for(root: Path, out: Path, **more):
    return toy.train_settings(
        root, out, unlabeled=f"{root}/shards/pool-{{0..2}}.tar", labels=root / "labels",
        selected=root / "selected", ratio=2, **more,
    )  # fmt: skip


def flags_for(root: Path, out: Path, **more) -> list[str]:
    pairs = settings_for(root, out, **more).items()
    return [part for k, v in pairs for part in (f"--{k.replace('_', '-')}", str(v))]


def test_a_student_learns_from_labels_and_shards(images, tmp_path):
    done = tutelage.train(**settings_for(images, tmp_path / "run", val_fraction=0.25))
    assert (done.content["stages"]["pool"]["teacher"], done.verdict) == ("t1", None)
    lines = (tmp_path / "run" / "rounds" / "00-noisy-student" / "metrics.jsonl").read_text()
    assert "pseudo" in json.loads(lines.splitlines()[0])
    assert "33 entries an epoch" in (tmp_path / "run" / "logs" / "log.txt").read_text()
    again = tutelage.train(**settings_for(images, tmp_path / "run", val_fraction=0.25))
    assert again.summary == done.summary


def test_the_stored_targets_reach_the_student(images, tmp_path):
    ends = []
    for name, more in (("soft", {"temperature": 2}), ("hard", {"pool_targets": "hard"})):
        tutelage.train(**settings_for(images, tmp_path / name, steps=2, **more))
        log = tmp_path / name / "rounds" / "00-noisy-student" / "metrics.jsonl"
        ends.append(json.loads(log.read_text().splitlines()[0])["pseudo"])
    assert ends[0] != ends[1]


@pytest.mark.parametrize("method", ["fixmatch", "freematch"])
def test_a_method_that_remembers_no_images_takes_the_shards_too(images, tmp_path, method):
    done = tutelage.train(**settings_for(images, tmp_path / "run", method=method))
    assert done.content["stages"][f"00-{method}"]["state"] == "done"


def test_what_cannot_be_streamed_is_refused_with_what_to_do(images, tmp_path):
    starts = itertools.count()

    def refused(said, error=UsageError, **more):
        with pytest.raises(error, match=said):
            tutelage.train(**settings_for(images, tmp_path / f"run{next(starts)}") | more)

    refused("--labels are those of a pool", unlabeled=None)
    refused("--selected is for a pool with --labels", labels=None)
    refused("has no tar shards to train from: `tutelage selftrain`", unlabeled=str(images / "pool"))
    refused("flexmatch remembers something of each pool image", method="flexmatch")
    refused("supervised doesn't look at a pool", method="supervised")
    refused("needs a teacher: use `tutelage selftrain`", method="meta-pseudo-labels")
    refused("give the --labels", method="noisy-student", labels=None, selected=None)
    refused("--temperature is for --pool-targets soft", pool_targets="hard", temperature=2.0)
    refused("1 of the 3 parts|parts and the pool has 2", DataProblem,
            unlabeled=f"{images}/shards/pool-{{0..1}}.tar")  # fmt: skip
    other = write_labels(tmp_path / "other", names_of(WebDataset(str(images / "shards"))),
                         classes=("dot", "line", "square", "vertical"))  # fmt: skip
    refused("'line' is no class of the data", labels=other, selected=None)


def test_shards_of_a_test_split_stay_out_of_the_pool(images, tmp_path):
    for number, name in enumerate(("test-0.tar", "train-0.tar", "train-1.tar")):
        data = (images / "shards" / f"pool-{number}.tar").read_bytes()
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / "pool" / name).write_bytes(data)
    out, pool = tmp_path / "labels", str(tmp_path / "pool")
    teacher = tutelage.train(**toy.train_settings(images, tmp_path / "teacher", steps=2))
    tutelage.label(model=teacher.run, data=pool, out=out)
    assert "1 shards of validation or test splits stay out" in (out / "issues.csv").read_text()
    selected = tutelage.select(out, out=tmp_path / "selected", rule=Select(threshold=0))
    assert sum(selected.content["reasons"].values()) == 20  # the balance is that of the pool alone
    given = {"unlabeled": pool, "labels": out, "selected": selected.folder}
    tutelage.train(**settings_for(images, tmp_path / "run", steps=2) | given)
    said = (tmp_path / "run" / "logs" / "log.txt").read_text()
    assert "1 shards of val or test splits stay out" in said
    assert f"2 shards, 20 images, {selected.content['entries']} entries an epoch" in said


@pytest.mark.slow
def test_a_killed_training_from_shards_goes_on_bit_for_bit(images, tmp_path):
    calm, out = tmp_path / "calm", tmp_path / "killed"
    tutelage.train(**settings_for(images, calm, steps=12))
    flags = ["train", *flags_for(images, out, steps=12)]
    for stage, number in (("pool", 2), ("00-noisy-student", 5)):
        killed = starts.run(starts.KILLER, stage, number, *flags)
        assert killed.returncode == -signal.SIGKILL, f"{stage} {number}: {killed.stderr}"
    assert list((out / "rounds" / "00-noisy-student").glob("*.pt"))  # the last, or the one before
    tutelage.train(**settings_for(images, out, steps=12))
    assert_same(*(toy.weights_of(run, "00-noisy-student") for run in (calm, out)))


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    for number in range(2):
        write_tar(tmp_path / f"pool-000{number}.tar", {f"{i}.jpg": png(i) for i in range(3)})
    page = Path(__file__).parents[1] / "docs" / "streaming.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), found := {})
    assert capsys.readouterr().out == "2 shards, 6 images\n"
    assert found["image"] == png(0)
