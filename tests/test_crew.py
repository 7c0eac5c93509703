"""What the processes of a command agree on, without other processes to agree with."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tutelage.data_verbs import LabelSettings, run_label
from tutelage.distributed import board, crew, orders, sync_norm
from tutelage.distributed.words import Crew
from tutelage.errors import Dismissed, UsageError
from tutelage.learner import Learner
from tutelage.recalibration import recalibrate
from tutelage.settings import Optim


@pytest.fixture
def its(monkeypatch):
    """One that leads another, which never wants anything."""
    made = Crew(None)
    for name, value in (("world", 2), ("rank", 0), ("crew", made)):
        monkeypatch.setattr(orders, name, lambda value=value: value)
    monkeypatch.setattr(orders.dist, "all_reduce", lambda *_: None)
    return made


def test_who_asks_to_stop_is_heard_after_the_last_step(its):
    found = orders.Orders(due=0, total=10)
    assert found.after(1, save=False, stop=False) == (False, False)
    assert found.after(9, save=True, stop=True) == (False, False)  # steps are fast: not asked yet
    assert found.after(10, save=False, stop=True) == (False, True)


def test_a_signal_while_processes_agree_counts_the_next_time(its, monkeypatch):
    def signal_now(*_):
        its.asked = True

    found = orders.Orders(due=0, total=1)
    monkeypatch.setattr(orders.dist, "all_reduce", signal_now)
    assert found.after(1, save=False, stop=False) == (False, False)
    assert found.after(2, save=False, stop=False) == (False, True)
    assert not its.asked


def test_several_processes_are_refused_where_they_have_no_common_accelerator(monkeypatch):
    mps = torch.device("mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: mps)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    crew.check_accelerators("cpu")
    for asked in ("auto", "mps"):
        with pytest.raises(UsageError, match="and not on mps: take --device cpu"):
            crew.check_accelerators(asked)


def test_labeling_on_the_cpu_needs_no_accelerator_for_each_process(tmp_path, monkeypatch):
    asked = []

    def note(device):
        asked.append(device)
        raise Dismissed(2)

    monkeypatch.setattr(crew, "is_launched", lambda: True)
    monkeypatch.setattr(crew, "check_accelerators", note)
    with pytest.raises(Dismissed):
        run_label(LabelSettings(model=tmp_path, data="pool", out=tmp_path / "out", device="cpu"))
    assert asked == ["cpu"]


def test_a_process_is_silent_where_the_leader_has_said_why_it_ended(monkeypatch):
    monkeypatch.setattr(board, "HEARD", timedelta(seconds=0.1))
    monkeypatch.setattr(crew, "rank", lambda: 1)
    monkeypatch.setattr(crew, "dist", SimpleNamespace(destroy_process_group=lambda: None))
    found = board.Board(dist.HashStore())
    with pytest.raises(UsageError):
        crew._raise_for_all(Crew(None), found, UsageError("no optimizer is called sdg"))
    found.leave_end(2)
    with pytest.raises(Dismissed):
        crew._raise_for_all(Crew(None), found, UsageError("no optimizer is called sdg"))


def test_a_synchronized_network_is_kept_as_one_that_works_alone(monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    images = torch.rand(4, 3, 8, 8)
    network(images)
    learner = Learner(network, Optim(name="sgd", lr=0.1, ema=None))
    sync_norm.synchronize(learner.module)
    monkeypatch.setattr(sync_norm, "world", lambda: pytest.fail("asked the other processes"))
    kept = learner.graduate()
    recalibrate(kept, [images])
    assert type(kept[1]) is nn.BatchNorm2d
    assert type(learner.module[1]) is sync_norm.SyncedBatchNorm2d
