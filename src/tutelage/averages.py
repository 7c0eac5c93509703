"""The exponential average of weights: its early decays, and what becomes of buffers."""

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
    statistics = buffers == "average"
    slow, fast = (_averaged(m, statistics=statistics) for m in (average, module))
    torch._foreach_lerp_(slow, fast, 1 - decay)
    for s, f in zip(average.buffers(), module.buffers(), strict=True):
        if not (statistics and s.is_floating_point()):
            s.copy_(f)


def _averaged(module: nn.Module, *, statistics: bool) -> list[Tensor]:
    """Weights and, where asked, the buffers that are no counters; of those that are spread over
    processes, what this one has."""
    found = [*module.parameters(), *(module.buffers() if statistics else ())]
    return parts([tensor for tensor in found if tensor.is_floating_point()])
