"""Labels by the workers of a Ray cluster: the same as on one machine, whoever dies."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from images import write_pool
from torch import nn

from tutelage import data_verbs
from tutelage.data import label_parts
from tutelage.data.label_parts import portions
from tutelage.data.sources.folder import Folder
from tutelage.deploy.model_folder import Model, save_model
from tutelage.errors import TutelageError, UsageError
from tutelage.labeling import cluster
from tutelage.labeling.answers import PoolTeacher
from tutelage.labeling.cluster import workers
from tutelage.labeling.make_parts import make_parts
from tutelage.networks.build import Net, build

CLASSES = tuple("abc")
PARTS = 6


class Deadly(nn.Module):
    """A teacher whose workers die, so many times, after two parts; notes are kept of each call."""

    def __init__(self, notes, deaths):
        super().__init__()
        notes.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear = nn.Linear(3 * 8 * 8, 3)
        self.notes, self.deaths, self.home = str(notes), deaths, os.getpid()

    def forward(self, images):
        if os.getpid() != self.home:
            notes = Path(self.notes)
            before = [path.suffix for path in notes.iterdir()]
            dies = before.count(".done") >= 2 and before.count(".dead") < self.deaths
            name = f"{os.getpid()}-{len(before)}"
            (notes / f"{name}.{'dead' if dies else 'done'}").touch()
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(images.flatten(1))


@pytest.fixture(scope="module", autouse=True)
def ray_here():
    """Two workers at a time, on this machine."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for attempt in range(3):  # Ray gives itself 30 s, which a busy machine may not have for it
        try:
            ray.init(
                num_cpus=2, log_to_driver=False, logging_level="CRITICAL", include_dashboard=False
            )  # fmt: skip
            break
        except Exception as error:
            ray.shutdown()
            if attempt == 2 or "timed out during startup" not in str(error):
                raise
    yield
    ray.shutdown()


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setattr(label_parts, "PART", 4)
    return Folder(str(write_pool(tmp_path / "pool", 4 * PARTS - 1, first=0)))


def made(teacher, pool, *, by_workers):
    """Each part's bytes, and how often it came."""
    wanted = portions(pool, pool.listing("pool").names)
    assert len(wanted) == PARTS
    heard, opened = [], []
    if by_workers:
        with workers("auto", teacher, pool, canvas=8, device="auto", asked="auto") as make:
            found = list(make(wanted, heard.append, opened.append))
    else:
        found = list(make_parts(teacher, pool, wanted, heard.append, opened.append, canvas=8))
    assert sum(heard) == sum(opened) == 4 * PARTS - 1
    numbers = sorted(one.number for one in found)
    return numbers, {one.number: bytes(one.data) for one in found}


def test_what_goes_wrong_on_a_worker_is_said_as_it_is_here(pool, tmp_path):
    module = Deadly(tmp_path / "notes", deaths=0)
    module.linear.weight.data.fill_(torch.nan)
    teacher = PoolTeacher(module, "digest", CLASSES, 8)
    with pytest.raises(TutelageError, match=r"^the model's answer on 00\d\d\.png is not finite"):
        made(teacher, pool, by_workers=True)


def test_the_verb_writes_the_same_files_as_on_one_machine(pool, tmp_path, capsys):
    net = Net(name="test_resnet", num_classes=3, img_size=8)
    save_model(tmp_path / "model", Model(build(net).eval(), net, CLASSES, 8), "a model")
    label = partial(data_verbs.label, model=tmp_path / "model", data=pool.address, precision="fp32")
    here, there = tmp_path / "here", tmp_path / "there"
    (tmp_path / "pool" / "0005.png").write_bytes(b"no image")
    label(out=here, device="cpu")
    label(out=there, cluster="auto")
    names = [path.name for path in sorted(here.glob("*.parquet"))]
    assert len(names) == PARTS
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
    (there / names[3]).unlink()
    label(out=there, cluster="auto")
    assert "5 of 6 parts are there already" in capsys.readouterr().err
    assert (here / names[3]).read_bytes() == (there / names[3]).read_bytes()
    assert "0005.png" in (there / "issues.csv").read_text()


def test_a_worker_that_dies_loses_no_part_and_none_comes_twice(pool, tmp_path):
    teacher = PoolTeacher(Deadly(tmp_path / "notes", deaths=1), "digest", CLASSES, 8)
    numbers, data = made(teacher, pool, by_workers=True)
    notes = [path.suffix for path in (tmp_path / "notes").iterdir()]
    assert notes.count(".dead") == 1
    assert numbers == list(range(PARTS))
    assert data == made(teacher, pool, by_workers=False)[1]


def test_a_part_that_kills_every_worker_is_named(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "RETRIES", 0)  # each takes as long as a worker needs to begin
    teacher = PoolTeacher(Deadly(tmp_path / "notes", deaths=10**6), "digest", CLASSES, 8)
    with pytest.raises(TutelageError, match=r"part \d could not be made: each of 1 workers"):
        made(teacher, pool, by_workers=True)


def test_what_workers_can_not_have_is_refused(pool, monkeypatch):
    teacher = PoolTeacher(nn.Linear(1, 1), "digest", CLASSES, 8)

    def refused(source, device="auto"):
        with workers("auto", teacher, source, canvas=8, device=device, asked="auto"):
            pass

    with pytest.raises(UsageError, match="given from Python"):
        refused(Folder("memory:pool"))
    with pytest.raises(UsageError, match="mps is for one machine"):
        refused(pool, "mps")
    with pytest.raises(UsageError, match="no GPU"):
        refused(pool, "cuda")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'tutelage\[ray\]'"):
        refused(pool)
