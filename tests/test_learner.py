import io
import math

import pytest
import torch
from same import assert_same, weights
from torch import nn

from tutelage.averages import move_average
from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.frozen import Frozen, answer
from tutelage.learner import Learner, choose_device, choose_precision
from tutelage.networks.build import build, weight_digest
from tutelage.settings import Optim

STEADY = {  # timm's "momentum" is SGD without Nesterov's correction
    "name": "momentum", "schedule": "constant", "warmup": 0.0, "momentum": 0.0,
    "weight_decay": 0.0,
}  # fmt: skip


class Line(nn.Module):
    """Images -> logits by one linear layer, and a norm whose weights are one-dimensional."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, images):
        return self.norm(self.linear(images.flatten(1)))


def images(seed=0, count=4):
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def train(learner, steps, *, first=0, total=10):
    for step in range(first, first + steps):
        learner.minimize(learner(images(step)).square().mean(), Clock(step, total))


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def constant(value):
    module = Line()
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.fill_(value)
    return module


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_without_warm_up_the_average_moves_to_one_minus_d_to_the_n(decay):
    average, module = constant(0), constant(1)
    for number in range(1, 20):
        move_average(average, module, decay)
        for tensor in [*average.parameters(), average.norm.running_mean]:
            expected = torch.full_like(tensor, 1 - decay**number)
            assert torch.allclose(tensor, expected, atol=1e-6)
        assert average.norm.num_batches_tracked == 1


def test_the_average_of_constant_weights_is_constant():
    average, module = constant(0.3), constant(0.3)
    for _ in range(10):
        move_average(average, module, 0.9)
    assert_same(weights(average), weights(module))


def test_with_warm_up_early_decays_are_those_of_tensorflow():
    learner = Learner(constant(0), Optim(lr=0.0, ema=0.9, **STEADY))
    for parameter in learner.module.parameters():
        parameter.data.fill_(1)
    distance = 1.0
    for step in range(120):
        loss = sum(parameter.sum() for parameter in learner.module.parameters())
        learner.minimize(loss, Clock(step, 120))
        distance *= min(0.9, (1 + step) / (10 + step))  # from step 80 on it is 0.9
        assert learner.average.linear.weight.mean().item() == pytest.approx(1 - distance, abs=1e-5)


def test_without_an_average_the_network_itself_graduates():
    learner = Learner(Line(), Optim(ema=None))
    assert learner.average is None
    train(learner, 2)
    graduate = learner.graduate()
    assert_same(weights(graduate), weights(learner.module))
    assert not graduate.training
    assert learner.module.training
    graduate.linear.weight.fill_(0)
    assert learner.module.linear.weight.abs().max() > 0


def test_the_average_graduates_where_there_is_one_and_takes_no_gradients():
    learner = Learner(Line(), Optim(ema=0.5, lr=0.5))
    train(learner, 3)
    graduate = learner.graduate()
    assert_same(weights(graduate), weights(learner.average))
    assert not torch.equal(graduate.linear.weight, learner.module.linear.weight)
    assert not any(parameter.requires_grad for parameter in graduate.parameters())


def test_one_step_of_sgd_is_the_gradient_times_the_learning_rate():
    learner = Learner(Line(), Optim(lr=0.1, ema=None, **STEADY))
    twin = Line()
    loss = twin(images()).square().mean()
    loss.backward()
    learner.minimize(learner(images()).square().mean(), Clock(0, 10))
    expected = twin.linear.weight - 0.1 * twin.linear.weight.grad
    assert torch.allclose(learner.module.linear.weight, expected, atol=1e-7)


def test_sgd_is_nesterovs():
    optim = Optim(name="sgd", lr=0.1, momentum=0.9, ema=None, schedule="constant", warmup=0.0)
    learner = Learner(Line(), optim)
    assert learner.optimizer.param_groups[0]["nesterov"]
    assert learner.optimizer.param_groups[0]["momentum"] == 0.9


def test_the_learning_rate_is_that_of_the_clock():
    learner = Learner(Line(), Optim(lr=0.4, schedule="cosine", warmup=0.0, ema=None))
    for step in (0, 5, 7):
        learner.minimize(learner(images()).square().mean(), Clock(step, 10))
        expected = 0.4 * (1 + math.cos(math.pi * step / 10)) / 2
        assert [group["lr"] for group in learner.optimizer.param_groups] == [
            pytest.approx(expected)
        ] * len(learner.optimizer.param_groups)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "rmsproptf"])
def test_weight_decay_never_touches_norms_and_biases(name, tiny):
    learner = Learner(build(tiny), Optim(name=name, weight_decay=0.1))
    decayed = {
        parameter: group["weight_decay"]
        for group in learner.optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(decayed) == len(list(learner.module.parameters()))
    assert {p.ndim for p, decay in decayed.items() if decay == 0} == {1}
    assert {p.ndim for p, decay in decayed.items() if decay == 0.1} == {2, 4}


def test_a_step_without_gradient_shrinks_kernels_alone():
    optim = Optim(lr=0.1, ema=None, **STEADY | {"weight_decay": 0.5})
    learner = Learner(Line(), optim)
    before = weights(learner.module)
    zero = sum((parameter * 0).sum() for parameter in learner.module.parameters())
    learner.minimize(zero, Clock(0, 1))
    after = weights(learner.module)
    assert torch.allclose(after["linear.weight"], before["linear.weight"] * (1 - 0.1 * 0.5))
    for name in ("linear.bias", "norm.weight", "norm.bias"):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize(("clip", "factor"), [(None, 1.0), (1e9, 1.0), (0.01, None)])
def test_gradients_are_clipped_to_the_norm(clip, factor):
    learner = Learner(Line(), Optim(lr=1.0, ema=None, clip=clip, **STEADY))
    before = weights(learner.module)
    twin = Line()
    (100 * twin(images()).square().mean()).backward()
    norm = torch.stack([p.grad.norm() for p in twin.parameters()]).norm()
    learner.minimize(100 * learner(images()).square().mean(), Clock(0, 1))
    moved = torch.stack(
        [(before[name] - p.detach()).norm() for name, p in learner.module.named_parameters()]
    ).norm()
    assert moved.item() == pytest.approx(0.01 if factor is None else norm.item(), rel=1e-3)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "rmsproptf"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_learner_continues_from_its_state_to_the_last_bit(name, ema):
    optim = Optim(name=name, lr=0.05, ema=ema, clip=1.0)
    through = Learner(Line(), optim)
    train(through, 4)
    kept = torch.load(saved(through.state_dict()), weights_only=True)
    train(through, 4, first=4)
    resumed = Learner(Line(seed=1), optim)
    resumed.load_state_dict(kept)
    train(resumed, 4, first=4)
    assert_same(weights(resumed.module), weights(through.module))
    assert_same(weights(resumed.graduate()), weights(through.graduate()))


def test_a_frozen_network_answers_without_changing():
    frozen = Frozen(Line())
    before = weights(frozen.module)
    logits = frozen(images())
    assert torch.equal(logits, frozen(images()))
    assert torch.allclose(logits[:2], frozen(images()[:2]), atol=1e-6)
    assert not logits.requires_grad
    assert_same(weights(frozen.module), before)


def test_bf16_answers_come_in_float32_and_near_those_of_fp32(tiny):
    module = build(tiny).eval()
    batch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, rough = (answer(module, batch, precision) for precision in ("fp32", "bf16"))
    assert exact.dtype == rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert torch.allclose(exact, rough, atol=0.05)


def test_a_learner_computes_what_its_module_does_with_any_memory_format(tiny):
    batch = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    learner = Learner(build(tiny), Optim())
    assert torch.allclose(learner(batch), build(tiny)(batch), atol=1e-5)
    assert weight_digest(Learner(build(tiny), Optim()).module) == weight_digest(build(tiny))


def test_an_unknown_optimizer_is_named():
    with pytest.raises(
        UsageError, match=r"--optim\.name 'sdg': there is no such optimizer; did you mean sgd"
    ):
        Learner(Line(), Optim(name="sdg"))


@pytest.mark.parametrize("name", ["cuda:99", "mps:7", "gpu", "tpu", ""])
def test_a_device_that_is_not_here_is_named(name):
    words = f"--device {name}(: there is no such device| can't be used here)"
    with pytest.raises(UsageError, match=words):
        choose_device(name)


def test_devices_and_precisions_are_chosen():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    assert choose_precision("auto", torch.device("cpu")) == "fp32"
    assert choose_precision("auto", torch.device("cuda")) == "bf16"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
