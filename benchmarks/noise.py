"""The same work on both sides: how far from 1 a ratio comes on this machine by chance alone."""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.paired import Case, processor, wall


def cases(folder: Path) -> Iterator[Case]:
    """Matrix products, by the clock and by the processor's time."""
    matrix = torch.rand(1024, 1024)

    def work() -> None:
        for _ in range(10):
            matrix @ matrix

    for name, clock in (("wall time", wall), ("processor time", processor)):
        yield Case(
            what=f"matrix products, {name}", peer="itself", unit="s",
            ours=lambda c=clock: c(work), theirs=lambda c=clock: c(work),  # type: ignore[misc]
        )  # fmt: skip
