"""Whole commands that two real processes work at end as those of one."""

import json
from pathlib import Path

import pipelines_together
import pytest
import timm
import torch
import toy
from once import made_once
from safetensors.torch import load_file, save_file
from torchrun import two_processes

COMMANDS = pipelines_together.COMMANDS


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All commands by one process and by two."""
    out = made_once(tmp_path_factory, "pipelines", run_all)
    return out / "one", out / "two"


def run_all(out: Path) -> None:
    images = str(toy.write_toy(out / "toy", labeled=2, pool=24, test=2))
    torch.manual_seed(0)
    strange = timm.create_model("test_resnet", num_classes=7).state_dict()
    save_file(strange, Path(images) / "given.safetensors")  # whose classifier is fitted anew
    with two_processes(pipelines_together.__file__, images, str(out / "two"), within=500):
        for name in COMMANDS:
            assert pipelines_together.run(name, images, str(out / "one")) == 0


def content(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipeline_of_two_processes_is_that_of_one(both, name):
    one, two = (folder / name for folder in both)
    assert content(two)["state"] == "done"
    assert list(content(two)["stages"]) == list(content(one)["stages"])
    for rounds in sorted((one / "rounds").iterdir()):
        other = two / "rounds" / rounds.name
        losses = [
            [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
            for run in (rounds, other)
        ]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5, rel=1e-5)
        weights, others = (load_file(run / "model.safetensors") for run in (rounds, other))
        for key, value in weights.items():
            assert (value.double() - others[key].double()).abs().max() < 1e-4, key
