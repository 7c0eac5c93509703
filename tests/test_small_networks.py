"""Networks that timm lacks, by name on every verb: wide ResNets, DenseNets, stages of one's own."""

from pathlib import Path

import pytest
import starts
import timm
import torch
import toy
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import nn

from tutelage import verbs
from tutelage.cli import main
from tutelage.deploy.model_folder import load_model
from tutelage.errors import UsageError
from tutelage.learner import Learner
from tutelage.methods.supervised import Supervised
from tutelage.networks import names
from tutelage.networks.build import (
    Net,
    build,
    check_net,
    has_batch_norm,
    has_fixed_size,
    has_token,
    parameters,
    takes,
)
from tutelage.networks.efficientnet import EXAMPLE
from tutelage.networks.freeze import Freeze, freeze, groups_of, head_names, last_norm
from tutelage.networks.noise import block_sites, set_noise
from tutelage.settings import Optim

COUNTS = {  # for 10 classes
    "densenet-40-12": 1_019_722, "densenet-100-12": 6_979_642, "densenet-100-24": 27_249_082,
    "densenet-bc-100-12": 769_162, "densenet-bc-250-24": 15_324_406,
    "densenet-bc-190-40": 25_624_430, "wrn-28-2": 1_467_610, "wrn-28-10": 36_479_194,
}  # fmt: skip
STAGES = "efficientnet+stem8+er_r1_k3_s1_e1_c8+er_r2_k3_s2_e2_c16+ir_r2_k3_s2_e2_c16_se0.25+head32"
TINY = ["wrn-10-1", "densenet-7-4", "densenet-bc-10-4", STAGES]
PROTOTYPES = [*TINY, "wrn-10-1-p0.3", "densenet-bc-10-4-p0.2", f"{STAGES}-w1.5-d1.2"]


def net(name, **changes):
    return Net(name=name, num_classes=3, img_size=32, **changes)


def weightless(name, classes=10):
    with torch.device("meta"):
        return names.create(name, {"num_classes": classes})


def wide(depth, k, classes):
    """Weights of a wide ResNet, summed up by hand."""
    n, total, inputs = (depth - 4) // 6, 27 * 16, 16
    for width in (16 * k, 32 * k, 64 * k):
        for _ in range(n):
            total += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width**2
            total += inputs * width * (inputs != width)
            inputs = width
    return total + 2 * inputs + (inputs + 1) * classes


def dense(blocks, growth, stem, classes, *, kernel=3, bottleneck=True, halved=True):
    """Weights of a DenseNet, summed up by hand; ImageNet's have a norm behind the stem."""
    total, width = kernel**2 * 3 * stem + (2 * stem if kernel == 7 else 0), stem
    for number, layers in enumerate(blocks):
        for _ in range(layers):
            if bottleneck:
                total += 2 * width + 4 * width * growth + 8 * growth + 36 * growth**2
            else:
                total += 2 * width + 9 * width * growth
            width += growth
        if number < len(blocks) - 1:
            kept = width // 2 if halved else width
            total += 2 * width + width * kept
            width = kept
    return total + 2 * width + (width + 1) * classes


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_weights_is_the_papers(name):
    assert parameters(weightless(name)) == COUNTS[name]


@pytest.mark.parametrize(("depth", "k"), [(10, 1), (16, 8), (28, 2), (28, 10), (40, 4)])
def test_wide_resnets_have_as_many_weights_as_by_hand(depth, k):
    assert parameters(weightless(f"wrn-{depth}-{k}", 7)) == wide(depth, k, 7)


