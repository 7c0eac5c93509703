"""Corruptions of ImageNet-C beside the published formulas, on one core.

Ours takes the whole batch; the formulas, in reference_*.py, take one image after another with
NumPy, SciPy, scikit-image, OpenCV and Pillow, as the authors' code calls them. Both sides corrupt
the same synthetic photos; processor time of all threads, so what a machine with more cores gains is
not in it.
"""

import importlib
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.paired import Case, processor
from benchmarks.reference_noise import Reference
from tutelage.corruptions.corrupt import CORRUPTIONS, corrupt
from tutelage.corruptions.levels import level

PARTS = ("noise", "blur", "weather", "digital")
SIZE, BATCH, FEW = 224, 64, 2  # pixels; images of ours, and of the formulas for each severity
SEVERITIES = (1, 3, 5)


def references() -> dict[str, Reference]:
    """The published formula of each corruption."""
    found: dict[str, Reference] = {}
    for part in PARTS:
        if find_spec(f"benchmarks.reference_{part}"):
            found |= importlib.import_module(f"benchmarks.reference_{part}").REFERENCE
    return {name: found[name] for name in CORRUPTIONS if name in found}


def photos(count: int, size: int) -> Tensor:
    """Synthetic photos (N, 3, S, S) uint8: details of every size, the larger the stronger."""
    dice = torch.Generator().manual_seed(0)
    total = torch.full((count, 3, size, size), 0.5)
    side = 2
    while side <= size:
        grid = torch.randn(count, 3, side, side, generator=dice) * (0.5 / side**0.7)
        total += functional.interpolate(grid, (size, size), mode="bicubic")
        side *= 2
    return total.clamp_(0, 1).mul_(255).byte()


def ours(images: Tensor, name: str) -> float:
    """Milliseconds an image, over the severities."""
    keys = [str(i) for i in range(len(images))]

    def work() -> None:
        for severity in SEVERITIES:
            corrupt(images, name, severity, keys=keys, seed=0)

    return 1e3 * processor(work) / len(images) / len(SEVERITIES)


def theirs(images: Tensor, name: str, formula: Reference) -> float:
    """The same of the formula."""
    single = [np.ascontiguousarray(one) for one in images.permute(0, 2, 3, 1).numpy()]
    dice = np.random.default_rng(0)

    def work() -> None:
        for severity in SEVERITIES:
            numbers = level(name, severity, images.shape[-1])
            for image in single:
                formula(image, numbers, dice)

    return 1e3 * processor(work) / len(images) / len(SEVERITIES)


def cases(folder: Path) -> Iterator[Case]:
    """Each corruption."""
    images = photos(BATCH, SIZE)
    for name, formula in references().items():
        yield Case(
            what=f"{name}, {SIZE} px", peer="the formula", unit="ms an image", turns=5,
            ours=partial(ours, images, name), theirs=partial(theirs, images[:FEW], name, formula),
        )  # fmt: skip
