"""What the processes of a training tell each other about a batch that they share.

Each has an equal part of every batch, in the order of their ranks, and computes the mean loss of
its part. Gradients are averaged over all of them, so that the mean over ranks of whatever is a mean
over images is that of the whole batch. Alone, a process gets back what it gave.
"""

import os
import re
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tutelage.errors import UsageError
from tutelage.heap import keep_freed_memory


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them; 0 leads."""
    return dist.get_rank() if world() > 1 else 0


def neighbors() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world() > 1 else 1


def own_device(kind: torch.device) -> torch.device:
    """The device of that kind that belongs to this process; on the CPU it keeps its memory now."""
    if kind.type == "cpu":
        keep_freed_memory()
    if world() == 1 or kind.type == "cpu":
        return kind
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")))


def named_device(name: str) -> torch.device:
    """The device of that name, or of several alike this process's; raises UsageError where this
    machine doesn't have it."""
    try:
        kind = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"--device {name}: there is no such device; take cpu, cuda, cuda:1 or mps"
        ) from error
    try:
        device = own_device(kind)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = re.split(r"\. |\n", str(error))[0]  # pages, for some
        if isinstance(error, NotImplementedError):
            why = "this torch was built without it"
        raise UsageError(f"--device {name} can't be used here ({why}): take another") from error
    return device


def part_of(count: int) -> slice:
    """This process's part of a batch of `count` images, which all parts together make up."""
    each = count // world()
    return slice(rank() * each, (rank() + 1) * each)


class _Mean(torch.autograd.Function):
    """The mean over ranks, which is its own derivative in both directions."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _averaged(own)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return _averaged(slopes[0])

    @staticmethod
    def jvp(ctx: Any, *slopes: Tensor) -> Tensor:
        return _averaged(slopes[0])


def _averaged(own: Tensor) -> Tensor:
    total = own.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total.div_(world())


def mean_over_ranks(own: Tensor) -> Tensor:
    """The mean of a floating-point tensor of one shape; gradients flow to those of all ranks."""
    if world() == 1:
        return own
    return _Mean.apply(own)


@torch.no_grad()
def average_over_ranks(tensors: list[Tensor]) -> None:
    """Replace tensors of one type by their means over ranks, in one go and without a trace in
    autograd: what a coming backward pass remembers of them stays valid."""
    if world() == 1 or not tensors:
        return
    flat = _averaged(torch.cat([tensor.detach().flatten() for tensor in tensors]))
    means = [
        mean.view_as(tensor)
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True)
    ]
    torch._foreach_copy_([tensor.data for tensor in tensors], means)


def from_all_ranks(own: Tensor) -> Tensor:
    """The tensors (B, …) of all ranks in their order (W B, …), without gradient."""
    if world() == 1:
        return own
    own = own.detach().contiguous()
    found = [torch.empty_like(own) for _ in range(world())]
    dist.all_gather(found, own)
    return torch.cat(found)


def moved_on(own: Tensor, *sizes: int) -> Tensor:
    """Each row's predecessor (B, …) in the whole batch, and for its first row the last.

    The rows may be parts of several batches, of those sizes, that stand one after the other.
    """
    if world() == 1 or not len(own):
        return own.roll(1, 0)
    several = own.split([size for size in sizes if size] or [len(own)])
    ends = from_all_ranks(torch.stack([batch[-1] for batch in several]))
    ends = ends.view(world(), len(several), *own.shape[1:])
    first = ends[rank() - 1] if rank() else ends[-1].roll(1, 0)
    rows = [torch.cat([end[None], batch[:-1]]) for end, batch in zip(first, several, strict=True)]
    return torch.cat(rows)