@pytest.mark.parametrize(("depth", "growth"), [(40, 12), (22, 5)])
def test_densenets_have_as_many_weights_as_by_hand(depth, growth):
    n = (depth - 4) // 3
    plain = dense((n,) * 3, growth, 16, 7, bottleneck=False, halved=False)
    assert parameters(weightless(f"densenet-{depth}-{growth}", 7)) == plain
    bottlenecks = dense((n // 2,) * 3, growth, 2 * growth, 7)
    assert parameters(weightless(f"densenet-bc-{depth}-{growth}", 7)) == bottlenecks


def transformer(width, depth, patch, tokens, classes):
    embedding = 3 * patch**2 * width + width + width + (tokens + 1) * width
    blocks = depth * (12 * width**2 + 13 * width)
    return embedding + blocks + 2 * width + (width + 1) * classes


def mixer(width, depth, patch, tokens, hidden):
    of_tokens = 2 * tokens * hidden[0] + hidden[0] + tokens
    of_channels = 2 * width * hidden[1] + hidden[1] + width
    blocks = depth * (4 * width + of_tokens + of_channels)
    return 3 * patch**2 * width + width + blocks + 2 * width + (width + 1) * 1000


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet121", dense((6, 12, 24, 16), 32, 64, 1000, kernel=7)),
        ("densenet161", dense((6, 12, 36, 24), 48, 96, 1000, kernel=7)),
        ("densenet169", dense((6, 12, 32, 32), 32, 64, 1000, kernel=7)),
        ("densenet201", dense((6, 12, 48, 32), 32, 64, 1000, kernel=7)),
        ("vit_tiny_patch16_224", transformer(192, 12, 16, 196, 1000)),
        ("vit_base_patch16_224", transformer(768, 12, 16, 196, 1000)),
        ("mixer_b16_224", mixer(768, 12, 16, 196, (384, 3072))),
    ],
)
def test_the_same_sums_give_timms_own_networks(name, count):
    with torch.device("meta"):
        assert parameters(timm.create_model(name)) == count


@pytest.mark.parametrize("name", PROTOTYPES)
def test_it_learns_and_answers_for_any_image_size(name):
    module = build(net(name), seed=1)
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images[:3] *= 0.3
    targets = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 1.0, 0]] * 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(module(images), targets)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    for side in (17, 40):
        assert module.eval()(torch.rand(2, 3, side, side)).shape == (2, 3)


@pytest.mark.parametrize("name", ["wrn-10-1", "densenet-7-4"])  # stages of one's own are timm's
def test_it_is_one_graph_for_compilers_and_exporters(name):
    module, images = build(net(name)).eval(), torch.rand(2, 3, 32, 32)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    exported = torch.export.export(module, (images,)).module()
    assert torch.equal(compiled(images), module(images))
    assert torch.allclose(exported(images), module(images), atol=1e-6)


@pytest.mark.parametrize("name", ["wrn-10-1", "densenet-bc-10-4"])
@pytest.mark.parametrize("side", [8, 12, 32])
def test_small_images_lose_no_stride_where_the_stem_has_none(name, side):
    """The last map has a quarter of the side with and without --stem auto."""
    shapes = []
    for small in (True, False):
        module = build(Net(name=name, num_classes=3, img_size=side, small_stem=small))
        shapes.append(module.net.forward_features(torch.rand(2, 3, side, side)).shape)
    assert shapes[0] == shapes[1]
    assert shapes[0][-1] == side // 4


@pytest.mark.parametrize(("side", "kept"), [(16, 4), (32, 4), (48, 6)])
def test_only_the_stride_that_stages_of_ones_own_need_not_have_goes(side, kept):
    module = build(Net(name=STAGES, num_classes=3, img_size=side, small_stem=True))
    assert module.net.forward_features(torch.rand(2, 3, side, side)).shape[-1] == kept


def test_what_the_package_asks_by_name_is_answered():
    for name in PROTOTYPES:
        names.check_name(name)
        check_net(net(name))
        assert has_batch_norm(name)
        assert not has_fixed_size(name)
        assert not has_token(name)
        assert takes(name, "drop_rate")
        assert takes(name, "drop_path_rate") is not name.startswith("densenet")
        assert takes(name, "drop_block")
        assert names.config_of(name).architecture == name
    assert names.config_of("wrn-28-2").input_size == (3, 32, 32)
    assert names.config_of("resnet18") == timm.models.get_pretrained_cfg("resnet18")


