import gc
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import listed, pixels, write_pool

from tutelage.core import Dice, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory, OnDisk, open_pixels
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet, positions
from tutelage.data.threads import lone_threads
from tutelage.errors import DataProblem, UsageError
from tutelage.settings import Noise

STAGES = (
    Stage(steps=3, size=8, magnitude=0.0),
    Stage(steps=2, size=12, magnitude=5.0, cutout=0.5),
    Stage(steps=4, size=16, magnitude=10.0),
)


def in_memory(count, first=0):
    return InMemory(torch.from_numpy(np.stack([pixels(first + i) for i in range(count)])))


def labeled_set(count=5):
    return LabeledSet(in_memory(count), torch.arange(count) % 3, 3)


def pool_set(copies=(1, 3, 2), rows=(4, 0, 2), pixels=None):
    targets = StoredTargets(torch.arange(len(rows))[:, None], torch.ones(len(rows), 1), 3)
    pixels = in_memory(6, first=50) if pixels is None else pixels
    return PoolSet(pixels, torch.tensor(rows), torch.tensor(copies), targets)


def batches(labeled=None, pool=None, *, views=("plain", ("plain",)), stages=STAGES, **changes):
    options = {"batch": 4, "ratio": 2, "noise": Noise(), "seed": 0} | changes
    return Batches(labeled or labeled_set(), pool, stages=stages, views=views, **options)


