"""What a lesson did to the student's exam, as a loss for the teacher that gave the labels.

Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), section 2 and appendix A. One lesson
moves the student from theta to theta' = theta - lr grad CE(labels, S(x; theta)), and the teacher
is to choose the labels that make the labeled loss L(theta') small.

`credit` is the slope d_ic of log softmax(S(x_i; theta))_c along v = grad L(theta'). From it follow
the exact gradient for soft labels, `exact`, and the paper's h = lr <v, grad CE>, `reward`, which
`reinforce` uses. The paper's approximation of h is L(theta) - L(theta'), old minus new; the
reference code has new minus old, which teaches the opposite. All of this is about the plain
gradient step: momentum, weight decay, clipping and an adaptive optimizer's scales are no part of
`exact` and `reward`, whereas the difference of two exams sees them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tutelage.core import Labeled
from tutelage.errors import UsageError
from tutelage.learner import Learner, modes
from tutelage.targets import one_hot

Estimator = Literal["exact", "sampled", "difference", "none"]
Kind = Literal["soft", "sampled", "argmax"]


def pseudo_labels(logits: Tensor, kind: Kind) -> Tensor:
    """The teacher's answer as targets without gradient: the softmax, a draw from it, or its
    surest class: (B, K) -> (B, K)."""
    probs = logits.detach().softmax(-1)
    if kind == "soft":
        return probs
    classes = probs.argmax(-1) if kind == "argmax" else torch.multinomial(probs, 1).squeeze(-1)
    return one_hot(classes, probs.shape[-1])


def exam(student: Learner, labeled: Labeled) -> Tensor:
    """The labeled loss L(theta): a scalar, with gradient.

    In eval mode and without autocast, so that two exams differ by the student's weights alone and
    no batch-norm statistic moves.
    """
    images = labeled.images.contiguous(memory_format=torch.channels_last)
    with modes(student.module, noise=False, statistics=False):
        logits = student.module(images)
    return _cross_entropy(logits, labeled.targets)


@dataclass(frozen=True, slots=True)
class Start:
    """A student just before a lesson, to go through the same lesson again."""

    weights: dict[str, Tensor]  # theta
    buffers: dict[str, Tensor]
    dice: list[Tensor]  # states of the generators that dropout draws from


def start_of(student: Learner) -> Start:
    """Copies of all that the lesson depends on and changes."""
    module = student.module
    return Start(
        {name: weight.detach().clone() for name, weight in module.named_parameters()},
        {name: buffer.clone() for name, buffer in module.named_buffers()},
        _dice(student.device),
    )


def credit(student: Learner, start: Start, images: Tensor, result: Tensor) -> Tensor:
    """How the exam's result would answer to more weight on each label: d (B, K), no gradient.

    d_ic is the directional derivative of log softmax(S(x_i; theta))_c along the result's gradient
    v at theta': one forward-mode pass through the lesson's forward, with its batch statistics, its
    dropout masks and its precision. Raises UsageError where a layer has no such derivative.
    """
    slopes = torch.autograd.grad(
        result, list(student.module.parameters()), allow_unused=True, materialize_grads=True
    )
    images = images.contiguous(memory_format=torch.channels_last)
    buffers = {name: buffer.clone() for name, buffer in start.buffers.items()}
    low = torch.autocast(student.device.type, torch.bfloat16, enabled=student.precision != "fp32")
    # Fused attention has no forward-mode derivative; the plain one does.
    plain = sdpa_kernel(SDPBackend.MATH)
    try:
        with (
            torch.no_grad(),
            forward_ad.dual_level(),
            _same_dice(student.device, start.dice),
            plain,
        ):
            weights = {
                name: forward_ad.make_dual(weight, slope)
                for (name, weight), slope in zip(start.weights.items(), slopes, strict=True)
            }
            with low:
                logits = functional_call(student.module, (weights, buffers), (images,))
            log_probs = logits.to(slopes[0].dtype).log_softmax(-1)
            tangent = forward_ad.unpack_dual(log_probs).tangent
    except NotImplementedError as error:
        raise UsageError(
            f"this network has a layer without forward-mode derivative ({error}): "
            "use --options feedback=difference"
        ) from error
    return torch.zeros_like(log_probs) if tangent is None else tangent


def exact(logits: Tensor, slopes: Tensor, lr: float) -> Tensor:
    """lr mean_i sum_c q_ic d_ic: a scalar whose gradient at the teacher's logits (B, K) is that
    of L(theta') through the student's step on soft labels q."""
    return lr * (logits.softmax(-1) * slopes).sum(-1).mean()


def reward(labels: Tensor, slopes: Tensor, lr: float) -> Tensor:
    """h = lr <grad L(theta'), grad CE(labels, S(x; theta))>, above 0 where the lesson helped."""
    return -lr * (labels * slopes).sum(-1).mean()


def reinforce(logits: Tensor, labels: Tensor, advantage: Tensor) -> Tensor:
    """advantage CE(labels, T(x)): a scalar that makes labels likelier that helped.

    With labels drawn from T the expected gradient is the true one over the batch size, as the
    paper's cross-entropy is a mean over the batch.
    """
    return advantage.detach() * _cross_entropy(logits, labels)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in the precision of the logits."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


@contextmanager
def _same_dice(device: torch.device, states: list[Tensor]) -> Iterator[None]:
    """For a while, draw what was drawn after these states were taken."""
    now = _dice(device)
    _set_dice(device, states)
    try:
        yield
    finally:
        _set_dice(device, now)


def _dice(device: torch.device) -> list[Tensor]:
    """States of the generators of the CPU and of the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def _set_dice(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])
