"""EfficientNets as values: stages of MBConv and Fused-MBConv, built by timm's own blocks.

Papers: Tan and Le 2019 (arXiv 1905.11946), section 4, for MBConv with squeeze-and-excitation; Tan
and Le 2021 (arXiv 2104.00298), section 3.2 and table 4, for Fused-MBConv. An architecture is
closed: its widths and layers are those that are built, and scaling makes another architecture. Its
name says all of it, so that a name alone is enough to build it again. As in timm, batch norm's
momentum is 0.1 and not the papers' 0.01, and a Fused-MBConv of expansion 1 is one convolution,
which takes no squeeze-and-excitation. Counts of weights and of multiplications follow from the
values alone, which makes thousands of candidates free to compare; tests hold them to the networks
that timm builds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from timm.layers import get_act_layer, make_divisible  # type: ignore[attr-defined]  # not in __all__
from timm.models import EfficientNet
from timm.models._efficientnet_builder import decode_arch_def
from torch import nn

from tutelage.errors import UsageError

Operation = Literal["mbconv", "fused"]
Activation = Literal["silu", "relu", "gelu", "hard_swish", "mish"]
Padding = Literal["symmetric", "same"]
EPSILON = 1e-3  # of batch norm, as published
LETTERS: dict[Operation, str] = {"mbconv": "ir", "fused": "er"}  # timm's
STAGE = re.compile(r"(ir|er)_r(\d+)_k(\d+)_s(\d)_e([\d.]+)_c(\d+)(?:_se([\d.e-]+))?")
EXAMPLE = "efficientnet+stem24+er_r2_k3_s1_e1_c24+ir_r4_k3_s2_e4_c64_se0.25+head256"


@dataclass(frozen=True, kw_only=True)
class ConvStage:
    """Layers of one width; the first of them has the stride."""

    operation: Operation
    layers: int
    width: int  # output channels
    kernel: int = 3  # side in pixels, odd
    stride: int = 1  # 1 or 2
    expansion: float = 1.0  # inner channels over input channels
    se: float = 0.0  # hidden channels of squeeze-and-excitation over the layer's input; 0: none

    def __post_init__(self) -> None:
        """Reject what timm's blocks can't be."""
        if self.operation not in LETTERS:
            raise UsageError(f"a stage's operation is mbconv or fused, got {self.operation!r}")
        for name, value in (("layers", self.layers), ("width", self.width)):
            if value < 1:
                raise UsageError(f"a stage's {name} is at least 1, got {value}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"a stage's kernel is odd, such as 3 or 5, got {self.kernel}")
        if self.stride not in (1, 2):
            raise UsageError(f"a stage's stride is 1 or 2, got {self.stride}")
        if self.expansion < 1 or not 0 <= self.se <= 1:
            raise UsageError(
                f"a stage's expansion is at least 1 and its se 0 to 1, got {self.expansion} "
                f"and {self.se}"
            )
        if self.one_convolution and self.se:
            raise UsageError(
                "a fused stage of expansion 1 is one convolution and takes no se: set se to 0, or "
                "a larger expansion, or operation to mbconv"
            )

    @property
    def one_convolution(self) -> bool:
        """Whether there is nothing to expand and nothing to project."""
        return self.operation == "fused" and self.expansion == 1

    @property
    def text(self) -> str:
        """The stage in timm's letters, such as ir_r4_k3_s2_e4_c64_se0.25."""
        end = f"_se{_number(self.se)}" if self.se else ""
        return f"{LETTERS[self.operation]}_r{self.layers}{self._middle}{end}"

    @property
    def arch_text(self) -> str:
        """The same as timm's builder wants it, where expansion 1 has operations of its own."""
        if self.one_convolution:
            return f"cn_r{self.layers}{self._middle}_skip"
        return re.sub("^ir", "ds", self.text) if self.expansion == 1 else self.text

    @property
    def _middle(self) -> str:
        expansion = _number(self.expansion)
        return f"_k{self.kernel}_s{self.stride}_e{expansion}_c{self.width}"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An EfficientNet: a strided stem, stages, and a last convolution before the pooling."""

    stages: tuple[ConvStage, ...]
    stem: int = 32  # channels
    head: int = 1280  # channels
    activation: Activation = "silu"
    norm_eps: float = EPSILON
    padding: Padding = "symmetric"  # same: TensorFlow's, which puts an odd pixel at the end

    def __post_init__(self) -> None:
        """Reject what timm's builder can't build."""
        if not self.stages:
            raise UsageError(f"an EfficientNet has at least one stage, as in {EXAMPLE}")
        if self.stem < 1 or self.head < 1 or not self.norm_eps > 0:
            raise UsageError(
                f"stem, head and norm_eps are above 0, got {self.stem}, {self.head} and "
                f"{self.norm_eps}"
            )
        if self.activation not in get_args(Activation) or self.padding not in get_args(Padding):
            raise UsageError(
                f"the activation is one of {', '.join(get_args(Activation))} and the padding "
                f"{' or '.join(get_args(Padding))}, got {self.activation!r} and {self.padding!r}"
            )
        for conv in convolutions(self, 1):
            if not conv.outputs:
                raise UsageError(
                    f"se leaves no hidden channel in a layer of {conv.inputs} channels: raise the "
                    "stage's se or width"
                )

    @property
    def name(self) -> str:
        """All of it in one word, which is a network's name on every verb."""
        parts = ["efficientnet", f"stem{self.stem}"]
        parts += [stage.text for stage in self.stages]
        parts += [f"head{self.head}"]
        if self.activation != "silu":
            parts.append(self.activation)
        if self.norm_eps != EPSILON:
            parts.append(f"eps{_number(self.norm_eps)}")
        if self.padding != "symmetric":
            parts.append(self.padding)
        return "+".join(parts)

    @property
    def reduction(self) -> int:
        """Pixels of an image for each position of the last feature map."""
        return 2 * 2 ** sum(stage.stride == 2 for stage in self.stages)

    def build(
        self, *, num_classes: int = 1000, drop_rate: float = 0.0, drop_path_rate: float = 0.0
    ) -> nn.Module:
        """timm's EfficientNet with weights from torch's global generator."""
        stages = [[stage.arch_text] for stage in self.stages]
        module: nn.Module = EfficientNet(
            decode_arch_def(stages),  # anew each time: timm's builder eats it
            num_classes=num_classes,
            num_features=self.head,
            stem_size=self.stem,
            round_chs_fn=int,  # widths are as they are to be
            act_layer=get_act_layer(self.activation),
            norm_layer=partial(nn.BatchNorm2d, eps=self.norm_eps),
            pad_type="same" if self.padding == "same" else "",
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )
        return module


