"""DenseNets for images of 32 pixels, which timm lacks: plain and, with bottlenecks, BC.

Paper: Huang et al. 2017 (arXiv 1608.06993), section 3 and table 2: three dense blocks behind a 3x3
convolution, (L - 4) / 3 layers in each, or (L - 4) / 6 with a bottleneck of 4k channels; plain ones
begin with 16 channels and keep all of them between blocks, BC with 2k and half of them. Dropout of
0.2 where images are not augmented (section 4.2) is `-p0.2` in the name; it acts, as in timm, behind
a layer's last convolution, in the paper behind each but the first. From the authors' code: weights
are drawn by fan-out. Blocks, bottlenecks and transitions are timm's.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import (  # type: ignore[attr-defined]  # not in __all__
    BatchNormAct2d,
    create_classifier,
)
from timm.models.densenet import DenseBlock, DenseLayer, DenseTransition
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.networks.first_weights import draw_weights

NAME = re.compile(r"densenet-(bc-)?(\d+)-(\d+)(?:-p(0\.\d+))?")
AFTER = (99999,)  # in the group of what comes before it, as timm marks it
BOTTLENECK = 4  # channels between the convolutions of a layer, over its growth
PLAIN_STEM = 16  # channels


@dataclass(frozen=True, kw_only=True)
class DenseShape:
    """What a name says: `densenet-40-12`, `densenet-bc-100-12`, or with -p0.2 for dropout."""

    depth: int  # convolutions on the way and the classifier, the paper's L
    growth: int  # channels that a layer adds, the paper's k
    bottleneck: bool = False  # BC: bottlenecks, and transitions that halve the channels
    dropout: float = 0.0  # behind each layer

    def __post_init__(self) -> None:
        """Reject depths that don't part into blocks."""
        per = 6 if self.bottleneck else 3
        if self.layers < 1 or (self.depth - 4) % per or self.growth < 1:
            kind = "-bc" if self.bottleneck else ""
            below = max(4 + per, (self.depth - 4) // per * per + 4)
            growth = max(1, self.growth)
            raise UsageError(
                f"densenet{kind}-{self.depth}-{self.growth}: the depth is {per}n + 4 and the "
                f"growth at least 1: try densenet{kind}-{below}-{growth} or "
                f"densenet{kind}-{below + per}-{growth}"
            )

    @property
    def layers(self) -> int:
        """Of each of the three blocks."""
        return (self.depth - 4) // (6 if self.bottleneck else 3)

    def build(
        self, *, num_classes: int = 1000, drop_rate: float = 0.0, drop_path_rate: float = 0.0
    ) -> nn.Module:
        """The network with weights from torch's global generator.

        Raises TypeError for stochastic depth: there is no residual branch to leave out.
        """
        if drop_path_rate:
            raise TypeError("a DenseNet has no drop_path_rate")
        return SmallDenseNet(self, num_classes, drop_rate=drop_rate)


def parse_dense(name: str) -> DenseShape | None:
    """The shape of a name such as densenet-bc-100-12; None for others.

    Raises UsageError for a depth that doesn't part into three blocks.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    return DenseShape(
        depth=int(match[2]),
        growth=int(match[3]),
        bottleneck=bool(match[1]),
        dropout=float(match[4] or 0),
    )


class PlainLayer(nn.Module):
    """BN-ReLU-conv on all maps so far, which timm has with a bottleneck alone."""

    def __init__(self, inputs: int, growth: int, *, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1 = BatchNormAct2d(inputs)
        self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Feature maps, each (B, C, H, W) -> the new ones (B, k, H, W)."""
        new: Tensor = self.dropout(self.conv1(self.norm1(torch.cat(maps, 1))))
        return new


class SmallDenseNet(nn.Module):
    """A DenseNet without a stride in its stem, with the methods that timm's networks have."""

    def __init__(self, shape: DenseShape, num_classes: int, *, drop_rate: float) -> None:
        """Make the layers."""
        super().__init__()
        width = 2 * shape.growth if shape.bottleneck else PLAIN_STEM
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, width, 3, padding=1, bias=False))
        self.feature_info: list[dict[str, Any]] = []
        for number in range(1, 4):
            self.features.add_module(f"denseblock{number}", _block(shape, width))
            width += shape.layers * shape.growth
            place = f"features.denseblock{number}" if number < 3 else "features.norm5"
            reduction = 2 ** (number - 1)
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": place})
            if number < 3:
                kept = width // 2 if shape.bottleneck else width
                self.features.add_module(f"transition{number}", DenseTransition(width, kept))
                width = kept
        self.features.add_module("norm5", BatchNormAct2d(width))
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, width, width
        self.global_pool, self.classifier = create_classifier(width, num_classes)
        self.head_drop = nn.Dropout(drop_rate)
        draw_weights(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> feature maps (B, C, H / 4, W / 4)."""
        maps: Tensor = self.features(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps -> logits (B, K), or the features (B, C) before them."""
        x = self.head_drop(self.global_pool(x))
        logits: Tensor = x if pre_logits else self.classifier(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, K)."""
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of weights' names, from the input on, as timm's networks give them."""
        block = r"^features\.(?:denseblock|transition)(\d+)"
        layers = [
            (r"^features\.denseblock(\d+)\.denselayer(\d+)", None),
            (r"^features\.transition(\d+)", AFTER),
        ]
        blocks = [(block, None)] if coarse else layers
        return {"stem": r"^features\.conv0", "blocks": [*blocks, (r"^features\.norm5", AFTER)]}

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer; none for 0 classes."""
        self.num_classes = num_classes
        device = next(self.parameters()).device
        self.global_pool, self.classifier = create_classifier(
            self.num_features, num_classes, device=device
        )


def _block(shape: DenseShape, width: int) -> DenseBlock:
    """A dense block behind `width` channels."""
    block = DenseBlock(0, width, BOTTLENECK, shape.growth)
    for number in range(shape.layers):
        inputs = width + number * shape.growth
        layer: nn.Module
        if shape.bottleneck:
            layer = DenseLayer(inputs, shape.growth, BOTTLENECK, drop_rate=shape.dropout)
        else:
            layer = PlainLayer(inputs, shape.growth, dropout=shape.dropout)
        block.add_module(f"denselayer{number + 1}", layer)
    return block
