"""Attacks that follow the gradient of a loss: one step (FGSM), and projected gradient descent.

Paper: Goodfellow et al. 2015 (arXiv 1412.6572), section 4: x' = x + eps sign(grad L). Madry et al.
2018 (arXiv 1706.06083), section 2.1: x_{t+1} = P(x_t + alpha sign(grad L)), P the projection on
the ball around x, from a random start. In the L2 norm a step goes along grad L / |grad L|.
Losses: cross-entropy; Carlini and Wagner 2017 (arXiv 1608.04644), section V, the function f_6; the
difference of logits ratio of Croce and Hein 2020 (arXiv 2003.01690), equations 6 and 7.

Images are in [0, 1], as they enter the network before its normalization, and stay there; all is
float32. Deviation: of the images on the way, and not of the last one alone, any that is answered
wrongly counts, which costs nothing more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.corruptions.draws import Draws
from tutelage.frozen import answer
from tutelage.learner import modes
from tutelage.values import nearest

Norm = Literal["linf", "l2"]
SLACK = 2e-6  # of the distance, for what float32 rounds of it
STEP = 2**-25  # by which float32 rounds a pixel from 0 to 1, at most
TINY = torch.finfo(torch.float32).tiny  # keeps a step of zero where the gradient is zero


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y (B,) of logits (B, K); for a model that is very sure it and its gradient vanish."""
    return functional.cross_entropy(logits, labels, reduction="none")


