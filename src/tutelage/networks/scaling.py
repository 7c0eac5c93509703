"""Wider and deeper EfficientNets: widths and layers by coefficients, sizes by the compound rule.

Papers: Tan and Le 2019 (arXiv 1905.11946), equation 3: depth alpha^phi, width beta^phi, image side
gamma^phi, with alpha 1.2, beta 1.1 and gamma 1.15, so that phi = 1 costs alpha beta^2 gamma^2 =
1.92 times as much; Tan and Le 2021 (arXiv 2104.00298), section 3.3: the side stops at 480 pixels,
and later stages get more layers. There is no formula for the latter; here the last two stages take,
as layers, the area that the stop keeps from the images.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from timm.layers import make_divisible  # type: ignore[attr-defined]  # not in __all__

from tutelage.errors import UsageError
from tutelage.networks.efficientnet import Architecture

Rounding = Literal["at-least-0.9", "nearest"]
DIVISOR = 8  # widths are its multiples
LATE = 2  # stages, from the end, that get the late layers
SMALLEST = 32  # pixels
STEP = 0.01  # of width and depth, what a name shows


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How depth, width and image side grow together."""

    alpha: float = 1.2  # depth
    beta: float = 1.1  # width
    gamma: float = 1.15  # image side
    multiple: int = 16  # pixels that sides are rounded to
    cap: int | None = None  # pixels that no side passes; what it keeps goes to late layers

    def __post_init__(self) -> None:
        """Reject what doesn't grow."""
        if not min(self.alpha, self.beta, self.gamma) > 1:
            raise UsageError(
                f"alpha, beta and gamma are above 1, got {self.alpha}, {self.beta} and {self.gamma}"
            )
        if self.multiple < 1 or (self.cap is not None and self.cap < self.multiple):
            raise UsageError(
                f"multiple is at least 1 and cap at least that, got {self.multiple} and {self.cap}"
            )

    @property
    def product(self) -> float:
        """What phi = 1 costs, in multiplications, over phi = 0."""
        return self.alpha * self.beta**2 * self.gamma**2


COMPOUND = Rule()
NON_UNIFORM = Rule(cap=480)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What a base network is multiplied by, and the side of its images in pixels."""

    width: float
    depth: float
    late: float  # of the depth of the last two stages, on top
    size: int


def round_channels(channels: float, *, rounding: Rounding = "at-least-0.9") -> int:
    """The nearest multiple of 8, and by the first rule one more where a tenth or more would go.

    The first is EfficientNet's and timm's, `nearest` that of EfficientNetV2's code.
    """
    limit = 0.9 if rounding == "at-least-0.9" else 0.0
    return int(make_divisible(channels, DIVISOR, round_limit=limit))


def round_repeats(layers: int, depth: float) -> int:
    """Layers times the coefficient, rounded up."""
    return max(1, math.ceil(layers * depth))


def scaled(
    arch: Architecture,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    late: float = 1.0,
    rounding: Rounding = "at-least-0.9",
) -> Architecture:
    """The architecture with its widths, stem and head included, and its layers multiplied.

    `late` multiplies the layers of the last two stages on top of `depth`. Raises UsageError where a
    coefficient isn't above 0.
    """
    if not min(width, depth, late) > 0:
        raise UsageError(f"width, depth and late are above 0, got {width}, {depth} and {late}")

    def wide(channels: int) -> int:
        """Rounding never turns wider into narrower, also where channels are no multiple of 8."""
        found = round_channels(channels * width, rounding=rounding)
        return channels if width == 1 else (max if width > 1 else min)(channels, found)

    first_late = len(arch.stages) - LATE
    stages = tuple(
        replace(
            stage,
            width=wide(stage.width),
            layers=round_repeats(stage.layers, depth * late if number >= first_late else depth),
        )
        for number, stage in enumerate(arch.stages)
    )
    return replace(arch, stages=stages, stem=wide(arch.stem), head=wide(arch.head))


def coefficients(phi: float, *, size: int, rule: Rule = COMPOUND) -> Coefficients:
    """What phi comes to for a base network whose images have `size` pixels a side.

    Width, depth and late are rounded to hundredths, so that a name holds them exactly. All of them
    grow with phi.
    """
    start = size if rule.cap is None else min(size, rule.cap)
    wanted = start * rule.gamma**phi
    side = max(rule.multiple * round(wanted / rule.multiple), min(SMALLEST, start))
    side = start if phi == 0 else (max if phi > 0 else min)(start, side)
    late = 1.0
    if rule.cap is not None and side > rule.cap:
        side = max(start, rule.cap // rule.multiple * rule.multiple)
        late = max(1.0, (wanted / side) ** 2)
    return Coefficients(
        width=max(STEP, round(rule.beta**phi, 2)),
        depth=max(STEP, round(rule.alpha**phi, 2)),
        late=round(late, 2),
        size=side,
    )
