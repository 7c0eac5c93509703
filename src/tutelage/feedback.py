"""What a lesson did to the student's exam, as a loss for the teacher who gave the labels.

Paper: Pham et al. 2021, Meta Pseudo Labels (arXiv 2003.10580), section 2 and its derivation in the
appendix. A lesson moves the student from theta to theta' = theta - lr grad CE(labels, S(x; theta)).
The teacher is to give labels that make the labeled loss L(theta') small: `exact` and `reinforce`
are losses for the teacher's answers. All of it is about the plain gradient step: momentum, weight
decay, clipping, layer decay and an adaptive optimizer's scales are no part of `credit`, and so
neither of `exact` nor of `reward`; the difference of two exams sees what they did.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from tutelage.core import Clock, Labeled
from tutelage.distributed.collectives import average_over_ranks, mean_over_ranks
from tutelage.errors import UsageError
from tutelage.frozen import autocast
from tutelage.learner import Learner, modes
from tutelage.losses import cross_entropy
from tutelage.settings import above, between
from tutelage.targets import hard, one_hot

Estimator = Literal["exact", "sampled", "difference", "none"]
Kind = Literal["auto", "soft", "sampled", "argmax"]


def label_kind(feedback: Estimator, labels: Kind) -> Kind:
    """What labels the student gets: soft ones with `exact`, and without feedback; draws with the
    others, or their argmax.

    Raises UsageError for labels that the feedback can't be about: soft labels that are reinforced
    on the logits they come from have no gradient, and hard ones are not differentiable.
    """
    soft = feedback in ("exact", "none")
    if labels == "auto":
        return "soft" if soft else "sampled"
    if feedback != "none" and soft != (labels == "soft"):
        fitting = "soft" if soft else "sampled or argmax"
        raise UsageError(
            f"labels={labels} doesn't go with feedback={feedback}: take labels={fitting}"
        )
    return labels


def check_feedback(feedback: Estimator, labels: Kind, decay: float) -> None:
    """Raises UsageError for labels that the feedback can't be about, and for a decay of the
    baseline out of range: at 0 it is the last h itself, and the advantage always 0."""
    label_kind(feedback, labels)
    above("baseline", decay, 0)
    between("baseline", decay, 0, 1)


def pseudo_labels(logits: Tensor, kind: Kind) -> Tensor:
    """The teacher's softmax, a draw from it, or its surest class, without gradient:
    (B, K) -> (B, K)."""
    probs = logits.detach().softmax(-1)
    if kind == "sampled":
        return one_hot(torch.multinomial(probs, 1).squeeze(-1), probs.shape[-1])
    return hard(probs) if kind == "argmax" else probs


def exam(student: Learner, labeled: Labeled) -> Tensor:
    """The labeled loss L(theta): a scalar, with gradient.

    In eval mode and without autocast: two exams differ by the student's weights alone, in float32,
    and move no batch-norm statistic.
    """
    images = labeled.images.contiguous(memory_format=torch.channels_last)
    with modes(student.module, noise=False, statistics=False):
        logits = student.module(images)
    return _cross_entropy(logits, labeled.targets)


@dataclass(frozen=True, slots=True)
class Start:
    """All of a student that a lesson depends on and changes, just before it."""

    weights: dict[str, Tensor]  # theta
    buffers: dict[str, Tensor]
    dice: list[Tensor]  # states of the generators that dropout draws from


@dataclass(frozen=True, slots=True)
class Lesson:
    """One update of the student on a teacher's labels, and what its feedback is made of."""

    start: Start | None  # where the feedback is a derivative
    images: Tensor  # x_u (U, 3, H, W)
    labels: Tensor  # (U, K), without gradient
    loss: Tensor  # CE(labels, S(x_u; theta)), detached
    before: Tensor | None  # L(theta), detached, where the feedback is a difference
    after: Tensor  # L(theta'), with gradient where the feedback is a derivative
    lr: float


def differentiates(estimator: Estimator) -> bool:
    """Whether feedback comes through the derivative of a lesson."""
    return estimator in ("exact", "sampled")


def start_of(student: Learner) -> Start:
    """A copy, to go through the coming lesson once more."""
    module = student.module
    weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return Start(weights, buffers, _dice(student.device))


def teach(
    student: Learner, images: Tensor, labels: Tensor, labeled: Labeled, clock: Clock, *,
    estimator: Estimator,
) -> Lesson:  # fmt: skip
    """Update the student on images (U, 3, H, W) with labels (U, K), and examine it, for feedback by
    that estimator.

    The lesson's forward comes before the first exam, so that both see the batch-norm statistics
    that it moved.
    """
    derives = differentiates(estimator)
    start = start_of(student) if derives else None
    loss = cross_entropy(student(images), labels)
    before = None
    if estimator == "difference":
        with torch.no_grad(), _exact_products():
            before = exam(student, labeled)
    student.minimize(loss, clock)
    with torch.set_grad_enabled(derives), nullcontext() if derives else _exact_products():
        after = exam(student, labeled)
    return Lesson(start, images, labels, loss.detach(), before, after, student.rate(clock))


