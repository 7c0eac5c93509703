"""Frost: a part of a picture of ice in front of the image.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. The pictures are our own, see
textures.py, so results are not comparable with published ones.
"""

import torch
from torch import Tensor

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import SLACK, Level
from tutelage.corruptions.textures import textures
from tutelage.data.operations import cut_off


def frost(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) behind a part, drawn for each, of one of five pictures.

    Bytes become bytes, cut off and not rounded; floats in [0, 1] become floats.
    """
    of_image, of_frost, scale = level
    height, width = images.shape[-2:]
    pictures = textures(scale, images.device)
    side = pictures.shape[-1]
    scale_of = of_image if images.dtype == torch.uint8 else of_image * 255
    frosted = torch.full((), SLACK).add(images, alpha=scale_of)
    spots = draws.integers(0, len(pictures) * side * side)
    for image, spot in zip(frosted, spots.tolist(), strict=True):
        line, left = divmod(spot, side)
        kind, top = divmod(line, side)
        for rows, down in parts(top, height, side):
            for columns, across in parts(left, width, side):
                ice = pictures[kind, :, down, across].float()
                image[:, rows, columns].add_(ice, alpha=of_frost)
    if images.dtype == torch.uint8:
        return cut_off(frosted.clamp_(max=255))
    return frosted.sub_(SLACK).div_(255)


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
