"""EfficientNets of stages: counts of the papers, and the very networks that timm has."""

from dataclasses import replace

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tutelage.errors import UsageError
from tutelage.networks import names
from tutelage.networks.build import parameters
from tutelage.networks.efficientnet import (
    EXAMPLE,
    Architecture,
    ConvStage,
    num_macs,
    num_parameters,
    parse_architecture,
)
from tutelage.networks.published import architecture_of, size_of
from tutelage.networks.scaling import scaled
from tutelage.values import from_plain, load_yaml, to_plain

# Trainable weights, and with batch norm's statistics, as the authors' code counts them.
COUNTS = {
    "efficientnet_b0": (5_288_548, 5_330_564), "efficientnet_b1": (7_794_184, 7_856_232),
    "efficientnet_b2": (9_109_994, 9_177_562), "efficientnet_b3": (12_233_232, 12_320_528),
    "efficientnet_b4": (19_341_616, 19_466_816), "efficientnet_b5": (30_389_784, 30_562_520),
    "efficientnet_b6": (43_040_704, 43_265_136), "efficientnet_b7": (66_347_960, 66_658_680),
    "efficientnet_b8": (87_413_142, None), "efficientnet_l0": (140_764_664, None),
    "efficientnet_l1": (272_630_564, None), "efficientnet_l2": (480_309_308, 481_399_996),
    "tf_efficientnetv2_b0": (7_139_704, 7_200_312), "tf_efficientnetv2_b1": (8_141_052, 8_212_124),
    "tf_efficientnetv2_b2": (10_096_086, 10_178_374),
    "tf_efficientnetv2_b3": (14_358_406, 14_467_622),
    "tf_efficientnetv2_s": (21_458_488, 21_612_360),
    "tf_efficientnetv2_m": (54_139_356, 54_431_388),
    "tf_efficientnetv2_l": (118_515_272, 119_027_848),
    "tf_efficientnetv2_xl": (208_119_808, 208_896_832),
}  # fmt: skip
MACS = {  # in thousands of millions, at the published sizes
    "efficientnet_b0": 0.386, "efficientnet_b1": 0.687, "efficientnet_b2": 0.994,
    "efficientnet_b3": 1.827, "efficientnet_b4": 4.394, "efficientnet_b5": 10.27,
    "efficientnet_b6": 19.07, "efficientnet_b7": 37.75, "efficientnet_b8": 62.6,
    "efficientnet_l2": 475.7, "tf_efficientnetv2_b0": 0.718, "tf_efficientnetv2_b1": 1.197,
    "tf_efficientnetv2_b2": 1.698, "tf_efficientnetv2_b3": 3.011, "tf_efficientnetv2_s": 8.37,
    "tf_efficientnetv2_m": 24.58, "tf_efficientnetv2_l": 56.08, "tf_efficientnetv2_xl": 93.35,
}  # fmt: skip
BUILT = [  # the others' counts follow from the same values; these are built as well
    "efficientnet_b0", "efficientnet_b3", "tf_efficientnetv2_s", "tf_efficientnetv2_b3",
]  # fmt: skip