@pytest.mark.parametrize("name", PROTOTYPES)
def test_noise_that_is_set_is_noise_that_is_built_in(name):
    rates = {"dropout": 0.3}
    if not name.startswith("densenet"):
        rates["drop_path"] = 0.2
    built = build(net(name, drop_block=0.1, **rates))
    late = build(net(name))
    set_noise(late, drop_block=0.1, **rates)
    images, answers = torch.rand(4, 3, 32, 32), []
    for module in (built, late, build(net(name))):
        torch.manual_seed(5)
        answers.append(module(images))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])
    set_noise(late, **dict.fromkeys(rates, 0.0), drop_block=0)
    torch.manual_seed(5)
    assert torch.equal(late(images), answers[2])


def test_a_densenet_refuses_stochastic_depth():
    with pytest.raises(UsageError, match=r"densenet-7-4 can't take --noise\.drop-path"):
        build(net("densenet-7-4", drop_path=0.1))
    with pytest.raises(UsageError, match=r"--noise\.drop-path"):
        set_noise(build(net("densenet-7-4")), drop_path=0.1)


def test_dropblock_acts_on_the_last_two_sizes_of_maps():
    assert block_sites("wrn-16-1") == {
        "layer2.0": 0.25, "layer2.1": 0.25, "layer3.0": 1.0, "layer3.1": 1.0,
    }  # fmt: skip
    assert block_sites("densenet-7-4") == {"features.denseblock2": 0.25, "features.norm5": 1.0}


@pytest.mark.parametrize("name", PROTOTYPES)
def test_layers_are_known_in_groups_for_freezing_and_layer_decay(name):
    module = build(net(name))
    groups = groups_of(module)
    assert sum(len(group) for group in groups.values()) == len(list(module.parameters()))
    assert len(groups) >= 4
    (head,) = head_names(module)
    assert any(key.startswith(head) for key in groups[max(groups)])
    last = last_norm(module)
    assert last == {"w": "net.norm", "d": "net.features.norm5", "e": "net.bn2"}[name[0]]
    learner = Learner(module, Optim(name="sgd", layer_decay=0.5))
    rates = {group["lr_scale"] for group in learner.optimizer.param_groups}
    assert len(rates) > 4
    freeze(module, Freeze(part="stem", groups=2))
    frozen = [key for key, weight in module.named_parameters() if not weight.requires_grad]
    assert set(frozen) == {*groups[0], *groups[1]}


def test_a_transition_learns_as_the_layer_before_it():
    module = build(net("densenet-bc-16-4")).net
    found = group_parameters(module, module.group_matcher(), reverse=True)
    block, transition = "features.denseblock1.denselayer{}.conv1.weight", "features.transition1.{}"
    assert found[block.format(1)] < found[block.format(2)]
    assert found[transition.format("conv.weight")] == found[block.format(2)]
    assert found[block.format(2)] < found["features.denseblock2.denselayer1.conv1.weight"]


@pytest.mark.parametrize("name", TINY)
def test_a_new_classifier_takes_the_old_ones_place(name):
    module = build(net(name)).net
    module.reset_classifier(0)
    features = module.eval()(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, module.num_features)
    module.reset_classifier(5)
    assert module(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert module.get_classifier().weight.shape == (5, module.num_features)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wrn-27-2", "6n \\+ 4.*wrn-22-2 or wrn-28-2"), ("wrn-4-2", "wrn-10-2"),
        ("densenet-bc-99-12", "6n \\+ 4.*densenet-bc-94-12 or densenet-bc-100-12"),
        ("densenet-41-12", "3n \\+ 4.*densenet-40-12"), ("wrn-28-0", "wrn-28-1"),
        ("wrn_28_10", "did you mean.*wrn-28-10"), ("efficientnet-l0", "efficientnet_l0"),
        ("densenet-bc-100", "densenet-bc-100-12"), ("resnet18-w1.1", "resnet18"),
    ],
)  # fmt: skip
def test_a_name_that_can_not_be_is_answered_with_one_that_can(name, hint):
    with pytest.raises(UsageError, match=hint):
        build(net(name))


