"""From the command to an answer: new processes beside Python's and torch's own start."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.paired import Case, wall

CASES = (
    ("tutelage --help", "python -c pass", ("-m", "tutelage", "--help"), ("-c", "pass")),
    ("import tutelage", "python -c pass", ("-c", "import tutelage"), ("-c", "pass")),
    (
        "tutelage train --help", "import torch, timm",
        ("-m", "tutelage", "train", "--help"), ("-c", "import torch, timm"),
    ),
)  # fmt: skip


def begun(words: Sequence[str]) -> float:
    """Seconds of a process from its start to its end."""
    command = [sys.executable, *words]
    return wall(lambda: subprocess.run(command, check=True, capture_output=True))


def cases(folder: Path) -> Iterator[Case]:
    """Help and import; files are in the system's cache after the turn that warms up."""
    for what, peer, own, other in CASES:
        yield Case(
            what=what, peer=peer, unit="s",
            ours=lambda words=own: begun(words), theirs=lambda words=other: begun(words),
        )  # fmt: skip
