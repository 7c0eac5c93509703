"""Compiled networks: one graph for each shape, and the same answers and weights."""

from functools import partial

import pytest
import torch
from torch import nn

from tutelage import compilation
from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.networks.build import Net, build, weight_digest
from tutelage.settings import Optim


class Small(nn.Sequential):
    """A small network for images of any size, with batch norm."""

    def __init__(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                nn.Flatten(), nn.Linear(4, 2),
            )  # fmt: skip


REAL = torch.compile
OPTIM = Optim(name="sgd", lr=0.01, ema=0.9)


@pytest.fixture
def graphs(monkeypatch):
    """Shapes of the batches for which a graph was made, by a backend that makes nothing of it."""
    made = []

    def backend(graph, inputs):
        made.append(max(tuple(i.shape) for i in inputs if i.ndim == 4 and i.shape[-1] > 3))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compilation.torch, "compile", partial(REAL, backend=backend))
    yield made
    torch._dynamo.reset()


def images(size, count=4, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def train(learner, shapes):
    for step, (size, count) in enumerate(shapes):
        loss = learner(images(size, count, step)).square().mean()
        learner.minimize(loss, Clock(step, len(shapes)))


def test_each_size_is_compiled_once(graphs):
    learner = Learner(Small(), OPTIM, compile=True)
    train(learner, [(size, 4) for size in (16, 24, 32, 16, 24, 32, 32, 16)])
    assert [shape[-1] for shape in graphs] == [16, 24, 32]


def test_more_shapes_than_torch_allows_are_compiled_too(graphs):
    learner = Learner(Small(), OPTIM, compile=True)
    shapes = [(size, count) for count in (2, 3) for size in (8, 9, 10)]
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        train(learner, shapes * 2)
    assert [(shape[-1], shape[0]) for shape in graphs] == shapes


def test_answers_weights_and_average_are_those_of_the_network_itself(graphs):
    plain, fast = (Learner(Small(), OPTIM, compile=c) for c in (False, True))
    names = list(plain.module.state_dict())
    for learner in (plain, fast):
        train(learner, [(16, 4)] * 3)
    assert graphs
    assert list(fast.state_dict()["module"]) == names
    assert weight_digest(fast.module) == weight_digest(plain.module)
    assert weight_digest(fast.graduate()) == weight_digest(plain.graduate())


def test_a_frozen_teacher_is_compiled_too(graphs):
    plain, fast = (Frozen(Small(), compile=c) for c in (False, True))
    assert torch.equal(plain(images(16)), fast(images(16)))
    assert len(graphs) == 1


def test_a_machine_that_can_not_compile_is_told_what_to_do(monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compilation.torch, "compile", partial(REAL, backend=backend))
    torch._dynamo.reset()
    learner = Learner(Small(), OPTIM, compile=True)
    with pytest.raises(UsageError, match=r"no compiler.*leave out --compile"):
        learner(images(16))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_wide_residual_network_is_one_graph_in_all_its_steps(precision):
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    module = build(Net(name="wrn-10-1", num_classes=2, img_size=32))
    learner = Learner(module, OPTIM, precision=precision)
    learner.forward = REAL(module, backend=backend, dynamic=False, fullgraph=True)
    train(learner, [(32, 4)] * 3)
    assert len(made) == 1
