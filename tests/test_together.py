"""What several processes train together is what one trains alone: real processes, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
from safetensors.torch import load_file

TIMES = {"images_per_second", "data_share", "seconds"}
BATCH_NORM = {"statistics"}  # each process normalizes its own images


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All cases by one process and by two."""
    out = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
               together.__file__, str(out / "two")]  # fmt: skip
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        together.main(out / "one", [])
        assert process.wait(timeout=300) == 0
    return out / "one", out / "two"


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line.keys() - TIMES} for line in lines]


@pytest.mark.parametrize("name", together.CASES)
def test_two_processes_learn_what_one_does(both, name):
    one, two = (folder / name for folder in both)
    near = 1e-5 if name not in BATCH_NORM else 1.0
    for alone, shared in zip(metrics(one), metrics(two), strict=True):
        assert shared == pytest.approx(alone, abs=near, rel=near)
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert weights.keys() == others.keys()
    if name not in BATCH_NORM:
        for key, value in weights.items():
            assert (value.double() - others[key].double()).abs().max() < 1e-4, key
    first = metrics(one)[0]["loss"]
    assert any(line["loss"] != first for line in metrics(one))  # something was learned
