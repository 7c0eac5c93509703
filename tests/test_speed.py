"""How fast models are: known times, memory that runs out, the front, and ONNX."""

import math
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tutelage.deploy import onnx_model
from tutelage.deploy.model_folder import Model
from tutelage.errors import TutelageError, UsageError, out_of_memory
from tutelage.networks.build import Net, build
from tutelage.speed import machine, runners
from tutelage.speed.counts import Alive, Counts, count
from tutelage.speed.pareto import pareto_front
from tutelage.speed.rows import Row, latency
from tutelage.speed.runners import Eager, Onnx, Runner, random_images
from tutelage.speed.timing import Protocol, Timed, best_batch, reason, time_in_turns

QUICK = Protocol(
    warmup=2, warmup_seconds=0, passes=6, seconds=0, turn_passes=3, turn_seconds=0,
    search_passes=2, search_seconds=0,
)  # fmt: skip
COUNTS = Counts(10, 40, 1000, 80)


class Fake(Runner):
    """A model that takes a known time, on a clock of its own."""

    def __init__(self, seconds, *, first=0.0, most=None, log=None, name=""):
        self.seconds, self.first, self.most = seconds, first, most
        self.now, self.batch, self.calls, self.waits = 0.0, 0, 0, 0
        self.log, self.name = log if log is not None else [], name
        self.pending = 0.0

    def load(self, batch):
        self.batch = batch
        if self.most is not None and batch > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    def run(self):
        self.calls += 1
        self.log.append(self.name)
        each = self.seconds(self.batch) if callable(self.seconds) else self.seconds
        self.pending += each + (self.first if self.calls == 1 else 0)

    def wait(self):
        self.waits += 1
        self.now += self.pending
        self.pending = 0.0

    def peak_bytes(self):
        return 1000 * self.batch

    def close(self):
        self.batch = 0

    def tick(self):
        """The device's time: what was not waited for is not in it."""
        return self.now


class Sleeper(Fake):
    """A model that really takes its time."""

    def wait(self):
        self.waits += 1
        if self.pending:
            time.sleep(self.pending)
        self.pending = 0.0


def test_a_network_that_sleeps_5_ms_takes_5_ms():
    runner = Sleeper(0.005)
    timed = time_in_turns({"it": runner}, {"it": 4}, QUICK)["it"]
    found = latency(timed.seconds)
    assert min(timed.seconds) >= 0.005
    assert found.p50 < 0.05  # a busy machine wakes late, and never early
    row = Row(name="it", counts=COUNTS, file_bytes=1, one=timed, many=timed)
    assert row.images_per_second == pytest.approx(4 / found.p50)
    assert row.images_per_second <= 4 / 0.005


def test_the_first_slow_call_does_not_appear():
    runner = Fake(0.005, first=1.0)
    timed = time_in_turns({"it": runner}, {"it": 1}, QUICK, tick=runner.tick)["it"]
    assert timed.seconds == pytest.approx([0.005] * len(timed.seconds))
    assert len(timed.seconds) >= QUICK.passes
    assert runner.calls > len(timed.seconds) + QUICK.warmup


def test_each_timed_pass_is_waited_for_before_and_after():
    runner = Fake(0.005)
    time_in_turns({"it": runner}, {"it": 1}, QUICK, tick=runner.tick)
    assert runner.waits == 2 * runner.calls


def test_warm_up_and_times_last_as_long_as_is_asked():
    runner = Fake(0.01)
    protocol = Protocol()
    timed = time_in_turns({"it": runner}, {"it": 1}, protocol, tick=runner.tick)["it"]
    assert sum(timed.seconds) >= 2.0
    assert runner.calls - len(timed.seconds) >= 100  # a second of warm-up
    slow = Fake(0.5)
    timed = time_in_turns({"it": slow}, {"it": 1}, protocol, tick=slow.tick)["it"]
    assert len(timed.seconds) >= 50
    crawling = Fake(20.0)
    timed = time_in_turns({"it": crawling}, {"it": 1}, protocol, tick=crawling.tick)["it"]
    assert len(timed.seconds) == 3  # a minute is enough
    row = Row(name="it", counts=COUNTS, file_bytes=1, one=timed)
    assert row.unreliable(2, protocol) == ["time for 3 passes alone in latency"]


def test_models_take_turns():
    log = []
    both = {name: Fake(0.001, log=log, name=name) for name in "ab"}
    time_in_turns(both, dict.fromkeys(both, 1), QUICK, tick=both["a"].tick)
    turns = [name for place, name in enumerate(log) if place == 0 or log[place - 1] != name]
    assert turns[-4:] == ["a", "b", "a", "b"]