def test_models_lists_them_beside_timms(capsys):
    assert {"wrn-28-2", "wrn-28-10"} <= set(verbs.models("wrn"))
    assert "efficientnet_l0" in verbs.models("efficientnet_l")
    found = verbs.models("*")
    assert set(found) > set(timm.list_models())
    assert all(names.own(name) for name in set(found) - set(timm.list_models()))
    capsys.readouterr()
    with pytest.raises(UsageError, match="no model matches"):
        verbs.models("wrn", pretrained=True)


def test_weights_that_nobody_publishes_are_not_sought(tmp_path):
    toy.write_toy(tmp_path)
    settings = toy.train_settings(tmp_path, tmp_path / "run", model="wrn-10-1", pretrained=True)
    with pytest.raises(UsageError, match="nobody publishes weights for wrn-10-1"):
        verbs.train(**settings)


def yaml_of(folder: Path) -> str:
    path = folder / "mine.yaml"
    path.write_text(
        "stem: 8\nhead: 32\nstages:\n  - {operation: fused, layers: 1, width: 8}\n"
        "  - {operation: fused, layers: 2, width: 16, stride: 2, expansion: 2}\n"
        "  - {operation: mbconv, layers: 2, width: 16, stride: 2, expansion: 2, se: 0.25}\n"
    )
    return str(path)


def flags(images: Path, out: Path, model: str) -> list[str]:
    settings = toy.train_settings(images, out, model=model, img_size=32, steps=9)
    found = [f for key, value in settings.items() for f in (f"--{key}", str(value))]
    more = "--progressive.stages 2 --progressive.start-size 16 --progressive.multiple 8"
    noise = "--noise.dropout 0.1 --noise.drop-path 0.1 --noise.drop-block 0.1"
    return ["train", *found, *more.split(), *noise.split()]


@pytest.fixture
def described(images, tmp_path):
    """A run on stages of a YAML file, which is gone since."""
    path = yaml_of(tmp_path)
    assert main(flags(images, tmp_path / "described", path)) == 0
    Path(path).unlink()
    return tmp_path / "described"


def test_a_run_on_stages_labels_in_another_process_without_their_file(described, images, tmp_path):
    assert load_model(described).net.name == STAGES
    labels = tmp_path / "labels.csv"
    command = ["predict", str(described), str(images / "pool"), "--out", str(labels)]
    done = starts.run(starts.COMMAND, *command)
    assert done.returncode == 0, done.stderr
    assert len(labels.read_text().splitlines()) == 41


@pytest.mark.parametrize("model", ["wrn-10-1", STAGES])
def test_it_trains_through_sizes_stopped_and_continued_to_the_same_weights(
    model, images, tmp_path, monkeypatch
):
    assert main(flags(images, tmp_path / "whole", model)) == 0
    step, sizes = Supervised.step, []

    def stopping(self, state, batch, clock):
        sizes.append(batch.labeled.images.shape[-1])
        if len(sizes) == 6:
            raise KeyboardInterrupt
        return step(self, state, batch, clock)

    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "step", stopping)
        patch.setattr("tutelage.loop.SAVE_SECONDS", 0.0)
        assert main(flags(images, parts, model)) != 0
    assert set(sizes) == {16, 32}
    assert main(flags(images, parts, model)) == 0
    whole, again = (load_file(tmp_path / p / "model/model.safetensors") for p in ("whole", "parts"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert load_model(parts).net.name == model


def test_a_run_on_one_gives_another_its_weights(images, tmp_path):
    common = {"model": STAGES, "img_size": 16, "steps": 2}
    verbs.train(**toy.train_settings(images, tmp_path / "first", **common))
    again = toy.train_settings(images, tmp_path / "second", **common)
    verbs.train(**again, init=str(tmp_path / "first"), transfer="probe")
    first, second = (load_model(tmp_path / name).module for name in ("first", "second"))
    assert torch.equal(first.net.conv_stem.weight, second.net.conv_stem.weight)
    other = again | {"out": tmp_path / "third", "model": EXAMPLE}
    with pytest.raises(UsageError, match=r"another network|doesn't fit"):
        verbs.train(**other, init=str(tmp_path / "first"))
