"""A run that begins on one host, goes on on two, and loses one without a word, as undisturbed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_run_on_two_hosts_of_which_one_falls_silent_ends_as_if_nothing_had_been(tmp_path):
    """In namespaces of their own, where the system allows them, whose link goes down."""
    command = [sys.executable, "-m", "benchmarks.two_hosts", "--out", str(tmp_path),
               "--troubles", "silence"]  # fmt: skip
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "processes [1, 2, 1], losses within" in done.stdout