def count_macs(module, side):
    """Multiplications that torch counts for one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, side, side, device="meta"))
    return counter.get_total_flops() // 2


def on_meta(arch, **options):
    with torch.device("meta"):
        return arch.build(**options)


def with_statistics(module):
    return sum(t.numel() for n, t in module.state_dict().items() if "num_batches" not in n)


@pytest.mark.parametrize("name", COUNTS)
def test_every_published_network_has_the_published_number_of_weights(name):
    arch = architecture_of(name)
    weights, all_numbers = COUNTS[name]
    assert num_parameters(arch) == weights
    if all_numbers is not None:  # a batch norm keeps two numbers beside its two weights
        assert all_numbers - weights == num_parameters(arch) - _without_norms(arch)
    if name.removeprefix("tf_") == name and not name.endswith(("l0", "l1")):
        assert num_parameters(architecture_of(f"tf_{name}")) == weights


def _without_norms(arch):
    from tutelage.networks.efficientnet import convolutions

    return sum(c.weights + c.outputs * c.pooled for c in convolutions(arch, 1000))


@pytest.mark.parametrize("name", MACS)
def test_multiplications_are_the_published_ones(name):
    found = num_macs(architecture_of(name), size_of(name)) / 1e9
    assert found == pytest.approx(MACS[name], rel=0.005)


@pytest.mark.parametrize("name", [*BUILT, EXAMPLE])
def test_what_is_counted_is_what_is_built(name):
    arch, side = architecture_of(name), 96
    module = on_meta(arch)
    assert parameters(module) == num_parameters(arch)
    assert count_macs(module, side) == num_macs(arch, side)
    if name in COUNTS:
        assert with_statistics(module) == COUNTS[name][1]
    assert module.training  # as it was


@pytest.mark.parametrize("name", ["efficientnet_l2", "tf_efficientnetv2_m"])
def test_the_largest_have_timms_layers_one_by_one(name):
    with torch.device("meta"):
        theirs = timm.create_model(name).state_dict()
    ours = on_meta(architecture_of(name)).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b0", "tf_efficientnetv2_b0"])
def test_it_answers_as_timms_own_network_to_the_last_bit(name):
    """With moved statistics and weights: those of a new network would hide differences."""
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=7, drop_path_rate=0.2)
    torch.manual_seed(0)
    ours = architecture_of(name).build(num_classes=7, drop_path_rate=0.2)
    draws = torch.Generator().manual_seed(1)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=draws)
    before = {k: v for k, v in ours.state_dict().items() if "running" not in k and "bn" not in k}
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in before.items())  # same draws
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.rand(2, 3, 65, 65, generator=draws)
    with torch.no_grad():
        want, got = theirs.eval()(images), ours.eval()(images)
        assert want.std() > 1e-3
        assert torch.equal(got, want)
        answers = []
        for module in (theirs.train(), ours.train()):
            torch.manual_seed(3)
            answers.append(module(images))
        assert torch.equal(*answers)  # the same stochastic depth in the same blocks


def test_one_block_of_each_kind_has_the_known_number_of_weights():
    def block(stage, inputs):
        arch = Architecture(stages=(stage,), stem=inputs, head=8)
        return parameters(on_meta(arch).blocks)

    mbconv = ConvStage(operation="mbconv", layers=1, width=24, expansion=6, se=0.25)
    fused = ConvStage(operation="fused", layers=1, width=48, expansion=4)
    assert block(mbconv, 16) == 6_004
    assert block(fused, 24) == 25_632


def test_the_same_architecture_builds_twice():
    arch = parse_architecture(EXAMPLE)
    first, second = on_meta(arch), on_meta(arch)
    assert parameters(first) == parameters(second)


stages = st.builds(
    ConvStage,
    operation=st.sampled_from(["mbconv", "fused"]),
    layers=st.integers(1, 3),
    width=st.integers(1, 5).map(lambda n: 8 * n),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    expansion=st.sampled_from([1.5, 2, 4, 6]),
    se=st.sampled_from([0.0, 0.25, 0.5]),
) | st.builds(
    ConvStage,
    operation=st.sampled_from(["mbconv", "fused"]),
    layers=st.integers(1, 3),
    width=st.integers(4, 40),
    stride=st.sampled_from([1, 2]),
)
architectures = st.builds(
    Architecture,
    stages=st.lists(stages, min_size=1, max_size=4).map(tuple),
    stem=st.integers(1, 3).map(lambda n: 8 * n),
    head=st.integers(1, 40),
    activation=st.sampled_from(["silu", "relu", "gelu", "hard_swish", "mish"]),
    norm_eps=st.sampled_from([1e-3, 1e-5, 0.01]),
    padding=st.sampled_from(["symmetric", "same"]),
)


@settings(max_examples=50)
@given(architectures)
def test_a_name_and_plain_values_give_the_same_architecture_back(arch):
    assert architecture_of(arch.name) == arch
    assert hash(parse_architecture(arch.name)) == hash(arch)
    assert from_plain(Architecture, to_plain(arch)) == arch
    assert names.name_in(arch.name) == arch.name


@settings(max_examples=12)
@given(architectures)
def test_any_stages_are_counted_and_built_alike(arch):
    module = on_meta(arch, num_classes=5)
    assert parameters(module) == num_parameters(arch, 5)
    assert count_macs(module, 40) == num_macs(arch, 40, 5)
    assert module.forward_features(torch.zeros(2, 3, 64, 64, device="meta")).shape[-1] == max(
        1, 64 // arch.reduction
    )


def test_a_yaml_file_of_stages_is_read_as_its_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "stem: 24\nhead: 256\nstages:\n"
        "  - {operation: fused, layers: 2, width: 24}\n"
        "  - {operation: mbconv, layers: 4, width: 64, stride: 2, expansion: 4, se: 0.25}\n"
    )
    assert names.name_in(str(path)) == EXAMPLE
    assert from_plain(Architecture, load_yaml(path)) == architecture_of(EXAMPLE)
    path.write_text("stem: 24\nstages:\n  - {operation: fused, layers: 2, widht: 24}\n")
    with pytest.raises(UsageError, match=r"widht.*did you mean width"):
        names.name_in(str(path))
    with pytest.raises(UsageError, match="does not exist"):
        names.name_in(str(tmp_path / "other.yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": 4}, "odd"), ({"stride": 3}, "stride"), ({"layers": 0}, "layers"),
        ({"operation": "conv"}, "mbconv or fused"), ({"expansion": 0.5}, "expansion"),
        ({"operation": "fused", "expansion": 1}, "takes no se"),
    ],
)  # fmt: skip
def test_stages_that_can_not_be_are_refused(change, words):
    stage = ConvStage(operation="mbconv", layers=1, width=16, expansion=4, se=0.25)
    with pytest.raises(UsageError, match=words):
        replace(stage, **change)


@pytest.mark.parametrize(
    "name", ["efficientnet+stem32", "efficientnet+ir_r2_k3", "efficientnet+ir_r1_k3_s1_e1.2.3_c8"]
)
def test_names_of_stages_that_can_not_be_read_are_refused_with_an_example(name):
    with pytest.raises(UsageError, match=r"as in efficientnet\+|no number"):
        names.check_name(name)


@pytest.mark.parametrize(
    "other",
    [
        EXAMPLE.replace("+stem24", "+stem24.5"), EXAMPLE.replace("se0.25", "se0.250"),
        f"{EXAMPLE}+silu", EXAMPLE.replace("stem24+", "stem9+stem24+"),
    ],
)  # fmt: skip
def test_a_network_has_one_name(other):
    with pytest.raises(
        UsageError, match="write " + EXAMPLE.replace("+", r"\+").replace(".", r"\.")
    ):
        architecture_of(other)


def test_a_gate_without_hidden_channels_is_refused():
    thin = ConvStage(operation="mbconv", layers=1, width=8, se=0.01)
    with pytest.raises(UsageError, match="hidden channel"):
        Architecture(stages=(thin,), stem=8)


def test_both_published_roundings_give_b3_its_two_sizes():
    base = architecture_of("efficientnet_b0")
    with_rule = scaled(base, width=1.2, depth=1.4)
    without = scaled(base, width=1.2, depth=1.4, rounding="nearest")
    assert num_parameters(with_rule) == 12_233_232
    assert num_parameters(without) == 12_227_212
    for width, depth in ((1.1, 1.2), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)):
        pair = [
            scaled(base, width=width, depth=depth, rounding=r) for r in ("nearest", "at-least-0.9")
        ]
        assert pair[0] == pair[1]
