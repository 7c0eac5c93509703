"""A network and all that updates it: optimizer, schedule, precision, and the weights' average."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # not in its __all__
from torch import Tensor, nn

from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.networks.build import normalizes_batches
from tutelage.schedules import learning_rate
from tutelage.settings import Optim, Precision


class Learner:
    """A network that learns through one verb, `minimize`."""

    def __init__(self, module: nn.Module, optim: Optim, *, precision: str = "fp32") -> None:
        """Take over the module, on whatever device it is; raises UsageError for an optimizer
        name that timm doesn't know."""
        self.module = module.to(memory_format=torch.channels_last).train()
        self.optim = optim.resolved(batch_norm=normalizes_batches(module), pretrained=False)
        self.peak = float(self.optim.lr)
        self.precision = precision
        self.device = next(module.parameters()).device
        self.optimizer = _optimizer(module, self.optim)
        self.average = None if optim.ema is None else deepcopy(module).eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32 of images (B, 3, H, W) in [0, 1]."""
        return answer(self.module, images, self.precision)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the class head and of the distillation head, each (B, K) in float32; the same
        twice where the network has one head, or is in eval mode."""
        with _autocast(images.device, self.precision):
            found = self.module(images.contiguous(memory_format=torch.channels_last))
        one, other = (found, found) if isinstance(found, Tensor) else found
        return one.float(), other.float()

    @torch.no_grad()
    def slow(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the weights' average, in eval mode and without gradient.

        Raises UsageError where no average is kept.
        """
        if self.average is None:
            raise UsageError("this method asks the weights' average: set --optim.ema")
        return answer(self.average, images, self.precision)

    def rate(self, clock: Clock) -> float:
        """The learning rate at this time."""
        shape = learning_rate(clock.fraction, self.optim.schedule, self.optim.warmup)
        return self.peak * clock.rate * shape

    def minimize(self, loss: Tensor, clock: Clock) -> None:
        """One update: backward, clip, learning rate of the clock, step, average."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.optim.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(clock)
        self.optimizer.step()
        if self.average is not None and self.optim.ema is not None:
            decay = min(self.optim.ema, (1 + clock.step) / (10 + clock.step))
            move_average(self.average, self.module, decay)

    def graduate(self) -> nn.Module:
        """What to evaluate and keep: a copy of the average, or of the network, in eval mode."""
        source = self.module if self.average is None else self.average
        return deepcopy(source).eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes while learning."""
        return {
            "module": self.module.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


class Frozen:
    """A network that answers and never changes."""

    def __init__(self, module: nn.Module, *, precision: str = "fp32") -> None:
        """Take over the module in eval mode, without gradients."""
        self.module = module.to(memory_format=torch.channels_last).eval().requires_grad_(False)
        self.precision = precision

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32 of images (B, 3, H, W) in [0, 1]."""
        return answer(self.module, images, self.precision)


def answer(module: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Logits (B, K) in float32, computed in the given precision."""
    with _autocast(images.device, precision):
        logits: Tensor = module(images.contiguous(memory_format=torch.channels_last))
    return logits.float()


def _autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def modes(module: nn.Module, *, noise: bool, statistics: bool) -> Iterator[None]:
    """For a while, dropout and its kin on or off, and batch norm with the batch's statistics or
    with the stored ones."""
    before = {layer: layer.training for layer in module.modules()}
    try:
        for layer in before:
            norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
            layer.training = statistics if norm else noise
        yield
    finally:
        for layer, mode in before.items():
            layer.training = mode


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) module, for weights and batch-norm statistics.

    TensorFlow's rule, as in Noisy Student; integer counters are copied. The early decay
    min(d, (1 + t) / (10 + t)) is the caller's.
    """
    slow, fast = _tensors(average), _tensors(module)
    floats = [(s, f) for s, f in zip(slow, fast, strict=True) if s.is_floating_point()]
    torch._foreach_lerp_([s for s, _ in floats], [f for _, f in floats], 1 - decay)
    for s, f in zip(slow, fast, strict=True):
        if not s.is_floating_point():
            s.copy_(f)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """timm's optimizer of that name, without weight decay on norms and biases."""
    try:
        return create_optimizer_v2(
            module,
            opt=optim.name,
            lr=float(optim.lr),
            weight_decay=float(optim.weight_decay),
            momentum=optim.momentum,
        )
    except (AssertionError, ValueError) as error:
        raise UsageError(f"optim.name {optim.name!r}: {error}") from error


def choose_device(name: str) -> torch.device:
    """The device of that name; raises UsageError where this machine doesn't have it."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} can't be used here: {error}") from error
    return device


def choose_precision(name: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """'auto' as bf16 on CUDA and fp32 elsewhere."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" else "fp32"
