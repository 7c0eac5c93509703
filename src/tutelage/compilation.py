"""torch.compile for networks that meet a few image and batch sizes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UsageError

GRAPHS = 256  # sizes and modes of all networks of a process; torch gives up at 8


def compiled(module: nn.Module) -> Callable[[Tensor], Any]:
    """The module's forward, compiled at the first batch of each shape; the module stays as it is.

    Calls raise UsageError where this machine can't compile it.
    """
    fast = torch.compile(module, dynamic=False)
    limits = {"recompile_limit": GRAPHS, "accumulated_recompile_limit": 4 * GRAPHS}

    def forward(images: Tensor) -> Any:
        try:
            with torch._dynamo.config.patch(limits):
                return fast(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split("\n")[:2])
            raise UsageError(f"torch.compile fails here ({reason}): leave out --compile") from error

    return forward
