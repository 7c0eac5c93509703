"""What a strength means: for each operation, the amount at a level, in the published ways.

A level is the magnitude over 10, and 1 is what the papers call the largest; a sign says in which
direction, where there are two. The table's keys are the operations that a policy draws from.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tutelage.data.operations import NAMES

Rule = Callable[[Tensor, Tensor], Tensor]  # level >= 0, sign -1 or 1 -> amount, of one shape
Rules = Mapping[str, Rule]


def growing(
    *, shear: float, shift: tuple[float, float], degrees: float, factor: float, bits: int,
    threshold: float,
) -> dict[str, Rule]:  # fmt: skip
    """Rules that do nothing at level 0 and reach the given amounts at 1; shift: x and y shares."""

    def blend(level: Tensor, sign: Tensor) -> Tensor:
        return 1 + factor * level * sign

    slope = _signed(shear)
    return {
        "identity": _nothing,
        "autocontrast": _nothing,
        "equalize": _nothing,
        "rotate": _signed(degrees),
        "solarize": lambda level, sign: threshold * (1 - level),
        "color": blend,
        "posterize": lambda level, sign: 8 - (bits * level).round(),
        "contrast": blend,
        "brightness": blend,
        "sharpness": blend,
        "shear_x": slope,
        "shear_y": slope,
        "translate_x": _signed(shift[0]),
        "translate_y": _signed(shift[1]),
    }


def _nothing(level: Tensor, sign: Tensor) -> Tensor:
    return torch.zeros_like(level)


def _signed(most: float) -> Rule:
    """From 0 to `most` at level 1, to either side."""
    return lambda level, sign: most * level * sign


# The 14 operations of FixMatch (arXiv 2001.07685, table 12), each growing with the magnitude.
EVEN: Rules = growing(
    shear=0.3, shift=(0.3, 0.3), degrees=30, factor=0.9, bits=4, threshold=256
)  # fmt: skip


TURN, SLOPE = _signed(30), _signed(0.3)  # degrees; pixels a pixel: timm and TensorFlow agree


def _timm_factor(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + 0.9 * level * sign).clamp(min=0.1)


TIMM_SHIFT = _signed(0.45)  # share of the side

# timm's rand-mM-inc1: 15 operations; posterize keeps 4 bits at level 0 and none at 1.
TIMM: Rules = {
    "autocontrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": TURN,
    "posterize": lambda level, sign: 4 - (4 * level).floor(),
    "solarize": lambda level, sign: 256 - (256 * level).floor().clamp(max=256),
    "solarize_add": lambda level, sign: (110 * level).floor().clamp(max=128),
    "color": _timm_factor,
    "contrast": _timm_factor,
    "brightness": _timm_factor,
    "sharpness": _timm_factor,
    "shear_x": SLOPE,
    "shear_y": SLOPE,
    "translate_x": TIMM_SHIFT,
    "translate_y": TIMM_SHIFT,
}


def _tf_factor(level: Tensor, sign: Tensor) -> Tensor:
    return 0.1 + 1.8 * level


SIDE = 224  # pixels of the image that the reference code's shifts and squares are taken to mean
TF_SHIFT = _signed(100 / SIDE)

# The code of EfficientNet and Noisy Student: 16 operations with Cutout, and no largest level, so
# that magnitude 27 turns by 81 degrees. Posterize and solarize grow weaker, and from level 2 and 1
# on do nothing; the reference shifts by 8 - bits, which nobody defined above 8 bits.
TF: Rules = {
    "autocontrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": TURN,
    "posterize": lambda level, sign: (4 * level).floor(),
    "solarize": lambda level, sign: (256 * level).floor(),
    "color": _tf_factor,
    "contrast": _tf_factor,
    "brightness": _tf_factor,
    "sharpness": _tf_factor,
    "shear_x": SLOPE,
    "shear_y": SLOPE,
    "translate_x": TF_SHIFT,
    "translate_y": TF_SHIFT,
    "cutout": lambda level, sign: 2 * 40 / SIDE * level,
    "solarize_add": lambda level, sign: (110 * level).floor(),
}


def chosen(rules: Rules, drawn: Tensor, level: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """Operations, which count in NAMES, and amounts for `drawn`, which counts in the rules."""
    index = torch.tensor([NAMES.index(name) for name in rules])
    made = {rule: rule(level, sign) for rule in set(rules.values())}
    amounts = torch.stack([made[rule] for rule in rules.values()])
    return index[drawn], amounts.gather(0, drawn[None])[0]
