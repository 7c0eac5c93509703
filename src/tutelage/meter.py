"""What a training says of itself: the means of its metrics, and how fast it goes."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tutelage.distributed.collectives import average_over_ranks, mean_over_ranks
from tutelage.methods.method import State


@dataclass
class Meter:
    """Steps since the last line of metrics.jsonl. The metrics' sums are the state's, as a run that
    goes on in the middle of a line is to write the same one; they stay on the device."""

    steps: int = 0  # of this process
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
        self.steps += 1
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


def share_sums(state: State) -> None:
    """Let all processes have the mean of their sums, which any of them may go on with."""
    average_over_ranks(list(state.sums.values()))
