"""What a training says of itself: the means of its metrics, and how fast it goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.distributed.collectives import from_all_ranks, mean_over_ranks, rank, world
from tutelage.methods.method import State


@dataclass
class Meter:
    """Steps since the last line of metrics.jsonl. The metrics' sums are the state's, as a run that
    goes on in the middle of a line is to write the same one; they stay on the device."""

    images: int = 0
    data_seconds: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def add(
        self, state: State, metrics: dict[str, Tensor], *, data_seconds: float, images: int
    ) -> None:
        """Count one step."""
        for name, value in metrics.items():
            state.sums[name] = state.sums[name] + value if name in state.sums else value.float()
        state.summed += 1
        self.images += images
        self.data_seconds += data_seconds

    def line(self, state: State) -> dict[str, float]:
        """Means over steps and processes, images a second, and the share of the time that the loop
        waited for batches; the sums begin anew."""
        seconds = time.monotonic() - self.start
        sums = mean_over_ranks(torch.stack(list(state.sums.values()))).tolist()
        found = {name: value / state.summed for name, value in zip(state.sums, sums, strict=True)}
        state.sums, state.summed = {}, 0
        return found | {
            "images_per_second": round(self.images / seconds, 1),
            "data_share": round(self.data_seconds / seconds, 4),
        }


@contextmanager
def of_all_ranks(state: State) -> Iterator[None]:
    """For a while the state has the sums of all processes (W,), as a checkpoint keeps them."""
    own = state.sums
    state.sums = {name: from_all_ranks(value.reshape(1)) for name, value in own.items()}
    try:
        yield
    finally:
        state.sums = own


def take_own(state: State) -> None:
    """Go on with this process's sums out of those of all that were at work, or, where these were
    not as many, with the mean."""
    for name, sums in state.sums.items():
        state.sums[name] = sums.flatten()[rank()] if sums.numel() == world() else sums.mean()