def test_one_that_fails_is_a_row_with_the_reason_and_the_others_go_on():
    both = {"fits": Fake(0.001), "large": Fake(0.001, most=0)}
    found = time_in_turns(both, dict.fromkeys(both, 1), QUICK, tick=both["fits"].tick)
    assert list(found) == ["fits", "large"]
    assert not found["fits"].failure
    assert found["large"].failure == "out of memory"
    row = Row(name="large", counts=COUNTS, file_bytes=1, one=found["large"])
    plain = row.plain(2, QUICK)
    assert (plain["failure"], plain["latency"]) == ("out of memory", None)
    assert plain["samples"] == {"latency": []}


def test_batches_grow_until_there_is_no_gain():
    runner = Fake(lambda batch: 0.001 * max(batch, 8))  # 8 units that work at once
    found = best_batch(runner, QUICK, tick=runner.tick)
    assert found.batch == 8
    assert [batch for batch, _ in found.tried] == [1, 2, 4, 8, 16]
    assert found.tried[3][1] == pytest.approx(1000)
    assert found.stopped == "batch 16 gave less than 3 % more"


def test_memory_that_runs_out_ends_the_search_and_is_recorded():
    runner = Fake(0.001, most=4)
    found = best_batch(runner, QUICK, tick=runner.tick)
    assert (found.batch, found.stopped) == (4, "batch 8 is out of memory")
    found = best_batch(Fake(0.001), QUICK, fits=lambda batch: batch <= 2, tick=runner.tick)
    assert found.stopped == "batch 4 was not tried: it may not fit into memory"
    nothing = best_batch(Fake(0.001, most=0), QUICK, tick=runner.tick)
    assert (nothing.batch, nothing.tried) == (0, ())


def test_another_error_is_not_taken_for_memory():
    class Broken(Fake):
        def run(self):
            raise ValueError("shapes differ\nmuch more")

    with pytest.raises(ValueError, match="shapes differ"):
        best_batch(Broken(0.1), QUICK)
    found = time_in_turns({"it": Broken(0.1)}, {"it": 1}, QUICK)["it"]
    assert found.failure == "ValueError: shapes differ"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("unable to mmap 8 bytes: Cannot allocate memory (12)"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert out_of_memory(error) is expected
    assert (reason(error) == "out of memory") is expected


def test_percentiles_of_a_known_sequence():
    found = latency([value / 1000 for value in range(1, 102)])
    assert (found.p50, found.p95) == pytest.approx((0.051, 0.096))
    assert found.quartiles == pytest.approx((0.026, 0.076))
    assert found.spread == pytest.approx(50 / 51)


def test_noise_and_other_loads_make_times_unreliable():
    still, noisy = (0.01,) * 60, tuple(0.01 + 0.001 * (i % 3) for i in range(60))

    def row(seconds, load=0.0):
        return Row(name="it", counts=COUNTS, file_bytes=1, one=Timed(1, seconds, load))

    assert row(still).unreliable(2, Protocol()) == []
    (spread,) = row(noisy).unreliable(2, Protocol())
    assert spread == "spread of 18 % in latency"
    assert row(still, 0.09).unreliable(2, Protocol()) == []
    assert row(still, 0.8).unreliable(2, Protocol()) == ["other processes used 0.8 of 2 cores"]


def test_this_process_is_no_other_load(monkeypatch):
    busy, own, now = [100.0], [10.0], [50.0]
    monkeypatch.setattr(machine, "_busy", lambda cores: busy[0])
    monkeypatch.setattr(machine, "_own", lambda: own[0])
    monkeypatch.setattr(machine.time, "monotonic", lambda: now[0])
    load = machine.Load()
    busy[0], own[0], now[0] = 107.0, 14.0, 52.0
    assert load.others() == pytest.approx(1.5)
    busy[0] = 103.9  # counters of the system are coarse
    assert load.others() == 0


def test_busy_time_is_counted_on_the_own_cores_alone(tmp_path, monkeypatch):
    (tmp_path / "stat").write_text(
        "cpu  900 900 900 900 900 900 900 900 0 0\n"
        "cpu0 100 20 30 5000 600 1 2 3 0 0\ncpu1 700 0 0 10 0 0 0 0 0 0\nintr 5\n"
    )
    monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    assert machine._busy([0]) == pytest.approx(1.56)
    assert machine._busy([0, 1]) == pytest.approx(8.56)
    monkeypatch.setattr(machine, "STAT", tmp_path / "none")
    assert machine._busy([0]) is None
    assert machine.Load().others() >= 0


TOY = [(10, 70), (10, 72), (8, 72), (8, 75), (5, 74), (1, 80)]


def test_the_front_of_the_toy():
    on = pareto_front(TOY)
    assert [point for point, front in zip(TOY, on, strict=True) if front] == [
        (10, 72), (8, 75), (1, 80)
    ]  # fmt: skip


def test_fronts_of_one_of_equals_and_of_nothing_known():
    nan = math.nan
    assert pareto_front([]) == ()
    assert pareto_front([(1, 2)]) == (True,)
    assert pareto_front([(5, 7), (5, 7), (5, 6)]) == (True, True, False)
    assert pareto_front([(nan, 99), (5, nan), (4, 1)]) == (False, False, True)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8))
