"""What a network costs by its shape alone: weights, multiplications, memory of activations.

All of it is counted on meta tensors, which have shapes and no numbers.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tutelage.networks.build import Net, build, parameters


@dataclass(frozen=True)
class Counts:
    """What one image costs."""

    parameters: int
    weight_bytes: int  # of parameters and buffers
    macs: int | None  # multiply-adds of convolutions, matrix products and attention
    activation_bytes: int | None  # the most that is alive at once in eager float32: an estimate


def count(net: Net) -> Counts:
    """The costs of a network for one image of its size; None is what shapes alone don't tell."""
    with torch.device("meta"):
        module = build(net).eval().requires_grad_(False)
        images = torch.zeros(1, 3, net.img_size, net.img_size)
    flops, alive = FlopCounterMode(display=False), Alive()
    try:
        with torch.no_grad(), flops:
            module(images)
        with torch.no_grad(), alive:
            module(images)
        known = True
    except (NotImplementedError, RuntimeError):  # an operation whose result needs numbers
        known = False
    return Counts(
        parameters=parameters(module),
        weight_bytes=sum(t.nbytes for t in (*module.parameters(), *module.buffers())),
        macs=flops.get_total_flops() // 2 if known else None,
        activation_bytes=alive.peak if known else None,
    )


class Alive(TorchDispatchMode):
    """Follows how many bytes of results are alive at once, without what kernels need within."""

    def __init__(self) -> None:
        """Nothing is alive yet."""
        super().__init__()
        self.now = 0
        self.peak = 0
        self.known: set[int] = set()  # storages that were met, inputs among them

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Do the operation, and count what it made."""
        before = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._meet(leaf.untyped_storage(), before)
        return result

    def _meet(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        """Count a storage that is new until it is gone."""
        key = storage._cdata
        if key in before or key in self.known:
            return
        self.known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
