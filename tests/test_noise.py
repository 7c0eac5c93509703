import copy
import pickle
from dataclasses import replace

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner, modes
from tutelage.networks.build import Net, build, takes
from tutelage.networks.drop_block import BLOCK, DropBlock, drop_block, gamma
from tutelage.networks.noise import set_noise
from tutelage.settings import Optim
from tutelage.weights import load_weights, save_weights

SMALL = [
    "test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_byobnet", "test_nfnet",
]  # fmt: skip
FAMILIES = [
    *SMALL, "mobilenetv3_small_050", "regnetx_002", "mixer_s32_224", "swin_tiny_patch4_window7_224",
    "rexnet_100", "test_mambaout",
]  # fmt: skip
CONVOLUTIONS = ["test_resnet", "test_efficientnet", "test_convnext", "test_byobnet", "test_nfnet"]


def net(name, **changes):
    return Net(name=name, num_classes=3, img_size=64, **changes)


def batch(seed=0, count=4):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def weightless(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def rates(module):
    layers = module.named_modules()
    return {path: m.drop_prob for path, m in layers if isinstance(m, DropPath) and m.drop_prob}


def dropouts(module):
    found = {path: m.p for path, m in module.named_modules() if isinstance(m, nn.Dropout) and m.p}
    return found, vars(module).get("drop_rate", 0)


def drop_blocks(module):
    hooks = [hook for layer in module.modules() for hook in layer._forward_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, DropBlock)]


def answer(module, images, seed=0):
    torch.manual_seed(seed)
    return module(images)


@pytest.mark.parametrize("name", FAMILIES)
def test_drop_path_set_later_is_that_of_timms_constructor(name):
    module, expected = weightless(name), weightless(name, drop_path_rate=0.2)
    set_noise(module, drop_path=0.2)
    assert rates(module) == rates(expected) != {}
    set_noise(module, drop_path=0.4)
    doubled = {path: pytest.approx(2 * rate) for path, rate in rates(expected).items()}
    assert rates(module) == doubled
    set_noise(module, drop_path=0)
    assert not rates(module)
    assert list(module.state_dict()) == list(expected.state_dict())


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv3_small_050", "densenet121", "vgg11"])
def test_dropout_set_later_is_that_of_timms_constructor(name):
    module, expected = weightless(name), weightless(name, drop_rate=0.2)
    set_noise(module, dropout=0.2)
    assert dropouts(module) == dropouts(expected) != ({}, 0)
    set_noise(module, dropout=0)
    assert dropouts(module) == dropouts(weightless(name, drop_rate=0.0))


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_is_set_trains_like_one_that_was_built_so(name):
    blocks = 0.3 if takes(name, "drop_block") else 0.0
    noisy = {"dropout": 0.3, "drop_path": 0.4, "drop_block": blocks}
    built, later = build(net(name, **noisy), seed=1), build(net(name), seed=1)
    plain = copy.deepcopy(later)
    set_noise(later, **noisy)
    found = answer(later, batch())
    assert torch.equal(answer(built, batch()), found)
    assert not torch.equal(answer(plain, batch()), found)
    assert torch.equal(built.eval()(batch()), later.eval()(batch()))


