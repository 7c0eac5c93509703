"""From a budget to an EfficientNet: weights, multiplications, or the measured time of a step.

Paper: Tan and Le 2019 (arXiv 1905.11946), section 3.3, which solves for phi by the formula of its
costs. Layers and channels are whole numbers, so that here phi is found on the costs themselves;
then width, depth and image side go on one step at a time, the one that lags behind most first,
until no step fits into the budget.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from tutelage.errors import UsageError
from tutelage.networks.efficientnet import Architecture, num_macs, num_parameters
from tutelage.networks.published import architecture_of, rounding_of, size_of
from tutelage.networks.scaling import COMPOUND, STEP, Rule, coefficients, scaled

TOLERANCE = 0.01  # of phi
FARTHEST = 40.0  # of phi from 0: a width of 0.02 or 45 times the base's
LONGEST = 200  # steps of a coefficient until layers or channels change


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A network scaled from a base: a plain value, whose name is a network's name on every verb."""

    base: str  # a published EfficientNet's name, or stages
    size: int  # pixels of the images' side
    width: float = 1.0
    depth: float = 1.0
    late: float = 1.0  # of the layers of the last two stages, on top of depth
    num_classes: int = 1000

    @property
    def name(self) -> str:
        """The base with its coefficients, such as efficientnetv2_s-w0.83-d0.7."""
        ends = (("w", self.width), ("d", self.depth), ("l", self.late))
        return self.base + "".join(f"-{key}{value:g}" for key, value in ends if value != 1)

    @property
    def architecture(self) -> Architecture:
        """What is built."""
        return scaled(
            base_of(self.base), width=self.width, depth=self.depth, late=self.late,
            rounding=rounding_of(self.base),
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Weights."""
        return num_parameters(self.architecture, self.num_classes)

    @property
    def macs(self) -> int:
        """Multiplications for one image."""
        return num_macs(self.architecture, self.size, self.num_classes)

    def __str__(self) -> str:
        """The name, and what it costs."""
        return (
            f"{self.name} at {self.size} px: {self.parameters:,} parameters, "
            f"{self.macs / 1e9:.3g} G multiplications"
        )


Cost = Callable[[Scaled], float]


def base_of(name: str) -> Architecture:
    """The EfficientNet of a name; raises UsageError for another network."""
    arch = architecture_of(name)
    if arch is None:
        raise UsageError(
            f"{name} is no EfficientNet whose stages are known: scale one such as efficientnet_b0 "
            "or tf_efficientnetv2_s, or stages of your own"
        )
    return arch


def scale(
    base: str, phi: float, *, size: int | None = None, rule: Rule = COMPOUND,
    num_classes: int = 1000,
) -> Scaled:  # fmt: skip
    """The base at phi; 0 is itself. `size` is the base's, by default the published one.

    Raises UsageError where the base is no EfficientNet.
    """
    base_of(base)
    found = coefficients(phi, size=size or size_of(base), rule=rule)
    return Scaled(
        base=base, size=found.size, width=found.width, depth=found.depth, late=found.late,
        num_classes=num_classes,
    )  # fmt: skip


def scale_to(
    base: str,
    budget: float,
    *,
    of: Literal["parameters", "macs"] | Cost = "parameters",
    rule: Rule = COMPOUND,
    num_classes: int = 1000,
) -> Scaled:
    """The largest network scaled from the base that costs at most `budget`.

    `of` is what costs: its weights, its multiplications for an image, or any function of a `Scaled`
    that grows with it, such as the measured seconds of a training step; each network is asked once.
    Raises UsageError where even the smallest costs more, or the budget is beyond all scaling.
    """
    base_of(base)
    if not budget > 0:
        raise UsageError(f"a budget is above 0, got {budget}")
    known: dict[Scaled, float] = {}

    def cost(one: Scaled) -> float:
        if one not in known:
            known[one] = _counted(of, one)
            if not known[one] > 0:
                raise UsageError(f"a cost is above 0, got {known[one]} for {one.name}")
        return known[one]

    def at(phi: float) -> Scaled:
        return scale(base, phi, rule=rule, num_classes=num_classes)

    with_size = of != "parameters"
    found = _largest(at, cost, budget, rule.product if with_size else rule.alpha * rule.beta**2)
    first = size_of(base)
    while True:
        steps = [one for one in _steps(found, first, rule, with_size) if cost(one[1]) <= budget]
        if not steps:
            return found
        found = min(steps, key=lambda one: one[0])[1]


def _counted(of: Literal["parameters", "macs"] | Cost, one: Scaled) -> float:
    """What the network costs."""
    if of == "parameters":
        return one.parameters
    return one.macs if of == "macs" else of(one)


def _largest(at: Callable[[float], Scaled], cost: Cost, budget: float, product: float) -> Scaled:
    """The network of the largest phi that fits, from a first guess by the formula."""
    whole = cost(at(0))
    guess = math.log(budget / whole) / math.log(product) if whole < math.inf else 0.0
    low = min(max(guess, -FARTHEST), FARTHEST)
    while cost(at(low)) > budget:
        if low <= -FARTHEST:
            raise UsageError(
                f"even {at(low)} costs {cost(at(low)):g}, above the budget of {budget:g}: take a "
                "smaller base, fewer classes or a larger budget"
            )
        low = max(low - 1, -FARTHEST)
    high = low + 1
    while cost(at(high)) <= budget:
        if high >= FARTHEST:
            raise UsageError(f"a budget of {budget:g} is beyond all scaling: take a larger base")
        low, high = high, high + 1
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(at(middle)) <= budget else (low, middle)
    return at(low)


def _steps(one: Scaled, first: int, rule: Rule, with_size: bool) -> list[tuple[float, Scaled]]:
    """The next larger networks in width, depth and image side, each with the phi it amounts to."""
    arch, steps = one.architecture, []
    for name, factor in (("width", rule.beta), ("depth", rule.alpha)):
        for count in range(1, LONGEST + 1):
            value = round((one.width if name == "width" else one.depth) + count * STEP, 2)
            larger = replace(one, width=value) if name == "width" else replace(one, depth=value)
            if larger.architecture != arch:
                steps.append((math.log(value) / math.log(factor), larger))
                break
    side = (one.size // rule.multiple + 1) * rule.multiple
    if with_size and (rule.cap is None or side <= rule.cap):
        steps.append((math.log(side / first) / math.log(rule.gamma), replace(one, size=side)))
    return steps
