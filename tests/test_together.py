"""What several processes train together is what one trains alone: real processes, over gloo."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import together
from once import made_once
from safetensors.torch import load_file
from torch import nn
from torchrun import two_processes

from tutelage.catalog import kind_of
from tutelage.distributed.shards import blocks_of
from tutelage.errors import UsageError
from tutelage.networks.build import build
from tutelage.settings import Optim

TIMES = {"images_per_second", "data_share", "seconds"}
NEAR = {  # with batch norm; else 1e-5
    "statistics": 1.0,  # each process normalizes its own images
    "synced-mpl": 1e-3,  # by the same statistics, whose last bits grow in what judges the teacher
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases by one process and by two."""
    out = made_once(tmp_path_factory, "together", train_all)
    return out / "one", out / "two"


def train_all(out: Path) -> None:
    together.stop(out / "two" / "stopped-alone", "all")
    with two_processes(together.__file__, str(out / "two"), within=300):
        together.main(out / "one", [])


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line.keys() - TIMES} for line in lines]


@pytest.mark.parametrize("name", together.CASES)
def test_two_processes_learn_what_one_does(both, name):
    one, two = (folder / name for folder in both)
    near = NEAR.get(name, 1e-5)
    for alone, shared in zip(metrics(one), metrics(two), strict=True):
        assert shared == pytest.approx(alone, abs=near, rel=near)
    assert differ(one, two) < 10 * near
    first = metrics(one)[0]["loss"]
    assert any(line["loss"] != first for line in metrics(one))  # something was learned


def differ(one: Path, two: Path) -> float:
    """How far weights are from one another, at most."""
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    return max(float((value - others[key]).abs().max()) for key, value in weights.items())


def test_a_sharded_training_that_was_stopped_goes_on_to_the_last_bit(both):
    two = both[1]
    assert metrics(two / "sharded-all") == metrics(two / "whole")
    assert differ(two / "sharded-all", two / "whole") == 0


@pytest.mark.parametrize("name", ["sharded-none", "replicated-all", "alone-all"])
def test_whether_it_is_sharded_may_change_while_a_training_goes_on(both, name):
    two = both[1]
    for line, other in zip(metrics(two / name), metrics(two / "whole"), strict=True):
        assert line == pytest.approx(other, abs=1e-5, rel=1e-5)
    assert differ(two / name, two / "whole") < 1e-4


def test_one_process_goes_on_where_several_shared_the_weights(both):
    two = both[1]
    together.go_on(two / "stopped-sharded", two / "sharded-alone", "all")
    assert differ(two / "sharded-alone", two / "whole") < 1e-4


def test_optimizers_do_the_same_with_parts_of_weights(both):
    found = json.loads((both[1] / "optimizers.json").read_text())
    assert found.keys() == set(together.SHARDABLE)
    assert max(found.values()) < 1e-6


class Viewing(nn.Conv2d):
    """It answers with a view."""

    def forward(self, images):
        return super().forward(images).flatten(1)


class Changing(nn.Module):
    """It changes what it is given."""

    def forward(self, images):
        return images.mul_(2)


def test_blocks_are_what_computes_alone_and_gives_nothing_that_is_changed():
    vit, resnet = build(together.VIT), build(together.RESNET)
    blocks = [f"net.blocks.{number}" for number in range(len(vit.net.blocks))]
    assert set(blocks) <= set(blocks_of(vit, together.SIDE))
    assert "net.patch_embed" in blocks_of(vit, together.SIDE)  # a view of its convolution
    viewing = Viewing(3, 4, 3)
    assert blocks_of(nn.Sequential(viewing), together.SIDE) == ["0"]
    assert blocks_of(nn.Sequential(viewing, Changing()), together.SIDE) == []
    assert {"net.layer4.0"} <= set(blocks_of(resnet, together.SIDE))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"optim": Optim(name="muon")}, "take one of adam"),
        ({"compile": True}, "leave out --compile"),
        ({"method": kind_of("meta-pseudo-labels")()}, "feedback=difference"),
    ],
)
def test_what_can_not_be_sharded_is_refused_with_what_to_set(change, hint):
    recipe = together.recipe_of(together.CASES["sharded"])
    with pytest.raises(UsageError, match=hint):
        replace(recipe, **change)
