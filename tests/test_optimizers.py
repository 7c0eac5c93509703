"""Optimizers against known first steps, and which weights they treat how."""

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.learner import Learner
from tutelage.networks.build import Net, build
from tutelage.optimizers import make_optimizer
from tutelage.settings import Optim

STEADY = {"schedule": "constant", "warmup": 0.0, "ema": None}
VIT = Net(name="test_vit", num_classes=8, img_size=32)


class Kernel(nn.Module):
    """One matrix and a bias."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 6, generator=draw))
        self.bias = nn.Parameter(torch.randn(4, generator=draw))

    def forward(self, images):
        return nn.functional.linear(images, self.weight, self.bias)


def first_step(name, gradient, *, lr=0.1, momentum=0.9, decay=0.0, module=None):
    """Weights of the matrix before and after one step along that gradient."""
    module = module or Kernel()
    optim = Optim(name=name, lr=lr, momentum=momentum, weight_decay=decay, **STEADY)
    learner = Learner(module, optim)
    before = module.weight.detach().clone()
    learner.minimize((module.weight * gradient).sum() + 0 * module.bias.sum(), Clock(0, 10))
    return before, module.weight.detach()


@pytest.fixture
def gradient():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_first_step_of_rmsprop_is_that_of_tensorflow(gradient, momentum):
    """Second moment begins at 1, and epsilon is inside the root."""
    before, after = first_step("rmsproptf", gradient, momentum=momentum)
    expected = 0.1 * gradient / (0.9 + 0.1 * gradient**2 + 1e-3).sqrt()
    assert torch.allclose(before - after, expected, atol=1e-7)


def test_the_momentum_of_rmsprop_holds_the_rates_of_its_steps(gradient):
    """As in TensorFlow: a later and smaller rate does not shrink what is in the buffer."""
    module = Kernel()
    learner = Learner(
        module,
        Optim(
            name="rmsproptf",
            lr=0.1,
            weight_decay=0.0,
            ema=None,
            schedule="step",
            milestones=(0.5,),
            warmup=0.0,
        ),
    )
    first = module.weight.detach().clone()
    learner.minimize((module.weight * gradient).sum() + 0 * module.bias.sum(), Clock(0, 2))
    second = module.weight.detach().clone()
    learner.minimize(0 * (module.weight.sum() + module.bias.sum()), Clock(1, 2))
    assert torch.allclose(module.weight - second, 0.9 * (second - first), atol=1e-7)


def test_the_first_step_of_adamw_is_the_sign_and_a_decay_by_the_rate(gradient):
    before, after = first_step("adamw", gradient, decay=0.2)
    assert torch.allclose(after, before * (1 - 0.1 * 0.2) - 0.1 * gradient.sign(), atol=1e-5)


def test_the_first_steps_of_sgd_are_nesterovs(gradient):
    before, after = first_step("sgd", gradient)
    assert torch.allclose(before - after, 0.1 * (1 + 0.9) * gradient, atol=1e-6)


def test_lamb_without_weight_decay_is_adam_on_clipped_gradients(gradient):
    before, after = first_step("lamb", gradient)  # r = 1
    clipped = gradient / max(1, gradient.norm())
    assert torch.allclose(before - after, 0.1 * clipped / (clipped.abs() + 1e-6), atol=1e-5)


def test_lamb_with_weight_decay_moves_each_layer_by_its_own_norm(gradient):
    before, after = first_step("lamb", gradient, decay=0.02)
    update = gradient.sign() + 0.02 * before
    ratio = before.norm() / update.norm()
    assert torch.allclose(before - after, 0.1 * ratio * update, atol=1e-4)


def test_muons_step_is_nearly_orthogonal_and_as_large_as_adamws(gradient):
    before, after = first_step("muon", gradient, lr=0.01)
    step = (before - after) / 0.01
    size = step.square().mean().sqrt()
    assert size == pytest.approx(0.2, rel=0.2)  # RMS of AdamW's usual steps, arXiv 2502.16982
    values = torch.linalg.svdvals(step)
    assert values.max() / values.min() < 1.6
    assert torch.linalg.svdvals(gradient).max() / torch.linalg.svdvals(gradient).min() > 2


def by_muon(learner):
    return {
        name
        for name, p in learner.module.named_parameters()
        if learner.optimizer.state[p].get("use_muon")
    }


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_muon_takes_the_kernels_and_leaves_the_rest_to_adamw(name):
    net = Net(name=name, num_classes=8, img_size=32)
    learner = Learner(build(net), Optim(name="muon", lr=0.01, **STEADY))
    before = {n: p.detach().clone() for n, p in learner.module.named_parameters()}
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(6):
        loss = nn.functional.cross_entropy(learner(images), torch.arange(8))
        learner.minimize(loss, Clock(step, 6))
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    weights = dict(learner.module.named_parameters())
    assert all(not torch.equal(before[n], p) for n, p in weights.items())
    taken = by_muon(learner)
    others = {n: p for n, p in weights.items() if n not in taken}
    assert {p.ndim for n, p in weights.items() if n in taken} == {
        4 if name == "test_resnet" else 2,
        4,
    }
    kernels = {n for n, p in others.items() if p.ndim > 1 and n.endswith("weight")}
    assert kernels == {"net.fc.weight" if name == "test_resnet" else "net.head.weight"}
    assert "net.pos_embed" not in taken


def undecayed(name, **more):
    with torch.device("meta"):
        module = build(Net(name=name, num_classes=5, img_size=224, **more))
    optimizer = make_optimizer(module, Optim(name="adamw", lr=0.1, weight_decay=0.1))
    names = {id(p): n for n, p in module.named_parameters()}
    groups = optimizer.param_groups
    assert sorted(names[id(p)] for g in groups for p in g["params"]) == sorted(names.values())
    left = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    return left, dict(module.named_parameters())


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("deit_tiny_distilled_patch16_224", {"pos_embed", "cls_token", "dist_token"}),
        ("swin_tiny_patch4_window7_224", {"relative_position_bias_table"}),
        ("visformer_tiny", {"pos_embed1", "pos_embed2", "pos_embed3"}),
        ("halonet26t", {"height_rel", "width_rel"}),
        ("fastvit_t8", {"gamma"}),
    ],
)
def test_tables_tokens_and_scales_do_not_decay_and_kernels_do(name, tables):
    left, weights = undecayed(name)
    assert tables <= {n.rpartition(".")[-1] for n in left}
    for name, weight in weights.items():
        leaf = name.rpartition(".")[-1]
        assert (name in left) == (weight.ndim == 1 or leaf in tables), name


# Layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_rates_fall_geometrically_from_the_last_layer_to_the_first(name):
    net = Net(name=name, num_classes=8, img_size=32)
    learner = Learner(
        build(net),
        Optim(name="sgd", lr=0.4, layer_decay=0.5, ema=None, schedule="constant", warmup=0.0),
    )
    loss = learner(torch.rand(4, 3, 32, 32)).square().mean()
    learner.minimize(loss, Clock(3, 10))
    names = {id(p): n for n, p in learner.module.named_parameters()}
    rates = {
        names[id(p)]: group["lr"]
        for group in learner.optimizer.param_groups
        for p in group["params"]
    }
    assert rates.keys() == dict(learner.module.named_parameters()).keys()
    different = sorted(set(rates.values()), reverse=True)
    assert different == pytest.approx([0.4 * 0.5**i for i in range(len(different))])
    assert len(different) >= 4
    head, stem = list(rates)[-1], next(iter(rates))
    assert rates[head] == 0.4
    assert rates[stem] == min(different)
    plain = param_groups_layer_decay(learner.module.net, layer_decay=0.5)
    assert len(different) == len({group["lr_scale"] for group in plain})


def test_the_step_of_a_layer_follows_its_rate():
    modules = [build(VIT, seed=0) for _ in range(2)]
    optims = [
        Optim(name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, layer_decay=d, **STEADY)
        for d in (None, 0.5)
    ]
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = dict(build(VIT, seed=0).named_parameters())
    for module, optim in zip(modules, optims, strict=True):
        learner = Learner(module, optim)
        learner.minimize(learner(images).square().mean(), Clock(0, 1))
    plain, decayed = (dict(m.named_parameters()) for m in modules)
    moved = {
        n: ((decayed[n] - before[n]).norm() / (plain[n] - before[n]).norm()).item()
        for n in ("net.head.weight", "net.blocks.5.mlp.fc1.weight", "net.blocks.4.mlp.fc1.weight")
    }
    assert moved["net.head.weight"] == pytest.approx(1, rel=1e-3)
    ratio = moved["net.blocks.4.mlp.fc1.weight"] / moved["net.blocks.5.mlp.fc1.weight"]
    assert ratio == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "rmsproptf", "muon"])
def test_frozen_weights_have_no_state_and_stay_in_the_average_too(name, tiny):
    module = build(tiny)
    for weight in module.net.layer1.parameters():
        weight.requires_grad_(False)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    learner = Learner(module, Optim(name=name, lr=0.01, weight_decay=0.1, ema=0.5))
    for step in range(3):
        images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        learner.minimize(learner(images).square().mean(), Clock(step + 1, 10))
    slow = dict(learner.average.named_parameters())
    for name, weight in module.named_parameters():
        if name.startswith("net.layer1."):
            assert torch.equal(weight, before[name]), name
            assert torch.equal(slow[name], before[name]), name
            assert weight not in learner.optimizer.state
        else:
            assert weight in learner.optimizer.state
    assert not torch.equal(module.net.fc.weight, before["net.fc.weight"])


def test_a_network_without_any_weight_to_learn_is_refused():
    with pytest.raises(UsageError, match="empty parameter list"):
        Learner(Kernel().requires_grad_(False), Optim(name="sgd"))