def test_rates_grow_linearly_to_the_last_block():
    module = build(net("resnet18"))
    set_noise(module, drop_path=0.7)
    assert list(rates(module).values()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_twelve_blocks_have_the_rates_of_the_paper():
    module = weightless("vit_tiny_patch16_224")
    set_noise(module, drop_path=0.1)
    found = [block.drop_path1.drop_prob for block in list(module.blocks)[1:]]
    assert found == pytest.approx([0.1 * i / 11 for i in range(1, 12)])
    assert found[0] == pytest.approx(0.0091, abs=5e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_a_network_without_a_name_gets_rates_in_the_order_of_its_blocks(name):
    module = build(net(name)).net
    del module.pretrained_cfg
    set_noise(module, dropout=0.3, drop_path=0.6)
    found = list(dict.fromkeys(rates(module).values()))
    assert found == pytest.approx([0.6 * (i + 1) / len(found) for i in range(len(found))])
    assert {*dropouts(module)[0].values(), dropouts(module)[1]} - {0} == {0.3}
    if name != "test_vit":
        set_noise(module, drop_block=0.2)
        assert len(drop_blocks(module)) == len(drop_blocks(build(net(name, drop_block=0.2))))


def test_a_network_with_other_blocks_than_its_name_says_is_taken_as_it_is():
    module = timm.create_model("test_vit", depth=3, img_size=64)
    set_noise(module, drop_path=0.2)
    assert [block.drop_path1.drop_prob for block in list(module.blocks)[1:]] == [0.1, 0.2]


def test_what_is_not_given_stays():
    module = build(net("test_resnet", dropout=0.1, drop_path=0.2, drop_block=0.3))
    before = rates(module), dropouts(module.net), [hook.rate for hook in drop_blocks(module)]
    set_noise(module)
    set_noise(module, dropout=0.1)
    set_noise(module, drop_path=0.2)
    after = rates(module), dropouts(module.net), [hook.rate for hook in drop_blocks(module)]
    assert before == after


def test_noise_set_between_stages_takes_effect_and_the_rest_goes_on():
    module = build(net("test_convnext"))
    names, weights = list(module.state_dict()), [id(p) for p in module.parameters()]
    learner = Learner(module, Optim(name="sgd", lr=0.01))
    spread = []
    for step, rate in enumerate((0.0, 0.3, 0.9, 0.0)):
        set_noise(module, dropout=rate, drop_path=rate / 2, drop_block=rate / 3)
        both = [answer(module, batch(), seed) for seed in (1, 2)]
        spread.append(float((both[0] - both[1]).detach().abs().mean()))
        learner.minimize(learner(batch()).square().mean(), Clock(step, 4))
    assert spread[0] == spread[3] == 0 < spread[1] < spread[2]
    assert list(module.state_dict()) == names
    assert [id(p) for p in module.parameters()] == weights


def test_what_is_set_in_eval_mode_stays_silent():
    module = build(net("test_resnet", drop_path=0.1)).eval()
    before = module(batch())
    set_noise(module, dropout=0.5, drop_path=0.9, drop_block=0.5)
    assert not any(layer.training for layer in module.modules())
    assert torch.equal(module(batch()), before)


def test_teachers_averages_and_frozen_networks_have_no_noise():
    noisy = net("test_resnet", dropout=0.5, drop_path=0.5, drop_block=0.5)
    learner = Learner(build(noisy), Optim(ema=0.9))
    frozen = Frozen(build(noisy))
    set_noise(frozen.module, drop_path=0.8)
    kept = learner.graduate()
    for ask in (frozen, kept, learner.slow):
        assert torch.equal(answer(ask, batch(), 1), answer(ask, batch(), 2))
    assert not torch.equal(answer(learner, batch(), 1), answer(learner, batch(), 2))


@pytest.mark.parametrize("name", ["test_resnet", "densenet121"])
def test_noise_can_be_switched_off_while_batch_norm_goes_on(name):
    module = build(net(name, drop_block=0.5))
    with modes(module, noise=False, statistics=True):
        assert torch.equal(answer(module, batch(), 1), answer(module, batch(), 2))
    with modes(module, noise=True, statistics=False):
        assert not torch.equal(answer(module, batch(), 1), answer(module, batch(), 2))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("vgg11", {"drop_path": 0.1}),
        ("densenet121", {"drop_path": 0.1}),
        ("test_vit", {"drop_block": 0.1}),
        ("mixer_s32_224", {"drop_block": 0.1}),
    ],
)
def test_what_a_network_can_not_take_is_said_with_its_name(name, option):
    module = weightless(name)
    flag = next(iter(option)).replace("_", "-")
    with pytest.raises(UsageError, match=rf"{name} can't take --noise\.{flag}"):
        set_noise(module, **option)
    set_noise(module, **dict.fromkeys(option, 0.0))


@pytest.mark.parametrize("option", ["dropout", "drop_path", "drop_block"])
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_share(option, rate):
    with pytest.raises(UsageError, match=f"{option} is 0 to 1"):
        set_noise(build(net("test_resnet")), **{option: rate})


