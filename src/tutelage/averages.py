"""The exponential average of weights: its early decays, and what becomes of buffers."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from tutelage.distributed.shards import parts
from tutelage.settings import Buffers, WarmUp


def decay_at(update: int, ceiling: float, warmup: WarmUp) -> float:
    """The average's decay at an update, counted from 0; never above `ceiling`.

    tf: (1 + t) / (10 + t), TensorFlow's rule, as in Noisy Student. timm: 1 - (1 + t)^(-2/3), which
    copies the weights at first. none: the ceiling from the beginning.
    """
    if warmup == "tf":
        return min(ceiling, (1 + update) / (10 + update))
    if warmup == "timm":
        return min(ceiling, 1 - (1 + update) ** (-2 / 3))
    return ceiling


@torch.no_grad()
def move_average(
    average: nn.Module, module: nn.Module, decay: float, *, buffers: Buffers = "average"
) -> None:
    """average <- decay average + (1 - decay) module.

    With "average" for batch-norm statistics too, as in Noisy Student; else they are copied, as
    integer counters always are.
    """
    Pairs.of(average, module, buffers).move(decay)


@dataclass(frozen=True)
class Pairs:
    """All tensors of an average, each beside the one that it follows. To look for them in two
    networks takes longer than to begin to move them on a device, so they are found once."""

    slow: list[Tensor]  # which move a little,
    fast: list[Tensor]  # towards these
    copies: list[Tensor]  # which become
    latest: list[Tensor]  # as these

    @classmethod
    def of(cls, average: nn.Module, module: nn.Module, buffers: Buffers) -> Self:
        """Those of two networks of one kind; of what is spread over processes, what is here."""
        statistics = buffers == "average"
        slow, fast = (_averaged(m, statistics=statistics) for m in (average, module))
        copies, latest = (_copied(m, statistics=statistics) for m in (average, module))
        return cls(slow, fast, copies, latest)

    @torch.no_grad()
    def move(self, decay: float) -> None:
        """One update of the average."""
        torch._foreach_lerp_(self.slow, self.fast, 1 - decay)
        if self.copies:
            torch._foreach_copy_(self.copies, self.latest)


def _averaged(module: nn.Module, *, statistics: bool) -> list[Tensor]:
    """Weights and, where asked, the buffers that are no counters."""
    found = [*module.parameters(), *(module.buffers() if statistics else ())]
    return parts([tensor for tensor in found if tensor.is_floating_point()])


def _copied(module: nn.Module, *, statistics: bool) -> list[Tensor]:
    """The other buffers."""
    return [
        tensor for tensor in module.buffers() if not (statistics and tensor.is_floating_point())
    ]
