"""A network and all that updates it: optimizer, schedule, precision, and the weights' average."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tutelage.averages import Pairs, decay_at, move_average
from tutelage.compilation import compiled
from tutelage.core import Clock
from tutelage.distributed.collectives import average_over_ranks, named_device, own_device
from tutelage.distributed.shards import (
    blocks_of,
    forget_forwards,
    put_together,
    skeleton,
    spread,
    spread_with,
    whole,
)
from tutelage.distributed.sync_norm import moving_statistics, separate, synchronize
from tutelage.errors import UsageError
from tutelage.frozen import answer, autocast
from tutelage.networks.build import Normalized, mixes_images, normalizes_batches
from tutelage.optimizers import make_optimizer
from tutelage.schedules import learning_rate, momentum, rate_for
from tutelage.settings import Optim, Precision


class Learner:
    """A network that learns through one verb, `minimize`."""

    def __init__(
        self,
        module: nn.Module,
        optim: Optim,
        *,
        precision: str = "fp32",
        batch: int | None = None,  # labeled images a step
        compile: bool = False,
    ) -> None:
        """Take over the module, on whatever device it is; raises UsageError for an optimizer
        name that timm doesn't know, and where the rate is to be scaled to an unknown batch."""
        self.module = module.to(memory_format=torch.channels_last).train()
        self.mixes_images = mixes_images(self.module)
        self.optim = optim.resolved(batch_norm=normalizes_batches(module), pretrained=False)
        self.peak = float(self.optim.lr) * _scaling(optim, batch)
        self.precision = precision
        self.device = next(module.parameters()).device
        self.optimizer = make_optimizer(module, self.optim)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.waiting = False  # whether there are gradients that no update has used
        self.average = None if optim.ema is None else deepcopy(module).eval().requires_grad_(False)
        self.pairs: Pairs | None = None  # of the average and the network, once they are known
        self.compile = compile
        self.forward = compiled(self.module) if compile else self.module
        self.statistics: list[Tensor] = []  # of batch norm, which ranks are to have alike
        self.bare: nn.Module | None = None  # where weights are spread: what they are a network in

    def replicate(self, images: Tensor | None, *, sync_bn: bool) -> None:
        """Learn as one with the other processes of the command: from now on gradients are averaged
        over ranks in each backward pass, and the statistics of batch norm in each forward.

        Each process normalizes by its own part of a batch, and with `sync_bn` by all of it.
        `images` (B, 3, H, W), any that it takes, tell whether all its weights have a part in the
        answer; None where they do.
        """
        self.pairs = None
        if sync_bn:
            synchronize(self.module)
        else:
            self.statistics = moving_statistics(self.module)
        with catch_warnings():
            simplefilter("ignore", FutureWarning)  # torch 2.15's other name for broadcast_buffers
            wrapped = DistributedDataParallel(
                self.module,
                device_ids=None if self.device.type == "cpu" else [self.device],
                broadcast_buffers=False,
                find_unused_parameters=images is not None and self._has_idle_weights(images),
            )
        self.forward = compiled(wrapped) if self.compile else wrapped

    def shard(self, device: torch.device, *, size: int, sync_bn: bool = False) -> None:
        """The same as `replicate`, with weights, gradients, average and optimizer spread over the
        devices of all processes, and put together block by block to compute with.

        `size`: of images that it takes, in pixels. Raises UsageError for a weight that can't be
        spread.
        """
        source = self.module if self.average is None else self.average
        blocks, self.bare = blocks_of(self.module, size), skeleton(source)
        if sync_bn:
            synchronize(self.module)
        spread_with(self.module, self.optimizer, blocks, device)
        if self.average is not None:
            spread(self.average, blocks, device)
        if not sync_bn:
            self.statistics = moving_statistics(self.module)
        scaling, self.device = self.scaler.state_dict(), device
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.scaler.load_state_dict(scaling)

    def _has_idle_weights(self, images: Tensor) -> bool:
        """Whether weights that are to learn have no part in the answer."""
        with modes(self.module, noise=False, statistics=False), torch.enable_grad():
            found = self.module(images)
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        slopes = torch.autograd.grad(found.sum(), weights, allow_unused=True)
        return any(slope is None for slope in slopes)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32 of images (B, 3, H, W) in [0, 1]."""
        logits = answer(self.forward, images, self.precision)
        average_over_ranks(self.statistics)
        return logits

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the class head and of the distillation head, each (B, K) in float32; the same
        twice where the network has one head, or is in eval mode."""
        with autocast(images.device, self.precision):
            found = self.forward(images.contiguous(memory_format=torch.channels_last))
        average_over_ranks(self.statistics)
        one, other = (found, found) if isinstance(found, Tensor) else found
        return one.float(), other.float()

    @torch.no_grad()
    def slow(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the weights' average, in eval mode and without gradient.

        Raises UsageError where no average is kept.
        """
        if self.average is None:
            raise UsageError("this method asks the weights' average: give --optim.ema, as 0.999")
        logits = answer(self.average, images, self.precision)
        if self.bare is not None:
            forget_forwards(self.average)
        return logits

    def rate(self, clock: Clock) -> float:
        """The learning rate at this time, without layer decay."""
        shape = learning_rate(
            clock.fraction,
            self.optim.schedule,
            self.optim.warmup,
            end=self.optim.lr_end,
            milestones=self.optim.milestones,
        )
        return self.peak * clock.rate * shape

    def minimize(self, loss: Tensor, clock: Clock) -> None:
        """Backward and, unless gradients are to be averaged with those of coming steps, an update.

        Once a step. The last update of the run averages those steps that are left.
        """
        first = clock.step - clock.step % self.optim.accumulate
        count = min(self.optim.accumulate, clock.total - first)
        if clock.step == first:
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss / count).backward()
        self.waiting = clock.step + 1 < first + count
        if not self.waiting:
            self._update(clock)

    def _update(self, clock: Clock) -> None:
        """Clip, learning rate and momentum of the clock, step, average."""
        self.scaler.unscale_(self.optimizer)
        if self.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.optim.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(clock) * group.get("lr_scale", 1.0)
        if self.optim.schedule == "one-cycle":
            self._cycle_momentum(clock)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped = self.scaler.get_scale() < before  # the scaled gradients were not finite
        if self.average is not None and self.optim.ema is not None and not skipped:
            update = clock.step // self.optim.accumulate
            decay = decay_at(update, self.optim.ema, self.optim.ema_warmup)
            self._move_average(self.average, decay)

    def _move_average(self, average: nn.Module, decay: float) -> None:
        """One update of the weights' average."""
        buffers = self.optim.ema_buffers
        if self.bare is not None:  # parts of weights may be other tensors in the next step
            move_average(average, self.module, decay, buffers=buffers)
            return
        if self.pairs is None:
            self.pairs = Pairs.of(average, self.module, buffers)
        self.pairs.move(decay)

    def _cycle_momentum(self, clock: Clock) -> None:
        """Momentum, or Adam's beta_1, mirrored to the learning rate."""
        for group in self.optimizer.param_groups:
            value = momentum(clock.fraction, self.optim.schedule, self.optim.momentum)
            if "momentum" in group:
                group["momentum"] = value
            elif "betas" in group:
                group["betas"] = (value, *group["betas"][1:])

    def noised(self) -> list[nn.Module]:
        """Where noise is to be set: the network, and what it is put together in, where that is not
        the average."""
        if self.bare is None or self.average is not None:
            return [self.module]
        return [self.module, self.bare]

    def graduate(self) -> nn.Module:
        """What to evaluate and keep: a copy of the average, or of the network, in eval mode.

        Where weights are spread, all processes take part, and the leader alone gets them.
        """
        source = self.module if self.average is None else self.average
        copied = (
            deepcopy(source) if self.bare is None else put_together(self.bare, source, self.device)
        )
        separate(copied)  # the leader alone works with it
        return copied.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning, with gradients that wait for their update.

        Where weights are spread, all processes take part, and the leader alone gets them.
        """
        weights = self.module.parameters()
        found = {
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": [weight.grad for weight in weights] if self.waiting else None,
        }
        return found if self.bare is None else whole(found)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.waiting = state["gradients"] is not None
        for weight, slope in zip(self.module.parameters(), state["gradients"] or (), strict=False):
            weight.grad = None if slope is None else slope.to(weight.device, copy=True)


def _scaling(optim: Optim, batch: int | None) -> float:
    """What the batch of an update makes of the learning rate."""
    if optim.scale == "none":
        return 1.0
    if batch is None:
        raise UsageError(f"optim.scale {optim.scale} is about the batch: give the learner `batch`")
    return rate_for(batch * optim.accumulate, optim.scale_base, optim.scale)


@contextmanager
def modes(module: nn.Module, *, noise: bool, statistics: bool) -> Iterator[None]:
    """For a while, dropout and its kin on or off, and batch norm with the batch's statistics or
    with the stored ones."""
    before = {layer: layer.training for layer in module.modules()}
    frozen = module.resting() if isinstance(module, Normalized) else set()
    try:
        for layer in before.keys() - frozen:
            norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
            layer.training = statistics if norm else noise
        yield
    finally:
        for layer, mode in before.items():
            layer.training = mode


def choose_device(name: str) -> torch.device:
    """The device of that name, of several alike the one of this process; raises UsageError where
    this machine doesn't have it."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return own_device(accelerator or torch.device("cpu"))
    return named_device(name)


def choose_precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """'auto' as bf16 on CUDA and fp32 elsewhere; raises UsageError for fp16 on a CPU."""
    if name == "fp16" and device.type == "cpu":
        raise UsageError(
            "--precision fp16 is for accelerators, and many times slower than fp32 on a CPU: "
            "take bf16 or fp32"
        )
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" else "fp32"
