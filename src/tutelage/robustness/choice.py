"""Which images are asked about, where not all are."""

import torch
from torch import Tensor

from tutelage.core import Dice, generator


def chosen(labels: Tensor, most: int | None, seed: int) -> Tensor:
    """Rows (M,) of at most so many images, as many of each class as there are, in order."""
    if most is None or most >= len(labels):
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator(seed, Dice.ROBUST, 0))
    classes, counts = torch.unique(labels[order], return_inverse=True, return_counts=True)[1:]
    by_class = classes.argsort(stable=True)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(order)
    place[by_class] = torch.arange(len(order)) - first.repeat_interleave(counts)
    return order[place.argsort(stable=True)[:most]].sort().values  # round by round