def parse_architecture(text: str) -> Architecture:
    """The architecture of a name that begins with `efficientnet+`.

    Raises UsageError where a part can't be read, or the same network has another name: there is one
    name for each.
    """
    stages: list[ConvStage] = []
    numbers = {"stem": 32.0, "head": 1280.0, "eps": EPSILON}
    activation: Activation = "silu"
    padding: Padding = "symmetric"
    for part in text.split("+")[1:]:
        number = re.fullmatch(r"(stem|head|eps)(\d[\d.e-]*)", part)
        words = [word for word in get_args(Activation) if word == part]
        if number:
            numbers[number[1]] = _float(number[2], text)
        elif words:
            activation = words[0]
        elif part == "same":
            padding = "same"
        else:
            stages.append(parse_stage(part))
    arch = Architecture(
        stages=tuple(stages), stem=int(numbers["stem"]), head=int(numbers["head"]),
        activation=activation, norm_eps=numbers["eps"], padding=padding,
    )  # fmt: skip
    if arch.name != text:
        raise UsageError(f"{text} is not how a network is called: write {arch.name}")
    return arch


def parse_stage(text: str) -> ConvStage:
    """The stage of timm's letters; raises UsageError where it can't be read."""
    found = STAGE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is no stage of an EfficientNet: write ir (MBConv) or er (Fused-MBConv), "
            "then layers, kernel, stride, expansion, width and, where there is one, se, as in "
            f"{EXAMPLE}"
        )
    letters, layers, kernel, stride, expansion, width, se = found.groups()
    return ConvStage(
        operation="mbconv" if letters == "ir" else "fused",
        layers=int(layers),
        width=int(width),
        kernel=int(kernel),
        stride=int(stride),
        expansion=_float(expansion, text),
        se=_float(se or "0", text),
    )


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One convolution, or a linear layer as one on a single position."""

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    pooled: bool = False  # acts on channels' means, with a bias; others have a batch norm

    @property
    def weights(self) -> int:
        """Without bias and batch norm."""
        return self.kernel**2 * self.outputs * (1 if self.depthwise else self.inputs)


def convolutions(arch: Architecture, num_classes: int) -> Iterator[Convolution]:
    """All layers that have weights, in order."""
    yield Convolution(inputs=3, outputs=arch.stem, kernel=3, stride=2)
    width = arch.stem
    for stage in arch.stages:
        for number in range(stage.layers):
            yield from _block(stage, width, stage.stride if number == 0 else 1)
            width = stage.width
    yield Convolution(inputs=width, outputs=arch.head)
    yield Convolution(inputs=arch.head, outputs=num_classes, pooled=True)


def _block(stage: ConvStage, width: int, stride: int) -> Iterator[Convolution]:
    """The layers of one MBConv or Fused-MBConv with that many input channels."""
    kernel, fused = stage.kernel, stage.operation == "fused"
    if stage.one_convolution:
        yield Convolution(inputs=width, outputs=stage.width, kernel=kernel, stride=stride)
        return
    inner = width if stage.expansion == 1 else make_divisible(width * stage.expansion)
    if fused:
        yield Convolution(inputs=width, outputs=inner, kernel=kernel, stride=stride)
    else:
        if stage.expansion != 1:
            yield Convolution(inputs=width, outputs=inner)
        yield Convolution(inputs=inner, outputs=inner, kernel=kernel, stride=stride, depthwise=True)
    if stage.se:
        hidden = round(inner * (stage.se / stage.expansion))  # as timm rounds
        yield Convolution(inputs=inner, outputs=hidden, pooled=True)
        yield Convolution(inputs=hidden, outputs=inner, pooled=True)
    yield Convolution(inputs=inner, outputs=stage.width)


def num_parameters(arch: Architecture, num_classes: int = 1000) -> int:
    """Weights of the network, without batch norm's statistics."""
    layers = convolutions(arch, num_classes)
    return sum(one.weights + one.outputs * (1 if one.pooled else 2) for one in layers)


def num_macs(arch: Architecture, size: int, num_classes: int = 1000) -> int:
    """Multiplications of convolutions and linear layers for an image of `size` pixels a side."""
    total, side = 0, size
    for one in convolutions(arch, num_classes):
        side = -(-side // one.stride)
        total += one.weights * (1 if one.pooled else side**2)
    return total


def _number(value: float) -> str:
    """A number that reads back as the same."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _float(text: str, where: str) -> float:
    """The number; raises UsageError where it is none."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} in {where!r} is no number") from None