def _exact_products() -> AbstractContextManager[None]:
    """Without TF32, by which a GPU's convolutions round weights to 10 bits: by more than the update
    between two exams may move them."""
    now = torch.backends.cudnn
    return now.flags(
        enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic,
        allow_tf32=False,
    )  # fmt: skip


def credit(student: Learner, start: Start, images: Tensor, result: Tensor) -> Tensor:
    """How fast the exam's result L(theta') grows with the weight of each label, over lr: (U, K),
    without gradient.

    d_ic is the derivative of log softmax(S(x_i; theta))_c along v = grad L(theta'). It takes one
    backward pass through the exam and one forward-mode pass through the lesson, with the lesson's
    batch statistics, dropout masks and precision, but in fp32 where that is fp16: a derivative has
    no scaled loss that keeps it in range. Raises UsageError for a layer without forward-mode
    derivative.
    """
    directions = torch.autograd.grad(
        result, list(student.module.parameters()), allow_unused=True, materialize_grads=True
    )
    average_over_ranks(list(directions))
    along = dict(zip(start.weights, directions, strict=True))
    try:
        return _derivative(student, start, images, along)
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the student has a layer without forward-mode derivative ({reason}): "
            "set --options feedback=difference"
        ) from error


@torch.no_grad()
def _derivative(student: Learner, start: Start, images: Tensor, along: dict[str, Tensor]) -> Tensor:
    """The derivative of the lesson's log-probabilities (U, K) along a direction of the weights."""
    images = images.contiguous(memory_format=torch.channels_last)
    buffers = {name: buffer.clone() for name, buffer in start.buffers.items()}
    low = student.precision == "bf16"
    rough = autocast(student.device, student.precision if low else "fp32")
    _load_forward_mode()
    plain = sdpa_kernel(SDPBackend.MATH)  # fused attention has no forward-mode derivative
    with forward_ad.dual_level(), _same_dice(student.device, start.dice):
        weights = {
            name: forward_ad.make_dual(weight, along[name])
            for name, weight in start.weights.items()
        }
        with rough, plain:
            logits = functional_call(student.module, weights | buffers, (images,))
        precise = logits.float() if low else logits
        _, slopes = forward_ad.unpack_dual(precise.log_softmax(-1))
    return slopes


@cache
def _load_forward_mode() -> None:
    """Let torch load its forward-mode rules, which warns of a deprecation inside torch."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def feedback(
    estimator: Estimator,
    student: Learner,
    lesson: Lesson,
    logits: Tensor,
    baseline: Tensor,
    *,
    decay: float,
) -> tuple[Tensor, Tensor]:
    """h, and the loss through which the teacher's logits (U, K) learn from the lesson.

    Where labels are hard, `baseline` moves towards h in place and is then subtracted from it, in
    the reference code's order, which scales h - b by the decay. Both are 0 for "none".
    """
    if estimator == "none":
        nothing = torch.zeros_like(lesson.loss)
        return nothing, nothing
    if estimator == "difference":
        assert lesson.before is not None, "as `teach` makes it for this estimator"
        h = mean_over_ranks(lesson.before - lesson.after.detach())
    else:
        assert lesson.start is not None, "as `teach` makes it for this estimator"
        slopes = credit(student, lesson.start, lesson.images, lesson.after)
        h = mean_over_ranks(reward(lesson.labels, slopes, lesson.lr))
        if estimator == "exact":
            return h, exact(logits, slopes, lesson.lr)
    baseline.lerp_(h, 1 - decay)
    return h, reinforce(logits, lesson.labels, h - baseline)


def exact(logits: Tensor, slopes: Tensor, lr: float) -> Tensor:
    """lr mean_i sum_c q_ic d_ic for soft labels q = softmax(logits) and slopes d (B, K): a scalar
    with the gradient of L(theta') through the student's step."""
    return lr * (logits.softmax(-1) * slopes).sum(-1).mean()


def reward(labels: Tensor, slopes: Tensor, lr: float) -> Tensor:
    """h = lr <grad L(theta'), grad CE(labels, S(x; theta))>, above 0 where the lesson helped."""
    return -lr * (labels * slopes).sum(-1).mean()


def reinforce(logits: Tensor, labels: Tensor, advantage: Tensor) -> Tensor:
    """advantage CE(labels, T(x)): a scalar that makes labels likelier that did good.

    The cross-entropy is a mean over the batch, as in the paper. For labels drawn from T the
    gradient is therefore, in expectation, that of L(theta') over the batch size.
    """
    return advantage.detach() * _cross_entropy(logits, labels)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in the precision of the logits."""
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


@contextmanager
def _same_dice(device: torch.device, states: list[Tensor]) -> Iterator[None]:
    """For a while, draw again what was drawn after these states."""
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
