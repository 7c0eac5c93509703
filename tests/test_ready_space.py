"""The space of ready networks: what a pattern means."""

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import UsageError
from tutelage.networks.build import Net, check_net
from tutelage.networks.names import check_name
from tutelage.networks.pretrained import has_weights
from tutelage.searching.ready import REFERENCE, ready_space
from tutelage.training_settings import parse_latency


def test_a_pattern_is_the_networks_that_match_and_nothing_twice():
    space = ready_space("resnet18, resnet1[08][td],resnet18", pretrained=False)
    assert space.names == ("resnet18", "resnet10t", "resnet18d")


def test_a_choice_is_a_name():
    space = ready_space("test_*net", pretrained=False)
    (only,) = space.dimensions
    assert only.options == space.names
    assert not only.ordered
    assert [space.network(genes) for genes in space.all_genes()] == list(space.names)
    assert space.size == len(space.names) > 3


def test_networks_that_timm_lacks_can_be_named():
    asked = "wrn-16-4,densenet-bc-100-12,efficientnetv2_b0-w0.3"
    assert ready_space(asked, pretrained=False).names == tuple(asked.split(","))
    assert "wrn-28-10" in ready_space("wrn-*", pretrained=False).names


def test_pretrained_networks_are_those_that_have_weights_once_each():
    space = ready_space("resnetv2_50*", pretrained=True)
    every = timm.list_models("resnetv2_50*")
    having = {name.split(".")[0] for name in timm.list_models("resnetv2_50*", pretrained=True)}
    assert set(space.names) == having
    assert 0 < len(having) < len(every)


def test_a_pattern_with_a_tag_means_the_tags():
    space = ready_space("resnet18.*", pretrained=True)
    assert set(space.names) == set(timm.list_models("resnet18", pretrained=True))
    assert len(space.names) > 3
    one = ready_space("resnet18.a2_in1k", pretrained=True)
    assert one.names == ("resnet18.a2_in1k",)


def test_weights_in_a_folder_count(tmp_path, monkeypatch):
    assert not has_weights("resnetv2_152")
    monkeypatch.setenv("TUTELAGE_WEIGHTS", str(tmp_path))
    (tmp_path / "resnetv2_152.safetensors").touch()
    assert has_weights("resnetv2_152")
    assert not has_weights("wrn-28-10")


@pytest.mark.parametrize(
    ("pattern", "pretrained", "words"),
    [
        ("resnat18", False, "no model 'resnat18'; did you mean resnet18"),
        ("resnat18*", False, r"no network matches 'resnat18\*'; did you mean resnet18"),
        ("resnet18,nothing*", False, r"no network matches 'nothing\*'"),
        ("resnet18.b1_in1k", True, "no weights 'resnet18.b1_in1k'; did you .*resnet18.a1_in1k"),
        ("resnet18.*", False, "names pre-trained weights: give --pretrained"),
        ("wrn-28-10", True, "'wrn-28-10' names has pre-trained weights: leave out --pretrained"),
        ("", False, "as in --space 'timm:resnet18"),
        ("resnet18,,resnet34", False, "as in --space"),
        ("wrn-28", False, "wrn-28"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_told_what_there_is(pattern, pretrained, words):
    with pytest.raises(UsageError, match=words):
        ready_space(pattern, pretrained=pretrained)


@given(st.sampled_from([8, 32, 40, 97, 224]))
def test_the_reference_can_be_built_for_images_of_any_size(size):
    check_name(REFERENCE)
    check_net(Net(name=REFERENCE, num_classes=3, img_size=size, small_stem=True))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4ms", 0.004), ("0.004s", 0.004), ("250us", 0.00025), ("250 µs", 0.00025), (" 2MS", 0.002)],
)  # fmt: skip
def test_a_latency_is_read_with_its_unit(text, seconds):
    assert parse_latency(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("text", ["4", "0ms", "ms", "-4ms", "4m", "1e-3s", "4ms5us", ""])
def test_a_latency_without_unit_or_sense_is_refused(text):
    with pytest.raises(UsageError, match=r"write 4ms, 250us or 0\.1s"):
        parse_latency(text)
