"""A training step never waits for its device: shown with one that has shapes and no numbers.

Whatever asks a tensor of the meta device for a number raises, and what is copied to it is watched.
"""

import sys

import pytest
import torch
from test_methods import FOUND
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.core import Clock, Stage, sent
from tutelage.data.loader import Batches
from tutelage.data.operations import counted_by_adding
from tutelage.data.pixels import InMemory
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.methods.method import State
from tutelage.networks.build import Net
from tutelage.settings import Noise, Optim

META = torch.device("meta")
CLASSES, SIDE = 3, 32
NET = Net(name="test_resnet", num_classes=CLASSES, img_size=SIDE)


def by_sent():
    """Whether `sent` is among the callers."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is sent.__code__:
            return True
        frame = frame.f_back
    return False


class Copies(TorchDispatchMode):
    """Notes what is copied from the CPU to the device by anything but `sent`, but for what fits in
    the call that begins a kernel."""

    def __init__(self):
        super().__init__()
        self.waited, self.went = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        ours = [leaf for leaf in given if leaf.device.type == "cpu"]
        name = func.overloadpacket.__name__
        if ours and META in {leaf.device for leaf in made}:
            self.went += 1
            number = all(leaf.ndim == 0 for leaf in ours) and name not in ("_to_copy", "copy_")
            if not number and not by_sent():
                self.waited.append((name, [tuple(leaf.shape) for leaf in ours]))
        return found


def batches(noise, *, stored=False, views=("weak", "strong"), labeled_view="strong"):
    count = 40
    images = torch.zeros(count, SIDE, SIDE, 3, dtype=torch.uint8, device=META)
    labels = torch.arange(count) % CLASSES
    top = labels[:, None], torch.ones(count, 1)
    pool = PoolSet(
        InMemory(images), torch.arange(count), torch.ones(count, dtype=torch.int64),
        StoredTargets(*top, CLASSES) if stored else None,
    )  # fmt: skip
    stage = Stage(steps=4, size=SIDE, magnitude=5.0, cutout=0.5)
    return Batches(
        LabeledSet(InMemory(images), labels.to(META), CLASSES), pool,
        stages=[stage], views=(labeled_view, views), batch=8, ratio=3, noise=noise, seed=0,
    )  # fmt: skip


NOISES = {
    "fixmatch": Noise(magnitude_std=3.0, op_prob=0.5),
    "timm": Noise(scale="timm"),
    "tf": Noise(scale="tf", magnitude=16.0),
    "autoaugment": Noise(policy="autoaugment:cifar10"),
    "trivialaugment": Noise(policy="trivialaugment"),
    "resized": Noise(crop="resized"),
    "erased": Noise(erase=1.0, erase_fill="color"),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_a_batch_is_made_on_the_device_without_waiting_for_it(noise):
    made = batches(noise, stored=True)
    with Copies() as copies:
        for step in range(4):
            batch = made.at(step)
    assert copies.went > 4
    assert copies.waited == []
    labeled, pool = batch.labeled, batch.pool()
    tensors = [labeled.images, labeled.targets, pool.targets, *pool.views.values()]
    assert {tensor.device for tensor in tensors} == {META}


class Small(nn.Module):
    """A small network with batch norm, on the device."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, device=META), nn.BatchNorm2d(4, device=META))
        self.head = nn.Linear(4, CLASSES, device=META)

    def forward(self, images):
        return self.head(self.body(images).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", FOUND.values(), ids=FOUND)
def test_a_step_of_every_method_reads_nothing_from_the_device(kind):
    method = kind()
    optim = Optim(name="sgd", lr=0.1, clip=1.0)
    learner = Learner(Small(), optim)
    teacher = {"none": None, "frozen": Frozen(Small()), "trained": Learner(Small(), optim)}
    memory = method.memory(CLASSES, 40)
    state = State(
        learner, teacher[method.teacher], {name: value.to(META) for name, value in memory.items()}
    )
    if method.stored and method.teacher == "trained":
        state.teacher = Learner(method.make_teacher(NET, seed=0).to(META), optim)
    made = batches(Noise(), stored=method.stored, views=method.unlabeled_views)
    for step in range(3):
        with Copies() as copies:
            metrics = method.step(state, made.at(step), Clock(step, 4))
        assert copies.waited == []
        assert {value.device for value in metrics.values()} == {META}


def test_levels_are_counted_without_the_largest_as_with_it():
    levels = torch.randint(0, 512, (4096,), generator=torch.Generator().manual_seed(0)).int()
    assert torch.equal(counted_by_adding(levels, 600), levels.bincount(minlength=600))
