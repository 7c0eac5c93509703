"""Which image size to ask a network at, chosen on validation images.

Paper: Touvron et al. 2019 (FixRes, arXiv 1906.06423), section 3: random crops show objects larger
in training than the center crop does at the same size, which a larger test size makes up for.
Deviation: nothing is fine-tuned at the new size; classifier and batch norm stay as trained.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.pairs import pairs_with
from tutelage.settings import SMALL_IMAGE

LOWEST, HIGHEST = 0.75, 1.5  # of the training size
MOST = 8  # candidates


def candidates(trained: int) -> list[int]:
    """Sizes around the training size and itself: multiples of 32, or of 4 for tiny images, in
    steps that leave at most 8."""
    low, high = math.ceil(LOWEST * trained), math.floor(HIGHEST * trained)
    step = 4 if trained <= SMALL_IMAGE else 32
    while high // step - (low - 1) // step > MOST:
        step *= 2
    return sorted({trained, *range(-(-low // step) * step, high + 1, step)})


def canvas_at(size: int, *, trained: int, canvas: int) -> int:
    """Canvas that shows as much of an image at `size` as `canvas` does at the training size."""
    return -(-size * canvas // trained)


def best_size(right: Mapping[int, Tensor], trained: int) -> int:
    """The size with the most right answers (N,) bool; of equals the one nearest to training, then
    the smaller, which is faster."""
    return max(right, key=lambda size: (int(right[size].sum()), -abs(size - trained), -size))


def size_table(right: Mapping[int, Tensor], chosen: int) -> list[str]:
    """One line a size: the accuracy with its interval."""
    return [
        f"  {size:>5} px  {Accuracy(int(found.sum()), len(found))}"
        f"{'  <- chosen' if size == chosen else ''}"
        for size, found in sorted(right.items())
    ]


def reason(right: Mapping[int, Tensor], chosen: int, trained: int) -> str:
    """Why that size, in one sentence; the gain is corrected for how many sizes were tried, as the
    best of several looks better than it is."""
    if chosen == trained:
        return f"{trained} px, the training size: no other had more right answers"
    named = {str(size): found for size, found in right.items()}
    each = {pair.first: pair.turned() for pair in pairs_with(str(trained), named)}
    pair = each[str(chosen)]
    paired = pair.paired
    points, low, high = (100 * v for v in (paired.difference, paired.low, paired.high))
    sure = "95 % interval" if len(each) == 1 else f"95 % for all {len(each)} other sizes together"
    text = (
        f"{chosen} px: {points:+.1f} points over {trained} px, the training size "
        f"({low:+.1f} to {high:+.1f}, {sure}, {paired.total:,} images)"
    )
    if pair.outcome == "open":
        text += ", which may be chance"
    if chosen > trained > SMALL_IMAGE:
        text += "; crops in training show objects larger than the whole image does, and a larger "
        text += "size makes up for it"
    return text