@pytest.mark.parametrize(
    ("name", "can"), [("test_resnet", True), ("vgg11", True), ("test_vit", False)]
)
def test_which_network_takes_drop_block_is_known_by_name(name, can):
    assert takes(name, "drop_block") is can
    if not can:
        with pytest.raises(UsageError, match=rf"{name} can't take --noise\.drop-block"):
            build(net(name, drop_block=0.1))


def test_the_rate_of_squares_is_that_of_the_paper():
    assert gamma(0.1, 7, 14, 14) == pytest.approx(0.00625)
    assert gamma(0.3, 1, 5, 9) == pytest.approx(0.3)
    assert gamma(0.2, 7, 7, 7) == pytest.approx(0.2)


def test_whole_squares_are_dropped_and_each_channel_for_itself():
    torch.manual_seed(0)
    found = drop_block(torch.ones(8, 4, 20, 20), 0.1) == 0
    rows = found.float().unfold(2, BLOCK, 1).unfold(3, BLOCK, 1).amin((-1, -2))  # square is gone
    spread = nn.functional.pad(rows, [BLOCK - 1] * 4)
    assert torch.equal(nn.functional.max_pool2d(spread, BLOCK, stride=1).bool(), found)
    assert found.any()
    assert not torch.equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("side", [1, 2, 4, 7, 14])
def test_drop_block_keeps_the_mean_and_drops_its_share(side):
    torch.manual_seed(0)
    maps = 2 + torch.rand(100, 100, side, side)  # 10,000 samples of a map
    found = drop_block(maps, 0.1)
    assert float(found.mean()) == pytest.approx(float(maps.mean()), rel=0.01)
    assert 0.08 < float((found == 0).float().mean()) < 0.11  # squares overlap


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_drop_path_keeps_the_mean(rate):
    module = build(net("test_resnet"))
    set_noise(module, drop_path=rate)
    layer = module.net.layer4[0].drop_path
    torch.manual_seed(0)
    found = layer(torch.full((100_000, 2), 3.0)).mean(0)
    assert layer.drop_prob == pytest.approx(rate)
    assert found.tolist() == pytest.approx([3.0, 3.0], rel=0.02)
    assert torch.equal(layer.eval()(found), found)


def test_nothing_left_is_not_divided_by():
    assert torch.equal(drop_block(torch.ones(2, 3, 4, 4), 1.0), torch.zeros(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("name", "last"),
    [("resnet18", "layer4.1"), ("densenet121", "features.norm5"), ("test_convnext", "stages.3")],
)
def test_drop_block_acts_on_the_last_two_sizes_of_maps(name, last):
    module = build(net(name, drop_block=0.2)).net
    hooked = {path: layer for path, layer in module.named_modules() if layer._forward_hooks}
    assert max(hooked).startswith(last)
    assert {hook.rate for hook in drop_blocks(module)} == {0.2, 0.05}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_copies_and_files_of_a_network_with_drop_block_are_whole(name, tmp_path):
    noisy = net(name, drop_block=0.4)
    module = build(noisy, seed=2)
    expected = answer(module, batch())
    other = build(replace(noisy, drop_block=0.0), seed=3)
    assert list(module.state_dict()) == list(other.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(answer(twin, batch()), expected)
        set_noise(twin, drop_block=0)
        assert not drop_blocks(twin)
        assert drop_blocks(module)
        assert torch.equal(answer(module, batch()), expected)
    save_weights(tmp_path / "a.safetensors", module)
    loaded = load_weights(tmp_path / "a.safetensors", noisy, torch.device("cpu"))
    torch.testing.assert_close(loaded(batch()), module.eval()(batch()))


def test_a_hook_of_another_is_left_alone():
    module = build(net("test_resnet", drop_block=0.1))
    heard = []
    module.net.layer4[0].register_forward_hook(lambda *told: heard.append(1))
    for rate in (0.2, 0.0, 0.3):
        set_noise(module, drop_block=rate)
        module(batch())
    assert len(heard) == 3
    assert {hook.rate for hook in drop_blocks(module)} <= {0.3, 0.075}


def test_the_global_generator_stays_as_it_is():
    module = build(net("test_resnet"))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    set_noise(module, dropout=0.11, drop_path=0.12, drop_block=0.13)
    assert torch.equal(torch.get_rng_state(), before)