def assert_equal_batches(one, other):
    assert torch.equal(one.labeled.images, other.labeled.images)
    assert torch.equal(one.labeled.targets, other.labeled.targets)
    assert torch.equal(one.pool().rows, other.pool().rows)
    assert torch.equal(one.pool().targets, other.pool().targets)
    assert one.pool().views.keys() == other.pool().views.keys()
    for name, view in one.pool().views.items():
        assert torch.equal(view, other.pool().views[name])


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 5))
def test_each_epoch_is_a_permutation_whatever_the_batch(length, batch, seed):
    steps = -(-3 * length // batch)
    drawn = torch.cat(
        [
            positions(step * batch, batch, length, seed=seed, use=Dice.POOL_ORDER)
            for step in range(steps)
        ]
    )
    for epoch in range(3):
        order = drawn[epoch * length : (epoch + 1) * length]
        assert torch.equal(order.sort().values, torch.arange(length))


def test_epochs_seeds_and_uses_are_shuffled_differently():
    orders = {
        tuple(positions(20 * step, 20, 20, seed=seed, use=use).tolist())
        for step in range(3)
        for seed in range(3)
        for use in (Dice.LABELED_ORDER, Dice.POOL_ORDER)
    }
    assert len(orders) == 18


def test_a_batch_larger_than_the_set_goes_round():
    drawn = positions(0, 10, 3, seed=0, use=Dice.LABELED_ORDER)
    assert torch.bincount(drawn[:9]).tolist() == [3, 3, 3]


def test_images_come_with_their_own_targets():
    labels = labeled_set()
    for step in range(3):
        batch = batches(labels).at(step).labeled
        for image, target in zip(batch.images, batch.targets, strict=True):
            originals = labels.pixels.images.permute(0, 3, 1, 2) / 255
            row = int((originals - image).abs().amax((1, 2, 3)).argmin())
            assert torch.allclose(originals[row], image)
            assert torch.equal(labels.targets(torch.tensor([row]))[0], target)


def test_pool_images_come_with_their_own_targets_and_as_often_as_they_are_copied():
    pool, counts = pool_set(), Counter()
    made = batches(pool=pool, batch=3, ratio=1, stages=[Stage(steps=2, size=8, magnitude=0)])
    for step in range(2):  # one epoch is 6 entries
        part = made.at(step).pool()
        counts.update(part.rows.tolist())
        for row, image, target in zip(part.rows, part.views["plain"], part.targets, strict=True):
            assert torch.equal(image, pool.pixels.images[row].permute(2, 0, 1) / 255)
            entry = torch.tensor([pool.rows.tolist().index(row)])
            assert torch.equal(target, pool.targets.at(entry)[0])
    assert counts == {4: 1, 0: 3, 2: 2}


def test_a_batch_is_a_function_of_the_step_alone():
    views = ("strong", ("weak", "strong"))
    forward = batches(pool=pool_set(), views=views)
    first = [forward.at(step) for step in range(9)]
    torch.manual_seed(99)
    backward = batches(pool=pool_set(), views=views)
    for step in (8, 3, 3, 0, 7, 5):
        assert_equal_batches(backward.at(step), first[step])
    assert not torch.equal(first[0].labeled.images, first[1].labeled.images)


def test_labels_and_pool_are_shuffled_and_disturbed_independently_and_anew_at_each_step():
    pool = pool_set(copies=[1] * 20, rows=tuple(range(20)), pixels=in_memory(20))
    same = PoolSet(pool.pixels, pool.rows, pool.copies)
    labels = LabeledSet(in_memory(20), torch.arange(20), 20)
    batch = batches(labels, same, batch=20, ratio=1).at(0)
    assert batch.labeled.targets.argmax(-1).tolist() != batch.pool().rows.tolist()
    one = LabeledSet(in_memory(1), torch.arange(1), 1)
    only = PoolSet(in_memory(1), torch.tensor([0]), torch.tensor([1]))
    made = batches(
        one, only, views=("strong", ("strong",)), stages=STAGES[2:], batch=1, ratio=1
    )  # the same image again and again
    seen = [
        view
        for s in range(4)
        for view in (made.at(s).labeled.images, *made.at(s).pool().views.values())
    ]
    assert len({view.numpy().tobytes() for view in seen}) > 6


def test_another_seed_gives_other_batches():
    one, other = (batches(pool=pool_set(), views=("weak", ("weak",)), seed=s) for s in (0, 1))
    assert not torch.equal(one.at(0).labeled.images, other.at(0).labeled.images)
    assert not torch.equal(one.at(0).pool().views["weak"], other.at(0).pool().views["weak"])


def test_images_on_disk_and_in_memory_give_identical_batches(tmp_path):
    paths = listed(sorted(write_pool(tmp_path, 6, first=50).iterdir()))
    views = ("strong", ("strong",))
    disk = OnDisk(paths, 8, torch.device("cpu"))
    labels = torch.arange(6) % 3, 3
    from_memory = batches(LabeledSet(in_memory(6, 50), *labels), pool_set(), views=views)
    from_disk = batches(LabeledSet(disk, *labels), pool_set(pixels=disk), views=views)
    for step in (0, 1, 2, 5, 6, 4, 8):  # in order, and with jumps past what was decoded ahead
        assert_equal_batches(from_disk.at(step), from_memory.at(step))


def test_batches_from_files_are_made_on_one_core_each_and_leave_the_program_its_threads(
    tmp_path, monkeypatch
):
    count, seen = torch.get_num_threads(), set()
    real = Batches._make
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(
            Batches, "_make", lambda *a: seen.add(torch.get_num_threads()) or real(*a)
        )
        paths = sorted(write_pool(tmp_path, 6, first=50).iterdir())
        disk = OnDisk(listed(paths), 8, torch.device("cpu"))
        batches(LabeledSet(disk, torch.arange(6), 6), batch=3).at(0)
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(count)


def test_where_a_thread_can_not_begin_the_others_do_not_wait_for_it(monkeypatch):
    real, begun, count = threading.Thread.start, [], torch.get_num_threads()

    def start(thread):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        lone_threads(2)
    gc.collect()
    begun[0].join(10)
    assert not begun[0].is_alive()
    assert torch.get_num_threads() == count


def test_opened_pixels_are_the_same_both_ways(tmp_path):
    paths = listed(sorted(write_pool(tmp_path, 5, first=0, side=11).iterdir()))
    heard = []
    cpu = torch.device("cpu")
    memory = open_pixels(paths, 8, cpu, in_memory=True, advance=heard.append)
    disk = open_pixels(paths, 8, cpu, in_memory=False)
    rows = torch.tensor([4, 0, 0, 2])
    assert torch.equal(memory.at(rows), disk.at(rows))
    assert memory.at(rows).shape == (4, 3, 8, 8)
    assert (len(memory), len(disk), sum(heard)) == (5, 5, 5)


def test_stages_change_at_their_boundaries():
    made = batches()
    assert [made.stage(step) for step in range(9)] == [
        *[STAGES[0]] * 3, *[STAGES[1]] * 2, *[STAGES[2]] * 4,
    ]  # fmt: skip
    assert made.total == 9
    assert [made.at(step).labeled.images.shape[-1] for step in (2, 3, 4, 5)] == [8, 12, 12, 16]


def test_a_damaged_image_on_disk_stops_the_training_with_its_name(tmp_path):
    paths = sorted(write_pool(tmp_path, 6, first=50).iterdir())
    disk = OnDisk(listed(paths), 8, torch.device("cpu"))
    made = batches(LabeledSet(disk, torch.arange(6), 6), batch=3)
    made.at(0)
    for path in paths:
        path.write_bytes(b"damaged")
    with pytest.raises(DataProblem, match=r"005\d\.png.*put it back"):
        [made.at(step) for step in range(1, 4)]


def test_targets_are_made_for_a_batch_and_not_for_all_images():
    images, classes = 10**6, 10**6  # whose targets would take 4 TB
    made = LabeledSet(range(images), torch.arange(images), classes)
    found = made.targets(torch.tensor([7, 999_999]))
    assert found.shape == (2, classes)
    assert found.nonzero().tolist() == [[0, 7], [1, 999_999]]


def test_the_sizes_are_those_of_batch_and_ratio_and_no_pool_is_none():
    batch = batches(pool=pool_set(), batch=3, ratio=5).at(0)
    assert len(batch.labeled.images) == 3
    assert len(batch.pool().rows) == 15
    assert batches().at(0).unlabeled is None
    assert batches(pool=pool_set(), views=("plain", ())).at(0).unlabeled is None


def test_sets_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match="5 images with 4 labels"):
        LabeledSet(in_memory(5), torch.arange(4), 4)
    with pytest.raises(UsageError, match="no pool image was selected"):
        pool_set(copies=(), rows=())
    with pytest.raises(UsageError, match="no view is called 'stong': there are plain, weak"):
        batches(views=("stong", ()))
