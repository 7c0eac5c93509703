"""The average of the weights: early decays, buffers, and statistics computed again."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import update_bn

from tutelage.averages import decay_at, move_average
from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.learner import Learner
from tutelage.networks.build import build
from tutelage.networks.freeze import Freeze, freeze
from tutelage.recalibration import recalibrate
from tutelage.settings import Optim


def test_the_early_decays_are_tensorflows():
    table = {0: 0.1, 90: 0.91, 8990: 0.999, 10**6: 0.9999}
    assert {t: decay_at(t, 0.9999, "tf") for t in table} == pytest.approx(table)
    assert decay_at(8991, 0.999, "tf") == 0.999


def test_the_early_decays_are_timms():
    table = {1: 0.370, 10: 0.798, 100: 0.954, 1000: 0.990, 10**4: 0.9978, 10**5: 0.9995}
    assert {t: decay_at(t, 1, "timm") for t in table} == pytest.approx(table, abs=6e-4)
    theirs = ModelEmaV3(nn.Linear(1, 1), decay=0.99, use_warmup=True)
    for update in range(2000):
        expected = theirs.get_decay(update + 1)
        assert decay_at(update, 0.99, "timm") == pytest.approx(expected, abs=1e-9)


def test_without_warm_up_the_decay_is_the_ceiling():
    assert {decay_at(t, 0.97, "none") for t in range(20)} == {0.97}


def normed(value):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.data.fill_(value)
    return module


@pytest.mark.parametrize("warmup", ["tf", "timm", "none"])
def test_the_learner_follows_the_rule(warmup, tiny):
    learner = Learner(nn.Linear(2, 2), Optim(lr=0.0, ema=0.8, ema_warmup=warmup))
    learner.average.weight.data.zero_()
    learner.module.weight.data.fill_(1)
    distance = 1.0
    for step in range(30):
        learner.minimize(learner.module.weight.sum() + learner.module.bias.sum(), Clock(step, 30))
        distance *= decay_at(step, 0.8, warmup)
        assert learner.average.weight.mean().item() == pytest.approx(1 - distance, abs=1e-5)


@pytest.mark.parametrize(
    ("buffers", "expected"), [("average", 0.25), ("copy", 1.0), ("recalibrate", 1.0)]
)
def test_statistics_are_averaged_or_copied_and_weights_always_averaged(buffers, expected):
    average, module = normed(0), normed(1)
    move_average(average, module, 0.75, buffers=buffers)
    assert all(torch.equal(p, torch.full_like(p, 0.25)) for p in average.parameters())
    norm = average[1]
    for tensor in (norm.running_mean, norm.running_var):
        assert torch.equal(tensor, torch.full_like(tensor, expected))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_a_learner_that_knows_its_tensors_moves_them_as_one_that_looks_for_them(buffers):
    learner = Learner(normed(1.0), Optim(name="sgd", lr=0.1, ema=0.9, ema_buffers=buffers))
    expected = copy.deepcopy(learner.average)
    for step in range(4):
        if step == 2:  # as after a stop, with the same tensors
            learner.load_state_dict(copy.deepcopy(learner.state_dict()))
        images = torch.rand(4, 2, generator=torch.Generator().manual_seed(step))
        learner.minimize(learner.module(images).square().mean(), Clock(step, 4))
        move_average(expected, learner.module, decay_at(step, 0.9, "tf"), buffers=buffers)
    assert expected[1].num_batches_tracked == learner.module[1].num_batches_tracked
    for name, value in expected.state_dict().items():
        assert torch.equal(value, learner.average.state_dict()[name]), name


# Statistics computed again ------------------------------------------------------------------------


def batches(count=3, *, size=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(size, 3, 16, 16, generator=draw) for _ in range(count)]


def test_recalibrated_statistics_are_those_of_torch(tiny):
    one = build(tiny).requires_grad_(False)
    other = copy.deepcopy(one)
    recalibrate(one.eval(), batches())
    update_bn(batches(), other.train())
    for name, buffer in one.named_buffers():
        assert torch.allclose(buffer, other.get_buffer(name), atol=1e-6), name


def test_recalibration_forgets_what_was_there_and_changes_no_weight_or_mode(tiny):
    first, second = build(tiny).eval(), build(tiny).eval()
    for module in second.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7)
    for module in (first, second):
        recalibrate(module, batches())
        assert not any(layer.training for layer in module.modules())
        assert {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    before = dict(build(tiny).named_parameters())
    for name, weight in first.named_parameters():
        assert torch.equal(weight, before[name])
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, second.get_buffer(name)), name


def test_recalibration_draws_nothing_and_leaves_dropout_off():
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(768)).eval()
    state = torch.get_rng_state()
    images = batches(2)
    recalibrate(module, images)
    assert torch.equal(state, torch.get_rng_state())
    expected = torch.stack([b.flatten(1).mean(0) for b in images]).mean(0)
    assert torch.allclose(module[2].running_mean, expected, atol=1e-6)
    spread = torch.stack([b.flatten(1).var(0) for b in images]).mean(0)
    assert torch.allclose(module[2].running_var, spread, atol=1e-6)


def test_without_batch_norm_no_image_is_looked_at():
    def none():
        raise AssertionError
        yield

    recalibrate(nn.Linear(2, 2), none())


def test_without_images_nothing_can_be_recalibrated(tiny):
    with pytest.raises(UsageError, match="give at least one batch"):
        recalibrate(build(tiny), [])


@pytest.mark.parametrize("part", ["body", "body-but-last-norm"])
def test_frozen_layers_keep_their_statistics(part, tiny):
    module = build(tiny)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.fill_(0.3)
    freeze(module, Freeze(part=part))
    recalibrate(module, batches())
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    moved = [not torch.equal(m.running_mean, torch.full_like(m.running_mean, 0.3)) for m in norms]
    assert sum(moved) == (0 if part == "body" else 1)
