"""The demonstration of Meta Pseudo Labels, on one of the benchmark's seeds."""

from importlib import util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "two_moons.py"


@pytest.mark.slow
def test_six_labels_are_enough_for_a_taught_student_and_not_for_the_labels_alone():
    spec = util.spec_from_file_location("two_moons", FILE)
    moons = util.module_from_spec(spec)
    spec.loader.exec_module(moons)
    found = {
        name: moons.accuracy(moons.METHODS[name], 0, steps=2000)
        for name in ("labels alone", "Pseudo-Label, p > 0.95", "Meta Pseudo Labels")
    }
    assert found["Meta Pseudo Labels"] >= moons.SUCCESS
    assert found["labels alone"] < 0.9
    assert found["Pseudo-Label, p > 0.95"] < 0.9
