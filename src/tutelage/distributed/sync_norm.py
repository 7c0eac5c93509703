"""Batch norm over a batch that several processes share.

Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1, with the mean and variance of all processes'
images. torch has this for GPUs alone, and without the derivatives in forward mode that Meta Pseudo
Labels takes; this one works on whatever device, and with timm's layers that have an activation
inside. A layer keeps its weights, its buffers and their names.
"""

import torch
from timm.layers import BatchNormAct2d  # type: ignore[attr-defined]  # not in its __all__
from torch import Tensor, nn

from tutelage.distributed.collectives import mean_over_ranks, world
from tutelage.errors import UsageError

Norm = nn.modules.batchnorm._BatchNorm


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """torch's, over all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C) or (B, C, L)."""
        return normalized(self, input) if self.training else super().forward(input)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """torch's, over all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        return normalized(self, input) if self.training else super().forward(input)


class SyncedBatchNormAct2d(BatchNormAct2d):
    """timm's, with an activation after it, over all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W) and activate."""
        if not self.training:
            return super().forward(x)
        return self.act(self.drop(normalized(self, x)))


SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
    BatchNormAct2d: SyncedBatchNormAct2d,
}
PLAIN = {synced: plain for plain, synced in SYNCED.items()}


def synchronize(module: nn.Module) -> None:
    """Let every batch norm of a network see all processes' images, in place.

    Raises UsageError for a kind of batch norm that isn't known.
    """
    for name, layer in module.named_modules():
        if type(layer) in SYNCED:
            layer.__class__ = SYNCED[type(layer)]
        elif isinstance(layer, Norm) and type(layer) not in SYNCED.values():
            raise UsageError(
                f"the layer {name} is a {type(layer).__name__}, which can't be synchronized: "
                "leave out --sync-bn"
            )


def separate(module: nn.Module) -> None:
    """Let every batch norm of a network see its own process's images again, in place."""
    for layer in module.modules():
        if type(layer) in PLAIN:
            layer.__class__ = PLAIN[type(layer)]


def moving_statistics(module: nn.Module) -> list[Tensor]:
    """The means and variances of all batch norms that move."""
    norms = [layer for layer in module.modules() if isinstance(layer, Norm) and layer.training]
    found = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
    return [tensor for tensor in found if tensor is not None]


def normalized(norm: Norm, images: Tensor) -> Tensor:
    """Images (B, C, ...) by the statistics of all processes, which also move the layer's."""
    over = [axis for axis in range(images.ndim) if axis != 1]
    shape = [1, -1] + [1] * (images.ndim - 2)
    given = images.float()
    spread, center = torch.var_mean(given, over, correction=0)
    mean = mean_over_ranks(center)
    variance = mean_over_ranks(spread + (center - mean).square())
    _move(norm, mean, variance, count=world() * images.numel() // images.shape[1])
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.float()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.float()
    return (given * scale.view(shape) + shift.view(shape)).to(images.dtype)


@torch.no_grad()
def _move(norm: Norm, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """The layer's statistics towards those of a batch with `count` values a channel."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None, "beside running_mean"
    norm.num_batches_tracked.add_(1)
    step = norm.momentum
    if step is None:  # the plain mean of all batches
        step = 1 / float(norm.num_batches_tracked)
    unbiased = variance * count / max(1, count - 1)
    norm.running_mean.data.lerp_(mean.to(norm.running_mean), step)
    norm.running_var.data.lerp_(unbiased.to(norm.running_var), step)
