"""How often answers change from frame to frame, and how much the five surest classes do.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.2. The frames of a sequence of
noise are compared with the first one, which is clean, as their order means nothing.
"""

from torch import Tensor

TOP = 5


def pairs(frames: Tensor, *, with_first: bool) -> tuple[Tensor, Tensor]:
    """Of frames (T, ...) those (T - 1, ...) that are compared: each with the one before it, or all
    with the first."""
    after = frames[1:]
    return (frames[:1].expand_as(after) if with_first else frames[:-1]), after


def flip_probability(predicted: Tensor, *, with_first: bool) -> Tensor:
    """Share (N,) of pairs of frames whose answers, of predicted (T, N), are not the same."""
    before, after = pairs(predicted, with_first=with_first)
    return (before != after).double().mean(0)


def surest(logits: Tensor) -> Tensor:
    """The classes (B, 5) of logits (B, K), the surest first; of equal ones the first class."""
    return logits.sort(dim=-1, descending=True, stable=True).indices[:, :TOP]


def top5_distance(before: Tensor, after: Tensor) -> Tensor:
    """From 0 to 15, how far apart two lists (..., 5) of the surest classes are.

    With s(i) the new rank of the class that was at rank i: the sum over i of 1 to 5 of
    |i - min(s(i), 6)|. This equals the paper's double sum, of which each term tells whether one of
    the five places lies between both ranks.
    """
    same = before[..., :, None] == after[..., None, :]
    place = (same * same.new_tensor(range(-TOP, 0), dtype=before.dtype)).sum(-1) + TOP
    return (place - place.new_tensor(range(TOP))).abs().sum(-1)
