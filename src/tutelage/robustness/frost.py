"""Frost: a part of a picture of ice in front of the image.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. The pictures are our own, see
textures.py, so results are not comparable with published ones.
"""

from torch import Tensor

from tutelage.robustness.draws import Draws
from tutelage.robustness.levels import Level
from tutelage.robustness.textures import textures


def frost(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) behind a part, drawn for each, of one of five pictures."""
    of_image, of_frost, scale = level
    height, width = images.shape[-2:]
    pictures = textures(scale, images.device)
    _, _, side, _ = pictures.shape
    kinds = draws.integers(0, len(pictures))
    places = draws.integers(0, side, 2)
    frosted = images * of_image
    for image, kind, (top, left) in zip(frosted, kinds.tolist(), places.tolist(), strict=True):
        for rows, down in parts(top, height, side):
            for columns, across in parts(left, width, side):
                ice = pictures[kind, :, down, across]
                image[:, rows, columns].add_(ice, alpha=of_frost / 255)
    return frosted


def parts(start: int, length: int, side: int) -> list[tuple[slice, slice]]:
    """Where pixels go and where in a picture that repeats they come from, along one side."""
    found = []
    done = 0
    while done < length:
        first = (start + done) % side
        count = min(length - done, side - first)
        found.append((slice(done, done + count), slice(first, first + count)))
        done += count
    return found
