"""The EfficientNetV2 space: in each stage the operation, kernel, expansion and number of layers.

Paper: Tan and Le 2021 (arXiv 2104.00298), section 3.3: MBConv or Fused-MBConv, kernel 3 or 5,
expansion 1, 4 or 6, and layers; widths are a known backbone's, here those of the base, as are its
strides, stem, head, activation and padding. Squeeze-and-excitation is what MBConv has and
Fused-MBConv hasn't (table 4), if the base has it at all. The paper doesn't say which numbers of
layers. MnasNet (Tan et al. 2019, arXiv 1807.11626), whose space it starts from, has one less than a
known network, as many, and one more; here a step is a quarter of the layers where they are many,
and two steps more are a choice, too, so that layers that cost less can be more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tutelage.errors import UsageError
from tutelage.networks.efficientnet import Architecture, ConvStage, Operation
from tutelage.networks.published import architecture_of
from tutelage.searching.space import Dimension, Genes, Space

OPERATIONS: tuple[Operation, ...] = ("mbconv", "fused")
KERNELS = (3, 5)
EXPANSIONS = (1, 4, 6)


@dataclass(frozen=True)
class StageSpace(Space):
    """Networks around an EfficientNet; no two choices are the same network."""

    base: str  # a name that networks/published.py knows, such as efficientnetv2_b0-w0.5

    def __post_init__(self) -> None:
        """Reject a base without known stages, and one too narrow for squeeze-and-excitation."""
        stages = len(self._base.stages)
        for expansion in range(len(EXPANSIONS)):  # as the width is given, nothing else matters
            self.architecture((0, 0, expansion, 0) * stages)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Four for each stage."""
        return tuple(
            one for number, stage in enumerate(self._base.stages, 1)
            for one in _dimensions(number, stage)
        )  # fmt: skip

    @property
    def reference(self) -> str:
        """The base."""
        return self.base

    def network(self, genes: Genes) -> str:
        """The network's name, which says all of it."""
        return self.architecture(genes).name

    def architecture(self, genes: Genes) -> Architecture:
        """The network of a choice."""
        base = self._base
        se = next((stage.se for stage in base.stages if stage.se), 0.0)
        fours = [genes[start : start + 4] for start in range(0, len(genes), 4)]
        stages = [_stage(one, four, se) for one, four in zip(base.stages, fours, strict=True)]
        return replace(base, stages=tuple(stages))

    @property
    def _base(self) -> Architecture:
        """The base's stages."""
        found = architecture_of(self.base)
        if found is None:
            raise UsageError(
                f"{self.base} is no EfficientNet whose stages are known: search around one such as "
                "efficientnetv2_b0, efficientnetv2_b0-w0.5 or efficientnet_b0, or around stages of "
                "your own"
            )
        return found


def layers_around(layers: int) -> tuple[int, ...]:
    """One step less than so many layers, as many, and one and two steps more."""
    step = max(1, layers // 4)
    return tuple(count for count in range(layers - step, layers + 2 * step + 1, step) if count)


def _dimensions(number: int, stage: ConvStage) -> Iterator[Dimension]:
    """What is to be chosen in one stage of the base, which counts from 1."""
    yield Dimension(f"stage{number}.operation", OPERATIONS)
    yield Dimension(f"stage{number}.kernel", KERNELS, ordered=True)
    yield Dimension(f"stage{number}.expansion", EXPANSIONS, ordered=True)
    yield Dimension(f"stage{number}.layers", layers_around(stage.layers), ordered=True)


def _stage(base: ConvStage, four: Genes, se: float) -> ConvStage:
    """The base's stage with other options; a base's MBConv keeps its own ratio."""
    operation, kernel, expansion, layers = four
    mbconv = OPERATIONS[operation] == "mbconv"
    return replace(
        base,
        operation=OPERATIONS[operation],
        kernel=KERNELS[kernel],
        expansion=float(EXPANSIONS[expansion]),
        layers=layers_around(base.layers)[layers],
        se=(base.se if base.operation == "mbconv" else se) if mbconv else 0.0,
    )