def cw(logits: Tensor, labels: Tensor) -> Tensor:
    """The best other logit minus the label's (B,): above 0 where the answer is wrong."""
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return other - logits.gather(1, labels[:, None])[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """`cw` over the distance of the first logit from the third (B,), so that no scale matters.

    Raises ValueError where there are fewer than 3 classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"dlr is for 3 classes or more, got {logits.shape[1]}: take cw")
    first = logits.topk(3, dim=1).values
    return cw(logits, labels) / (first[:, 0] - first[:, 2] + 1e-12)


Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, K), labels (B,) -> (B,)
LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "cw": cw, "dlr": dlr}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How far and by what rule images are moved."""

    epsilon: float  # largest change of a pixel, or its Euclidean length, in units of [0, 1]
    norm: Norm = "linf"
    loss: str = "cross-entropy"  # or cw, dlr
    targeted: bool = False  # the labels are the classes to reach, and not those to leave
    steps: int = 10
    step_size: float | None = None  # alpha, in units of [0, 1]; None: 2.5 epsilon / steps

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown loss, and for dlr with a target."""
        if self.loss not in LOSSES:
            raise ValueError(f"an attack knows no loss {self.loss!r}{nearest(self.loss, LOSSES)}")
        if self.targeted and self.loss == "dlr":
            raise ValueError("dlr has no target, its scale would hide it: take cw")

    def reached(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Where (B,) bool the attack has what it wants."""
        return (logits.argmax(1) == labels) == self.targeted


@dataclass(frozen=True)
class Slope:
    """What one look at images tells."""

    gradient: Tensor  # (B, 3, H, W) of the loss that is to rise
    loss: Tensor  # (B,) that loss
    logits: Tensor  # (B, K)


@dataclass(frozen=True)
class Attacked:
    """What became of images."""

    images: Tensor  # (B, 3, H, W) the last ones
    reached: Tensor  # (B,) bool: whether any on the way was what the attack wants
    predicted: Tensor  # (B,) the answer to the first of those, or else to the last image
    loss: Tensor  # (B,) at the last image, of the loss that was to rise


def slope(module: nn.Module, images: Tensor, *, labels: Tensor, attack: Attack) -> Slope:
    """Gradient, loss and answers at images (B, 3, H, W) for labels (B,).

    In eval mode; neither modes nor buffers nor the weights' gradients are changed.
    """
    with modes(module, noise=False, statistics=False):
        return _slope(module, images, labels, attack)


def fgsm(module: nn.Module, images: Tensor, *, labels: Tensor, attack: Attack) -> Tensor:
    """Images (B, 3, H, W) one step of length epsilon further, along the sign of the gradient, or
    along the gradient itself in the L2 norm; raises ValueError for images outside [0, 1]."""
    _check(images)
    found = slope(module, images, labels=labels, attack=attack)
    return stepped(images, found.gradient, attack)


def stepped(images: Tensor, gradient: Tensor, attack: Attack) -> Tensor:
    """`fgsm` with a gradient that is known already."""
    return (images + attack.epsilon * _direction(gradient, attack.norm)).clamp_(0, 1)


def pgd(
    module: nn.Module, images: Tensor, *, labels: Tensor, attack: Attack, draws: Draws | None = None
) -> Attacked:
    """Projected gradient descent from images (B, 3, H, W), or from a random point near them where
    `draws` are given; raises ValueError for images outside [0, 1]."""
    _check(images)
    size = 2.5 * attack.epsilon / attack.steps if attack.step_size is None else attack.step_size
    at = images
    if draws is not None:
        at = projected(images + start(images, attack, draws), images, attack)
    reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    predicted = torch.zeros_like(labels)
    with modes(module, noise=False, statistics=False):
        for step in range(attack.steps + 1):
            if step < attack.steps:
                found = _slope(module, at, labels, attack)
                logits, loss = found.logits, found.loss
            else:
                logits, loss = _loss(module, at, labels, attack)
            predicted = torch.where(reached, predicted, logits.argmax(1))
            reached |= attack.reached(logits, labels)
            if step < attack.steps:
                move = _direction(found.gradient, attack.norm)
                at = projected(at + size * move, images, attack)
    rounded = STEP * (1 if attack.norm == "linf" else math.sqrt(images[0].numel()))
    most = attack.epsilon * (1 + SLACK) + rounded
    assert _length(at - images, attack.norm) <= most, "the ball was left"
    return Attacked(at, reached, predicted, loss)


def projected(moved: Tensor, images: Tensor, attack: Attack) -> Tensor:
    """The nearest points (B, 3, H, W) in the ball around the images, then in [0, 1], which leads
    no further away from them."""
    change = moved - images
    if attack.norm == "linf":
        change = change.clamp_(-attack.epsilon, attack.epsilon)
    else:
        length = _lengths(change).clamp_min_(TINY)
        change = change * (attack.epsilon / length).clamp_max_(1)[:, None, None, None]
    return change.add_(images).clamp_(0, 1)


def start(images: Tensor, attack: Attack, draws: Draws) -> Tensor:
    """A change (B, 3, H, W) drawn evenly from the ball."""
    shape = tuple(images.shape[1:])
    if attack.norm == "linf":
        return draws.uniform(*shape, low=-attack.epsilon, high=attack.epsilon)
    direction = _direction(draws.normal(*shape), "l2")
    radius = draws.uniform(1, 1, 1) ** (1 / images[0].numel())  # as a ball's volume grows
    return direction * (attack.epsilon * radius)


def noise(images: Tensor, attack: Attack, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) changed as much as the attack may, in a random direction."""
    shape = tuple(images.shape[1:])
    drawn = draws.uniform(*shape, low=-1) if attack.norm == "linf" else draws.normal(*shape)
    return stepped(images, drawn, attack)


def _slope(module: nn.Module, images: Tensor, labels: Tensor, attack: Attack) -> Slope:
    """`slope` of a module in eval mode. The sum over images keeps each one's gradient its own."""
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        logits, loss = _raised(module, inputs, labels, attack)
        (gradient,) = torch.autograd.grad(loss.sum(), inputs)
    return Slope(gradient, loss.detach(), logits.detach())


@torch.no_grad()
def _loss(
    module: nn.Module, images: Tensor, labels: Tensor, attack: Attack
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Answers (B, K) and the loss that is to rise (B,), without gradient."""
    return _raised(module, images, labels, attack)


def _raised(
    module: nn.Module, images: Tensor, labels: Tensor, attack: Attack
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Answers (B, K), and the loss that is to rise (B,): for a target its negative."""
    logits = answer(module, images, "fp32")
    loss = LOSSES[attack.loss](logits, labels)
    return logits, -loss if attack.targeted else loss


def _direction(gradient: Tensor, norm: Norm) -> Tensor:
    """A step (B, 3, H, W) of length 1 in the norm; none where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    largest = gradient.flatten(1).abs().amax(1).clamp_min_(TINY)
    scaled = gradient / largest[:, None, None, None]  # squares of tiny ones would be 0
    return scaled / _lengths(scaled).clamp_min_(TINY)[:, None, None, None]


def _length(change: Tensor, norm: Norm) -> Tensor:
    """The largest change of the batch."""
    return (change.abs().amax() if norm == "linf" else _lengths(change).amax()).detach()


def _lengths(change: Tensor) -> Tensor:
    """The Euclidean length (B,) of each change (B, 3, H, W), to a millionth.

    Line by line, as float32 loses up to 8e-4 of it in one sum over 3 x 600 x 600 (November 2026).
    """
    return change.norm(dim=3).norm(dim=2).norm(dim=1)


def _check(images: Tensor) -> None:
    """Raises ValueError for what is no batch of images in [0, 1]."""
    if images.dtype != torch.float32 or not ((images >= 0) & (images <= 1)).all():
        raise ValueError(
            f"attacks are on float32 images in [0, 1], got {images.dtype}: give images as they are "
            "before normalization"
        )
