"""TrivialAugment on whole batches: one operation an image, at a strength of its own.

Paper: Müller and Hutter 2021, TrivialAugment (arXiv 2103.10158), section 3, the wide space: 14
operations, 31 strengths, both uniform. Shifts reach 32 pixels at any size, as published. Deviations
of the operations: operations.py.
"""

import torch
from torch import Tensor

from tutelage.data.draws import randint
from tutelage.data.magnitudes import Rules, chosen, growing
from tutelage.data.operations import apply

STRENGTHS = 31
REACH = 32  # pixels


def wide(height: int, width: int) -> Rules:
    """The wide space for images of that size."""
    return growing(
        shear=0.99, shift=(REACH / width, REACH / height), degrees=135, factor=0.99, bits=6,
        threshold=255,
    )  # fmt: skip


def trivialaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """One random operation an image: (B, 3, H, W), float in [0, 1] or uint8."""
    rules, shape = wide(*images.shape[-2:]), (1, len(images))
    drawn = randint(0, len(rules), shape, generator=generator, axis=1)
    sign = randint(0, 2, shape, generator=generator, axis=1) * 2.0 - 1
    level = randint(0, STRENGTHS, shape, generator=generator, axis=1).double() / (STRENGTHS - 1)
    return apply(images, *chosen(rules, drawn, level, sign))
