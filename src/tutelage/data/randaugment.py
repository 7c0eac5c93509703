"""RandAugment on whole batches: operations and strengths drawn for each image.

Paper: Cubuk et al. 2020, RandAugment (arXiv 1909.13719), section 3: N operations drawn uniformly
with replacement, one shared magnitude M. Published codes disagree on what M means, so it is said:

even: 0 to 10; each operation grows with M, and at 0 nothing changes. Invert is left out, as in
    FixMatch (arXiv 2001.07685, table 12), and identity is in; Cutout is a view of its own.
timm: timm's increasing set, clamped to 10. timm applies each drawn operation with a probability of
    one half and adds normal noise to M: `op_prob` 0.5 and `magnitude_std`.
tf: the code of EfficientNet and Noisy Student: M over 10 is not clamped, and Noisy Student used 27.
    Posterize and solarize grow weaker with M. Pixels of the code are taken at an image of 224.

Deviations in all of them: bilinear, gray fill, shears about the middle (operations.py).
"""

import torch
from torch import Tensor

from tutelage.data.draws import rand, randint, randn
from tutelage.data.magnitudes import EVEN, TF, TIMM, Rules, chosen
from tutelage.data.operations import IDENTITY, apply

SCALES: dict[str, tuple[Rules, float]] = {  # rules, largest magnitude
    "even": (EVEN, 10),
    "timm": (TIMM, 10),
    "tf": (TF, float("inf")),
}


def randaugment(
    images: Tensor,
    generator: torch.Generator,
    *,
    magnitude: float,
    num_ops: int = 2,
    scale: str = "even",
    op_prob: float = 1.0,
    magnitude_std: float = 0.0,
) -> Tensor:
    """`num_ops` random operations an image: (B, 3, H, W), float in [0, 1] or uint8.

    Each image draws its own operations and signs. The result depends on the generator alone.
    """
    rules, largest = SCALES[scale]
    shape = (num_ops, len(images))
    drawn = randint(0, len(rules), shape, generator=generator, axis=1)
    sign = randint(0, 2, shape, generator=generator, axis=1) * 2.0 - 1
    strength = torch.full(shape, magnitude, dtype=torch.float64)
    if magnitude_std:
        strength += magnitude_std * randn(*shape, generator=generator, axis=1)
    choice, amount = chosen(rules, drawn, strength.clamp(0, largest) / 10, sign)
    if op_prob < 1:
        skipped = rand(*shape, generator=generator, axis=1) >= op_prob
        choice = choice.masked_fill(skipped, IDENTITY)
    centers = rand(*shape, 2, generator=generator, axis=1) if "cutout" in rules else None
    return apply(images, choice, amount, centers)
