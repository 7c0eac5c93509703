"""The space of ready networks: what a pattern means."""

import pytest
import timm
import toy
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

import tutelage
from tutelage.errors import Unreachable, UsageError
from tutelage.networks.build import Net, check_net
from tutelage.networks.names import check_name
from tutelage.networks.pretrained import check_weights, has_weights
from tutelage.pipelines import search as search_module
from tutelage.pipelines import trial as trial_module
from tutelage.pipelines.trial_cost import Pace
from tutelage.searching.journal import Journal
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


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A folder of weights, and no network."""
    monkeypatch.setenv("TUTELAGE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr("urllib.request.getproxies", dict)
    return tmp_path


def test_weights_that_cannot_be_had_stop_a_search_before_it_begins(offline):
    for name in ("resnet10t", "resnet14t"):
        (offline / f"{name}.safetensors").touch()
    check_weights(["resnet10t", "resnet14t"])
    with pytest.raises(
        Unreachable, match=r"^1 of 3 networks have no weights here: .*resnet26t"
    ) as e:
        check_weights(["resnet10t", "resnet26t", "resnet14t"])
    assert str(e.value).endswith("; or ask only those that are here: resnet10t,resnet14t")
    with pytest.raises(Unreachable, match="1 of 1 networks have no weights here"):
        tutelage.search(
            data="nowhere", space="timm:resnet26t", pretrained=True, out=offline / "run"
        )
    assert not (offline / "run").exists()


def test_a_host_that_is_away_stops_a_search_and_makes_no_network_unusable(tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "PACE", Pace(warmup=1, turns=1, most_turns=1))
    monkeypatch.setattr(search_module, "ATTEMPTS", 1)  # that may end while a network is measured
    root = toy.write_toy(tmp_path)

    def asked():
        return tutelage.search(
            data=root / "labeled", val=root / "test", space="timm:test_resnet", img_size=16,
            batch=8, steps=20, rungs=1, device="cpu", out=root / "run",
        )  # fmt: skip

    def away(*rest):
        raise Unreachable("the hub can't be reached")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "_given", away)
        with pytest.raises(Unreachable):
            asked()
    (trial,) = Journal(root / "run" / "trials.jsonl").read().trials
    assert (trial.infeasible, trial.attempts) == ("", 0)
    assert asked().network == "test_resnet"


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