def test_the_front_is_what_nothing_beats(points):
    for point, on in zip(points, pareto_front(points), strict=True):
        beaten = any(
            a[0] >= point[0] and a[1] >= point[1] and tuple(a) != tuple(point) for a in points
        )
        assert on is not beaten


@pytest.mark.parametrize(
    ("name", "weights", "gmacs"),
    [
        ("efficientnet_b0", 5_288_548, 0.386), ("resnet50", 25_557_032, 4.089),
        ("vit_base_patch16_224", 86_567_656, 17.56), ("densenet121", 7_978_856, 2.834),
    ],
)  # fmt: skip
def test_weights_and_multiplications_are_those_that_are_known(name, weights, gmacs):
    found = count(Net(name=name, num_classes=1000, img_size=224))
    assert found.parameters == weights
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.005)
    assert found.weight_bytes >= 4 * weights
    assert 2**20 < found.activation_bytes < 2**26


def test_activations_are_counted_while_they_live():
    alive = Alive()
    inputs = torch.zeros(1000, device="meta")
    with torch.no_grad(), alive:
        one = inputs + 1  # 4000 bytes
        two = one * 2  # 8000
        del one  # 4000
        three = two.view(10, 100).relu_()  # the same memory
        four = torch.cat([three, three])  # 12000
    assert (alive.now, alive.peak) == (12000, 12000)
    del two, three, four
    assert alive.now == 0


def test_an_eager_network_is_asked_as_predict_asks():
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)
            self.drop = nn.Dropout(0.5)

        def forward(self, images):
            seen.append((images, self.training, torch.is_inference_mode_enabled()))
            return self.drop(self.conv(images)).mean((2, 3))

    runner = Eager(Watch(), 8, torch.device("cpu"))
    runner.load(4)
    runner.run()
    runner.wait()
    images, training, inference = seen[0]
    assert images.shape == (4, 3, 8, 8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (training, inference, runner.peak_bytes()) == (False, True, None)
    assert torch.equal(images, random_images(4, 8))
    runner.close()


def test_an_accelerator_is_synchronized(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    runners.wait_for(torch.device("cuda"))
    runners.wait_for(torch.device("cpu"))
    assert waited == [torch.device("cuda")]


def with_statistics(name="test_efficientnet", classes=4):
    """A network whose logits differ from image to image, as a trained one's do."""
    torch.manual_seed(0)
    net = Net(name=name, num_classes=classes, img_size=32)
    module = build(net).train()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.8, 1.2)
                layer.momentum = None
        for _ in range(4):
            module(torch.rand(16, 3, 32, 32))
        head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
        head.weight.normal_(0, 0.5)
    names = tuple("abcdefgh"[:classes])
    return Model(module.eval().requires_grad_(False), net, names, 32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = with_statistics()
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx_model.export_onnx(model, file)
    return model, file


def test_an_exported_network_answers_alike_for_any_batch(exported):
    model, file = exported
    session = runners.open_session(file, 1)
    for batch in (1, 2, 7):
        images = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))
        (given,) = session.run(None, {"images": images.numpy()})
        wanted = model.module(images).numpy()
        assert wanted.std() > 0.01  # not degenerate, so that the next line can fail
        assert np.abs(given - wanted).max() < 1e-4 * wanted.std()
        assert (given.argmax(-1) == wanted.argmax(-1)).all()
    assert 0 <= onnx_model.parity(model, file) < 1e-4


def test_an_exported_network_that_answers_otherwise_is_refused(exported):
    _, file = exported
    with pytest.raises(TutelageError, match="test_efficientnet answers otherwise"):
        onnx_model.parity(shifted(), file)


def shifted():
    """The same network with a slightly different head."""
    other = with_statistics()
    head = [layer for layer in other.module.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(1.01)
    return other


def test_an_exported_network_is_timed(exported):
    _, file = exported
    runner = Onnx(file, 32, 1)
    found = time_in_turns({"it": runner}, {"it": 2}, QUICK)["it"]
    assert len(found.seconds) >= QUICK.passes
    assert found.peak_bytes is None
    runner.close()


def test_a_network_that_can_not_be_exported_says_so(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            if images.sum() > 0:  # depends on numbers, which a graph does not have
                return images.mean((2, 3)) * self.weight
            return images.amax((2, 3))

    model = Model(Odd(), Net(name="odd", num_classes=3, img_size=8), ("a", "b", "c"), 8)
    with pytest.raises(TutelageError, match="odd can't be exported"):
        onnx_model.export_onnx(model, tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'tutelage\[onnx\]'"):
        onnx_model.check_onnx()
