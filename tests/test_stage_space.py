import random

import pytest
import torch

from tutelage.errors import UsageError
from tutelage.networks.build import Net, build
from tutelage.networks.efficientnet import parse_architecture
from tutelage.networks.published import architecture_of
from tutelage.searching.stages import StageSpace, layers_around

BASES = (
    "efficientnetv2_b0", "efficientnetv2_b0-w0.5", "tf_efficientnetv2_s", "efficientnetv2_m-d0.5",
    "efficientnet_b0", "tf_efficientnet_b1-w0.3-l1.5",
    "efficientnet+stem8+er_r1_k5_s2_e1_c8+ir_r9_k3_s2_e4_c16+head32+gelu",
)  # fmt: skip
ONE_STAGE = "efficientnet+stem8+ir_r2_k3_s2_e4_c16_se0.25+head32"


def drawn(space, count, seed=0):
    dice = random.Random(seed)
    return [
        tuple(dice.randrange(len(one.options)) for one in space.dimensions) for _ in range(count)
    ]


def genes_of(space, architecture):
    """The choice whose options are those of the network's stages."""
    values = [
        value for stage in architecture.stages
        for value in (stage.operation, stage.kernel, stage.expansion, stage.layers)
    ]  # fmt: skip
    pairs = zip(space.dimensions, values, strict=True)
    return tuple(one.options.index(value) for one, value in pairs)


@pytest.mark.parametrize("base", BASES)
def test_the_base_is_one_of_its_space(base):
    space = StageSpace(base)
    architecture = architecture_of(base)
    genes = genes_of(space, architecture)
    assert space.architecture(genes) == architecture
    assert architecture_of(space.network(genes)) == architecture
    assert space.reference == base


@pytest.mark.parametrize("base", BASES)
def test_a_name_leads_back_to_its_choice(base):
    space = StageSpace(base)
    choices = drawn(space, 60)
    for genes in choices:
        assert genes_of(space, parse_architecture(space.network(genes))) == genes


def test_no_two_choices_are_one_network():
    space = StageSpace(ONE_STAGE)
    names = {space.network(genes) for genes in space.all_genes()}
    assert len(names) == space.size == 2 * 2 * 3 * 4


def test_a_choice_is_what_its_dimensions_say_and_else_the_base():
    base = architecture_of("efficientnet_b0")
    space = StageSpace("efficientnet_b0")
    names = [one.name for one in space.dimensions]
    assert len(set(names)) == len(names) == 4 * 7
    for genes in drawn(space, 40):
        made = space.architecture(genes)
        options = {
            one.name: one.options[place]
            for one, place in zip(space.dimensions, genes, strict=True)
        }  # fmt: skip
        assert (made.stem, made.head, made.norm_eps) == (base.stem, base.head, base.norm_eps)
        for number, (stage, known) in enumerate(zip(made.stages, base.stages, strict=True), 1):
            assert (stage.width, stage.stride) == (known.width, known.stride)
            for name in ("operation", "kernel", "expansion", "layers"):
                assert getattr(stage, name) == options[f"stage{number}.{name}"]
            assert stage.se == (0.25 if stage.operation == "mbconv" else 0)


def test_a_base_without_squeeze_and_excitation_gets_none():
    space = StageSpace("efficientnet+stem8+ir_r2_k3_s2_e4_c16+er_r1_k3_s1_e4_c24+head32")
    assert not any("_se" in space.network(genes) for genes in drawn(space, 40))


def test_a_stage_keeps_its_own_ratio_and_a_fused_one_gets_that_of_the_first():
    base = (
        "efficientnet+stem8+er_r1_k3_s1_e4_c16+ir_r1_k3_s2_e4_c16_se0.5"
        "+ir_r1_k3_s2_e4_c24_se0.25+ir_r1_k3_s1_e4_c24+head32"
    )
    made = StageSpace(base).architecture((0, 0, 1, 0) * 4)
    assert [stage.se for stage in made.stages] == [0.5, 0.5, 0.25, 0]


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        (1, (1, 2, 3)), (2, (1, 2, 3, 4)), (7, (6, 7, 8, 9)), (8, (6, 8, 10, 12)),
        (15, (12, 15, 18, 21)), (25, (19, 25, 31, 37)),
    ],
)  # fmt: skip
def test_layers_are_one_step_less_as_many_and_two_steps_more(layers, options):
    assert layers_around(layers) == options


@pytest.mark.parametrize(
    "base", ["resnet18", "efficientnet_b9", "no-such", "mobilenetv3_small_100"]
)
def test_a_base_without_known_stages_is_named(base):
    with pytest.raises(UsageError, match=f"{base} is no EfficientNet whose stages are known"):
        StageSpace(base)


def test_a_base_too_narrow_for_squeeze_and_excitation_is_refused_at_once():
    StageSpace("efficientnet+stem1+er_r1_k3_s1_e4_c16+head8")
    with pytest.raises(UsageError, match="raise the stage's se"):
        StageSpace("efficientnet+stem1+er_r1_k3_s1_e4_c16+ir_r1_k3_s1_e4_c16_se0.25+head8")


def ends(space):
    """All stages MBConv with the least of everything, and all fused with the most."""
    last = tuple(len(one.options) - 1 for one in space.dimensions)
    return [tuple(0 for _ in last), last]


@pytest.mark.parametrize("base", ["efficientnetv2_b0-w0.1-d0.5", "tf_efficientnet_b0-w0.2-d0.5"])
@pytest.mark.parametrize(("size", "small_stem"), [(32, True), (32, False), (64, True)])
def test_any_choice_learns_from_small_images(base, size, small_stem):
    space = StageSpace(base)
    for genes in [*ends(space), *drawn(space, 1)]:
        name = space.network(genes)
        net = build(Net(name=name, num_classes=3, img_size=size, small_stem=small_stem))
        logits = net(torch.rand(2, 3, size, size))
        assert logits.shape == (2, 3)
        logits.square().sum().backward()
        assert all(torch.isfinite(weight.grad).all() for weight in net.parameters())
