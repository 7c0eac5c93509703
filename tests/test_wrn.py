"""The benchmark for a GPU, as far as a CPU can tell: its floor, its tables, and going on."""

import json
import signal
import time

import numpy as np
import pytest
import torch
from benchmarks.wrn import FULL, SMALL, Size, ending_after, few, images_of, main
from benchmarks.wrn_floor import (
    Card,
    Passes,
    Work,
    floor_rate,
    floor_seconds,
    passes,
    tables,
    work_of,
)
from benchmarks.wrn_speed import Case, batches_of, speed_row

from tutelage.core import Batch
from tutelage.data.source import Listing
from tutelage.errors import Interrupted
from tutelage.networks.build import Net

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-10's binary files, with 20 images each."""
    root = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(20) % 10
        (root / f"{name}.bin").write_bytes(rows.tobytes())
    names = "\n".join(f"class {number}" for number in range(10))
    (root / "batches.meta.txt").write_text(names)
    return root


# channels and sides of what goes in and comes out, and the side of the kernel
WRN_10_1 = [
    (3, 32, 16, 32, 3), (16, 32, 16, 32, 3), (16, 32, 16, 32, 3),
    (16, 32, 32, 16, 3), (16, 32, 32, 16, 1), (32, 16, 32, 16, 3),
    (32, 16, 64, 8, 3), (32, 16, 64, 8, 1), (64, 8, 64, 8, 3), (64, 1, 10, 1, 1),
]  # fmt: skip


def test_a_networks_work_is_that_of_its_layers_by_hand():
    found = work_of(Net(name="wrn-10-1", num_classes=10, img_size=32))
    assert found.flops == sum(2 * i * o * t * t * k * k for i, _, o, t, k in WRN_10_1)
    assert found.read == sum(2 * i * s * s for i, s, _, _, _ in WRN_10_1)
    assert found.written == sum(2 * o * t * t for _, _, o, t, _ in WRN_10_1)


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    work = Work(flops=100, read=10, written=20)
    step = Passes(forward=1, backward=1)  # 300 operations; 30 bytes forward and 40 backward
    assert floor_seconds(work, step, Card(flops=300, bandwidth=1e9)) == 1
    assert floor_seconds(work, step, Card(flops=1e9, bandwidth=35)) == 2
    assert floor_rate(work, "supervised", 7, Card(flops=300, bandwidth=1e9)) == 1
    # 15 images go through the network for each of 8 that are counted
    assert floor_rate(work, "fixmatch", 7, Card(flops=300, bandwidth=1e9)) == pytest.approx(8 / 15)


def test_meta_pseudo_labels_passes_are_those_of_teacher_lesson_exams_and_derivative():
    assert passes("meta-pseudo-labels", 7) == Passes(15 + 7 + 1 + 1 + 21, 15 + 7 + 1)
    assert passes("reduced-meta-pseudo-labels", 7) == Passes(7 + 1 + 1 + 21, 7 + 1)


def test_tables_say_accuracy_interval_time_and_share_of_the_floor():
    rates = {"supervised": 1000, "fixmatch": 500}
    rows = [
        {"stage": "floor", "card": "one", "flops": 2e14, "bandwidth": 3e12, "image_flops": 4e8,
         "image_bytes": 2e6, "images_per_second": rates},
        {"stage": "speed", "method": "fixmatch", "batch": 64, "compile": True, "fit_ms": 10.0,
         "bare_ms": 9.9, "ahead_ms": 9.5, "ratio": [1.0, 1.01, 1.02], "images_per_second": 51200.0,
         "share_of_floor": 0.25, "syncs": 0},
        {"stage": "train", "training": "fixmatch-large", "batch": 512, "steps": 4000,
         "accuracy": {"right": 9500, "total": 10000}, "baseline": {"right": 8200, "total": 10000},
         "minutes": 8.0, "images_per_second": 125.0},
    ]  # fmt: skip
    text = tables(rows)
    assert "one: 200.0 TFLOP/s in bf16, 3,000 GB/s; an image is 400 MFLOP and 2.0 MB" in text
    timed = "| 10.00 | 9.90 | 1.010 (1.000 to 1.020) | 9.50 | 51,200 | 25.0% | 0 |"
    assert f"| fixmatch, batch 64, compiled {timed}" in text
    trained = "| 95.00% (94.56% to 95.41%) | 82.00% | 8.0 | 4,000 | 125 | 25.0% |"
    assert f"| fixmatch-large, batch 512 {trained}" in text


def test_labels_are_as_many_of_each_class_and_follow_the_seed():
    names = tuple(map(str, range(60)))
    listing = Listing(names, tuple("abc"[number % 3] for number in range(60)))
    rows = range(10, 60)
    chosen = few(listing, rows, 5, 0)
    assert [sum(row % 3 == kind for row in chosen) for kind in range(3)] == [5, 5, 5]
    assert chosen == few(listing, rows, 5, 0) != few(listing, rows, 5, 1)
    assert few(listing, rows, None, 0) == list(rows)


def test_published_files_become_labels_pool_and_test(cifar):
    size = Size("wrn-10-1", 3, None, None, (4,), 2, steps=10, pairs=2, timed=40)
    parts = images_of(cifar, size, 0)
    images, labels = parts["data"]
    assert images.shape == (30, 32, 32, 3)
    assert len(parts["unlabeled"]) == 70
    assert parts["test"][0].shape == (20, 32, 32, 3)
    assert set(labels.tolist()) == {f"class {number}" for number in range(10)}
    seen = {image.tobytes() for image in (*images, *parts["unlabeled"])}
    assert len(seen) == 100
    assert not seen & {image.tobytes() for image in parts["test"][0]}


def test_work_ends_by_itself_and_the_signal_is_as_before_it():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), ending_after(0.1 / 60):
        time.sleep(10)
    with ending_after(0.2 / 60):
        pass
    time.sleep(0.3)
    assert signal.getsignal(signal.SIGTERM) == before


def test_both_loops_are_timed_over_the_same_steps(tmp_path):
    case = Case(
        net=Net(name="test_resnet", num_classes=10, img_size=32, small_stem=True), device=CPU,
        method="fixmatch", compile=False, batch=2, ratio=2, steps=11, pairs=2, images=20,
    )  # fmt: skip
    first, second = batches_of(case), batches_of(case)
    assert same(first.at(7), second.at(7))
    found = speed_row(case, tmp_path, 1e6)
    assert found["images_per_second"] == pytest.approx(6 / (found["fit_ms"] / 1e3))
    assert found["syncs"] is None
    profile = json.loads((tmp_path / found["profile"]).read_text())
    assert len(profile["processor"]) == 10
    assert profile["device"] == []


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(view, other.pool().views[name]) for name, view in one.pool().views.items()
    )


def test_the_small_run_stops_in_time_and_the_same_command_goes_on(cifar, tmp_path, capsys):
    arguments = [str(cifar), "--out", str(tmp_path), "--small", "--device", "cpu", "--length", "2",
                 "--stages", "floor", "train", "--trainings", "supervised"]  # fmt: skip
    assert main([*arguments, "--minutes", "0.0001"]) == 4
    assert "the same command goes on" in capsys.readouterr().err
    assert main(arguments) == 0
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["floor", "train"]
    assert "| supervised, batch 4 |" in capsys.readouterr().out
    assert main(arguments) == 0
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == lines


def test_the_small_size_leaves_no_stage_out():
    assert SMALL.steps >= 10  # which are looked into
    assert FULL.labels * 10 == 4000
