"""Scaling: both rounding rules, the compound rule, and budgets that are met."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.errors import UsageError
from tutelage.networks import names
from tutelage.networks.budget import Scaled, scale, scale_to
from tutelage.networks.build import Net, build, parameters
from tutelage.networks.efficientnet import EXAMPLE, num_parameters, parse_architecture
from tutelage.networks.published import architecture_of
from tutelage.networks.scaling import (
    COMPOUND,
    NON_UNIFORM,
    Rule,
    coefficients,
    round_channels,
    round_repeats,
    scaled,
)
from tutelage.values import from_plain, to_plain

ODD = "efficientnet+stem12+er_r2_k3_s1_e1_c20+ir_r3_k5_s2_e4_c52_se0.25+head77"


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (32, 1.1, 32), (16, 1.2, 24), (24, 1.1, 24), (40, 1.8, 72), (320, 1.4, 448),
        (1280, 1.4, 1792), (1280, 2.0, 2560), (3, 1.0, 8),
    ],
)  # fmt: skip
def test_channels_are_rounded_as_published(channels, width, expected):
    assert round_channels(channels * width) == expected


def test_the_second_rule_lets_a_tenth_go():
    assert round_channels(16 * 1.2, rounding="nearest") == 16


@pytest.mark.parametrize(
    ("layers", "depth", "expected"), [(3, 1.4, 5), (4, 1.1, 5), (1, 3.1, 4), (4, 0.3, 2), (1, 0, 1)]
)
def test_layers_are_rounded_up(layers, depth, expected):
    assert round_repeats(layers, depth) == expected


def test_phi_1_is_the_papers_step():
    assert COMPOUND.product == pytest.approx(1.92027)
    found = coefficients(1, size=224, rule=Rule(multiple=1))
    assert (found.depth, found.width, found.size) == (1.2, 1.1, 258)  # 257.6
    assert coefficients(1, size=224).size == 256
    cost = scale("efficientnet_b0", 4).macs / scale("efficientnet_b0", 0).macs
    assert cost == pytest.approx(COMPOUND.product**4, rel=0.15)  # rounded up in parts


@pytest.mark.parametrize("base", ["efficientnet_b0", "tf_efficientnetv2_s", EXAMPLE, ODD])
@pytest.mark.parametrize("rule", [COMPOUND, NON_UNIFORM], ids=["compound", "non-uniform"])
def test_phi_0_is_the_base(base, rule):
    assert scale(base, 0, rule=rule).architecture == architecture_of(base)
    assert scale(base, 0, rule=rule).name == base


@pytest.mark.parametrize("rule", [COMPOUND, NON_UNIFORM], ids=["compound", "non-uniform"])
@given(
    base=st.sampled_from(["efficientnet_b0", "tf_efficientnetv2_s", ODD]),
    phi=st.floats(-12, 12),
    more=st.floats(0, 4),
    size=st.sampled_from([32, 100, 300, 640]),
)
@settings(max_examples=60)
def test_cost_grows_with_phi(base, phi, more, size, rule):
    one, other = (scale(base, p, size=size, rule=rule) for p in (phi, phi + more))
    assert one.parameters <= other.parameters
    assert one.macs <= other.macs
    assert one.size <= other.size
    assert rule.cap is None or other.size <= rule.cap
    for low, high in zip(one.architecture.stages, other.architecture.stages, strict=True):
        assert low.layers <= high.layers
        assert low.width <= high.width


def test_the_cap_turns_pixels_into_late_layers():
    plain, capped = (scale("tf_efficientnetv2_s", 3, rule=r) for r in (COMPOUND, NON_UNIFORM))
    assert plain.size > 480 == capped.size
    assert plain.late == 1 < capped.late
    early = [stage.layers for stage in capped.architecture.stages[:-2]]
    assert early == [stage.layers for stage in plain.architecture.stages[:-2]]
    for low, high in zip(
        plain.architecture.stages[-2:], capped.architecture.stages[-2:], strict=True
    ):
        assert low.layers < high.layers
    below = [scale("tf_efficientnetv2_s", 1, rule=r) for r in (COMPOUND, NON_UNIFORM)]
    assert below[0] == below[1]


def larger(one, *, with_size, cap=None):
    """The next larger networks in each direction, found by trying hundredths and pixels."""
    found = []
    for name in ("width", "depth"):
        for count in range(1, 300):
            other = replace(one, **{name: round(vars(one)[name] + count / 100, 2)})
            if other.architecture != one.architecture:
                found.append(other)
                break
    size = (one.size // 16 + 1) * 16
    if with_size and (cap is None or size <= cap):
        found.append(replace(one, size=size))
    return found


@pytest.mark.parametrize(
    ("base", "budget", "of"),
    [
        ("efficientnet_b0", 12.3e6, "parameters"), ("tf_efficientnetv2_s", 5e6, "parameters"),
        ("efficientnet_b0", 0.1e9, "macs"), ("tf_efficientnetv2_b0", 8e9, "macs"),
        ("tf_efficientnetv2_s", 40e9, "macs"), (EXAMPLE, 1e9, "macs"), (ODD, 90_000, "parameters"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rule", [COMPOUND, NON_UNIFORM], ids=["compound", "non-uniform"])
def test_a_budget_is_met_within_one_step_of_rounding(base, budget, of, rule):
    found = scale_to(base, budget, of=of, rule=rule)
    cost = vars(Scaled)[of].fget
    assert cost(found) <= budget
    steps = larger(found, with_size=of == "macs", cap=rule.cap)
    assert all(cost(one) > budget for one in steps)
    assert rule.cap is None or found.size <= rule.cap
    assert scale_to(base, budget, of=of, rule=rule) == found


def test_a_measured_time_is_a_budget_and_each_network_is_measured_once():
    asked = []

    def seconds(one):  # what doesn't fit into memory takes forever
        asked.append(one)
        return 0.002 + one.macs / 1e11 if one.parameters < 15e6 else float("inf")

    found = scale_to("efficientnet_b0", 0.03, of=seconds)
    assert seconds(found) <= 0.03
    assert all(seconds(one) > 0.03 for one in larger(found, with_size=True))
    asked.clear()
    scale_to("efficientnet_b0", 0.03, of=seconds)
    assert len(asked) == len(set(asked)) < 40
    assert scale_to("efficientnet_b5", 0.03, of=seconds).parameters < 15e6  # begins too large


@pytest.mark.parametrize(
    ("base", "budget", "words"),
    [
        ("efficientnet_b0", 100, "even .* costs"), ("resnet18", 1e6, "no EfficientNet"),
        ("efficientnet_b0", 0, "above 0"), ("efficientnet_b0", 1e30, "beyond"),
    ],
)  # fmt: skip
def test_budgets_that_can_not_be_met_are_refused(base, budget, words):
    with pytest.raises(UsageError, match=words):
        scale_to(base, budget)


def test_a_cost_of_nothing_is_refused():
    with pytest.raises(UsageError, match="a cost is above 0"):
        scale_to("efficientnet_b0", 1.0, of=lambda one: 0.0)


def test_a_result_prints_hashes_and_goes_through_plain_values():
    found = scale_to("tf_efficientnetv2_s", 40e9, of="macs", rule=NON_UNIFORM, num_classes=10)
    assert from_plain(Scaled, to_plain(found)) == found
    assert len({found, from_plain(Scaled, to_plain(found))}) == 1
    assert str(found).startswith(f"{found.name} at {found.size} px: {found.parameters:,} ")
    assert from_plain(Rule, to_plain(NON_UNIFORM)) == NON_UNIFORM


@pytest.mark.parametrize("base", ["tf_efficientnetv2_s", "efficientnet_b0", ODD])
def test_the_name_of_a_result_is_a_network_on_every_verb(base):
    found = scale_to(base, 60_000 if base == ODD else 3e6, num_classes=10)
    assert architecture_of(found.name) == found.architecture
    with torch.device("meta"):
        module = build(Net(name=found.name, num_classes=10, img_size=64))
    assert parameters(module) == found.parameters
    config = names.config_of(found.name)
    if base != ODD:
        assert config.mean == timm.models.get_pretrained_cfg(base).mean
        assert names.config_of(f"{base}-w1-d1").input_size[-1] == scale(base, 0).size


def test_published_coefficients_give_published_networks_by_name():
    pairs = [
        ("efficientnet_b0-w1.2-d1.4", "efficientnet_b3"),
        ("tf_efficientnet_b0-w4.3-d5.3", "tf_efficientnet_l2"),
        ("tf_efficientnetv2_b0-w1.2-d1.4", "tf_efficientnetv2_b3"),
        ("efficientnet_b0-w2.8-d3.7", "efficientnet_l0"),
        ("efficientnet_b0-d3.7-w3.9", "efficientnet_l1"),
    ]
    for scaled_name, published in pairs:
        assert architecture_of(scaled_name) == architecture_of(published)


def test_layers_of_late_stages_alone_grow_by_name():
    arch = architecture_of("efficientnetv2_s-l1.5")
    assert [stage.layers for stage in arch.stages] == [2, 4, 4, 6, 14, 23]
    assert num_parameters(arch) == parameters(_meta(arch))


def _meta(arch):
    with torch.device("meta"):
        return arch.build()


@pytest.mark.parametrize("name", ["efficientnetv2_s-w0", "efficientnetv2_s-w1.1-w1.2"])
def test_coefficients_that_can_not_be_are_refused(name):
    with pytest.raises(UsageError, match=r"above 0|twice"):
        names.check_name(name)


@pytest.mark.parametrize("given_", [{"alpha": 1.0}, {"multiple": 0}, {"cap": 8}])
def test_rules_that_do_not_grow_are_refused(given_):
    with pytest.raises(UsageError, match=r"at least|above"):
        Rule(**given_)


def test_scaling_by_one_changes_nothing_even_of_odd_widths():
    arch = parse_architecture(ODD)
    assert scaled(arch) == arch
    assert scaled(arch, width=1.01).stem >= arch.stem
    assert scaled(arch, width=0.99).stem <= arch.stem


def test_the_page_prints_what_it_says(capsys):
    page = (Path(__file__).parents[1] / "docs" / "networks.md").read_text()
    parts = re.findall(
        r"```python\n([^`]*from tutelage.networks[^`]*)```[^`]*```text\n(.*?)```", page, re.S
    )
    assert len(parts) >= 2
    for code, said in parts:
        exec(compile(code, "networks.md", "exec"), {})
        assert capsys.readouterr().out == said
