from dataclasses import replace

import pytest
import torch
from timm.utils import reparameterize_model
from torch import nn

from tutelage.errors import UsageError
from tutelage.learner import Learner
from tutelage.networks import names
from tutelage.networks.build import (
    Net,
    Normalized,
    build,
    check_net,
    keep_resolution,
    parameters,
    weight_digest,
)
from tutelage.settings import Optim
from tutelage.weights import load_weights, save_weights

NAMES = ["test_resnet", "resnet18", "test_efficientnet", "test_vit"]


def net(name, **changes):
    return Net(name=name, num_classes=3, img_size=32, **changes)


def batch(side=32):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_small_images_give_logits(name, small):
    module = build(net(name, small_stem=small))
    assert module.training
    assert module(batch()).shape == (2, 3)


@pytest.mark.parametrize("name", ["nest_tiny", "test_coatnet"])  # as it is built, as it is asked
def test_a_size_that_timm_refuses_is_an_error_in_words(name):
    with pytest.raises(UsageError, match=f"{name} can't take images of 40 pixels .*--img-size"):
        check_net(replace(net(name), img_size=40))


@pytest.mark.parametrize(
    ("name", "kept", "published"),
    [("test_resnet", 4, 1), ("resnet18", 4, 1), ("test_efficientnet", 2, 1)],
)
def test_keeping_the_resolution_enlarges_the_last_map_and_adds_no_weight(name, kept, published):
    for small, side in ((True, kept), (False, published)):
        module = build(net(name, small_stem=small))
        assert module.net.forward_features(batch()).shape[-2:] == (side, side)
    pair = [build(net(name, small_stem=small)) for small in (True, False)]
    assert same(*pair)


def test_a_patch_embedding_stays_as_it_is():
    pair = [build(net("test_vit", small_stem=small)).eval() for small in (True, False)]
    assert torch.equal(pair[0](batch()), pair[1](batch()))
    strides = [m.stride for m in pair[0].modules() if isinstance(m, nn.Conv2d)]
    assert strides[0] == (16, 16)


@pytest.mark.parametrize(
    ("size", "pool", "stride"), [(32, False, 1), (64, False, 2), (128, True, 2)]
)
def test_only_as_many_strides_go_as_the_size_needs(size, pool, stride):
    module = build(net("resnet18")).net
    keep_resolution(module, size)
    assert isinstance(module.maxpool, nn.MaxPool2d) is pool
    assert module.conv1.stride == (stride, stride)
    assert module.forward_features(batch(size)).shape[-1] >= 4


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0", "fastvit_t8"])
def test_a_stem_of_branches_keeps_the_resolution_in_all_of_them_and_can_be_folded(name):
    module, published = (build(net(name, small_stem=small)) for small in (True, False))
    assert same(module, published)
    maps = [one.net.forward_features(batch()).shape[-1] for one in (module, published)]
    assert maps == [2, 1]
    folded = reparameterize_model(module.eval())
    assert parameters(folded) < parameters(module)
    assert torch.allclose(folded(batch()), module(batch()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator(name):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(net(name), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, build(net(name), seed=3))
    assert not same(first, build(net(name), seed=4))


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet81", "resnet18"), ("test_restnet", "test_resnet"), ("qqqqqqqq", "")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(
        UsageError, match=f"timm has no model {name!r}.*`tutelage models`"
    ) as caught:
        build(net(name))
    assert hint in str(caught.value)
    assert ("did you mean" in str(caught.value)) is bool(hint)


def test_a_name_with_a_tag_is_known():
    names.check_name("resnet18.a1_in1k")


def test_a_setting_that_the_network_can_not_take_is_said():
    with pytest.raises(UsageError, match=r"vgg11 can't take --noise\.drop-path: leave"):
        build(net("vgg11", drop_path=0.1))


def test_the_network_normalizes_for_itself():
    class Echo(nn.Module):
        def forward(self, images):
            return images

    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    module = Normalized(Echo(), mean, std)
    images = torch.tensor(mean).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert torch.allclose(module(images), torch.zeros(2, 3, 4, 4))
    shifted = images + torch.tensor(std).view(1, 3, 1, 1)
    assert torch.allclose(module(shifted), torch.ones(2, 3, 4, 4), atol=1e-6)


def test_the_statistics_are_those_of_the_networks_configuration():
    module = build(net("resnet18"))
    assert module.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert module.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert {"mean", "std"} <= set(module.state_dict())
    twin = module.eval().net((batch() - module.mean) / module.std)
    assert torch.equal(module(batch()), twin)


def test_dropout_disturbs_training_and_not_answers():
    module = build(net("test_resnet", dropout=0.5, drop_path=0.2))
    torch.manual_seed(0)
    assert not torch.equal(module(batch()), module(batch()))
    module.eval()
    assert torch.equal(module(batch()), module(batch()))


def test_a_digest_moves_with_every_weight_and_buffer_and_with_nothing_else():
    module = build(net("test_resnet"))
    before = weight_digest(module)
    assert before == weight_digest(build(net("test_resnet")))
    assert before == weight_digest(module.eval().to(memory_format=torch.channels_last))
    for tensor in list(module.state_dict().values())[::7]:
        original = tensor.clone()
        flat = tensor.view(-1) if tensor.is_contiguous() else tensor.reshape(-1)
        tensor.add_(1) if flat.numel() else None
        assert weight_digest(module) != before
        tensor.copy_(original)
    assert weight_digest(module) == before


def test_weights_come_back_from_their_file(tmp_path, tiny):
    module = build(tiny, seed=5)
    save_weights(tmp_path / "a.safetensors", module)
    loaded = load_weights(tmp_path / "a.safetensors", tiny, torch.device("cpu"))
    assert same(loaded, module)
    assert weight_digest(loaded) == weight_digest(module)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_of_another_network_and_damaged_ones_are_refused(tmp_path, tiny):
    path = tmp_path / "a.safetensors"
    save_weights(path, build(tiny))
    with pytest.raises(UsageError, match=r"a\.safetensors is damaged or of another network"):
        load_weights(path, replace(tiny, num_classes=4), torch.device("cpu"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"a\.safetensors is damaged"):
        load_weights(path, tiny, torch.device("cpu"))


def test_position_tables_and_tokens_get_no_weight_decay():
    module = build(Net(name="test_vit", num_classes=3, img_size=32))
    names = dict(module.named_parameters())
    learner = Learner(module, Optim(name="adamw", weight_decay=0.1))
    decayed = {
        id(p) for g in learner.optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }
    assert id(names["net.pos_embed"]) not in decayed
    assert id(names["net.cls_token"]) not in decayed
    assert id(names["net.blocks.0.attn.qkv.weight"]) in decayed


def test_parameters_are_counted():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    assert parameters(module) == 3 * 4 + 4 + 4 + 4 + 8
    assert parameters(module.requires_grad_(False)) == 3 * 4 + 4 + 4 + 4 + 8
