"""Networks that answer: in what precision, and those that do nothing else."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.compilation import compiled
from tutelage.distributed.shards import blocks_of, forget_forwards, spread

AT_ONCE = 256  # images that a network is asked about at a time, where they are small
PIXELS = AT_ONCE * 128**2  # of them, at most: a larger image takes as much more memory


def answer(module: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    """Logits (B, K) in float32, computed in the given precision."""
    with autocast(images.device, precision):
        logits = module(images.contiguous(memory_format=torch.channels_last))
    return logits.float()


def in_turns(ask: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    """What `ask` answers to images (B, ...), as many at a time as PIXELS allow where they are shown
    at `size` pixels: a network that could be trained has room for that."""
    parts = [ask(part) for part in images.split(max(1, min(AT_ONCE, PIXELS // size**2)))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Matrix products and the like in bf16 or fp16; nothing in fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if precision == "fp16" else torch.bfloat16)


class Frozen:
    """A network that answers and never changes."""

    def __init__(
        self, module: nn.Module, *, precision: str = "fp32", compile: bool = False
    ) -> None:
        """Take over the module in eval mode, without gradients."""
        self.module = module.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.precision = precision
        self.forward = compiled(self.module) if compile else self.module
        self.sharded = False

    def shard(self, device: torch.device, *, size: int) -> None:
        """Spread the weights over the devices of all processes, which put them together block by
        block to answer. Raises UsageError for a weight that can't be spread."""
        spread(self.module, blocks_of(self.module, size), device)
        self.sharded = True

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32 of images (B, 3, H, W) in [0, 1]."""
        logits = answer(self.forward, images, self.precision)
        if self.sharded:
            forget_forwards(self.module)
        return logits
