"""A teacher over a pool -> Parquet parts; a part that is there is not made again."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tutelage.data.pixels import Chosen, Pixels
from tutelage.data.pool import PseudoLabels, from_probs, join, load, save
from tutelage.errors import RunMismatch
from tutelage.evaluation.accuracy import predict
from tutelage.networks.build import weight_digest

PART = 16_384  # images a part


def label_pool(
    teacher: nn.Module,
    pixels: Pixels,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    out: Path,
    *,
    size: int,
    precision: str = "fp32",
    advance: Callable[[int], None] = lambda done: None,
) -> PseudoLabels:
    """The clean, un-noised teacher's answers on every image, also written to part-*.parquet.

    Paper: Noisy Student (arXiv 1911.04252), algorithm 1, step 2. Raises RunMismatch where `out`
    holds the labels of another teacher or pool.
    """
    digest = weight_digest(teacher)
    parts = []
    for number, start in enumerate(range(0, len(names), PART)):
        stop = min(start + PART, len(names))
        path = out / f"part-{number:05d}.parquet"
        if not path.exists():
            part_pixels = Chosen(pixels, torch.arange(start, stop))
            probs = predict(teacher, part_pixels, size, precision=precision, advance=advance)
            save(path, from_probs(names[start:stop], probs, classes, digest))
        part = load(path)
        if part.teacher != digest or part.names != names[start:stop]:
            raise RunMismatch(
                f"{path} was written by another teacher or for other images: choose another --out"
            )
        parts.append(part)
    return join(parts)
