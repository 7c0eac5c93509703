"""Wide residual networks for images of 32 pixels, which timm lacks.

Paper: Zagoruyko and Komodakis 2016 (arXiv 1605.07146), table 1: pre-activation blocks of two 3x3
convolutions in three groups of (depth - 4) / 6, with 16k, 32k and 64k channels, of which the second
and the third halve the map; section 2.4: dropout between a block's convolutions. As in the authors'
code, a shortcut that changes the shape is a 1x1 convolution behind the block's first activation.
Stochastic depth and dropout before the classifier are this package's, and 0 unless asked for.
"""

import re
from dataclasses import dataclass
from typing import Any

from timm.layers import (  # type: ignore[attr-defined]  # not in __all__
    BatchNormAct2d,
    DropPath,
    create_classifier,
)
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.networks.first_weights import draw_weights

NAME = re.compile(r"wrn-(\d+)-(\d+)(?:-p(0\.\d+))?")
STEM = 16  # channels


@dataclass(frozen=True, kw_only=True)
class WideShape:
    """What a name says: `wrn-28-10`, or `wrn-28-10-p0.3` with dropout in the blocks."""

    depth: int  # convolutions on the way, the paper's n
    widen: int  # the paper's k
    dropout: float = 0.0  # within the blocks

    def __post_init__(self) -> None:
        """Reject depths that don't part into blocks."""
        if self.depth < 10 or self.depth % 6 != 4 or self.widen < 1:
            below = max(10, (self.depth - 4) // 6 * 6 + 4)
            raise UsageError(
                f"wrn-{self.depth}-{self.widen}: the depth of a wide residual network is 6n + 4 "
                f"and its width at least 1: try wrn-{below}-{max(1, self.widen)} or "
                f"wrn-{below + 6}-{max(1, self.widen)}"
            )

    @property
    def blocks(self) -> int:
        """Of each of the three groups."""
        return (self.depth - 4) // 6

    def build(
        self, *, num_classes: int = 1000, drop_rate: float = 0.0, drop_path_rate: float = 0.0
    ) -> nn.Module:
        """The network with weights from torch's global generator."""
        return WideResNet(self, num_classes, drop_rate=drop_rate, drop_path_rate=drop_path_rate)


def parse_wide(name: str) -> WideShape | None:
    """The shape of a name such as wrn-28-10; None for others.

    Raises UsageError for a depth that isn't 6n + 4.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    return WideShape(depth=int(match[1]), widen=int(match[2]), dropout=float(match[3] or 0))


class WideBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-dropout-conv, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        """Make the layers; the shortcut has weights where the number of channels changes."""
        super().__init__()
        self.norm1 = BatchNormAct2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = BatchNormAct2d(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.drop_path: nn.Module = nn.Identity()
        self.shortcut: nn.Module | None = None
        if inputs != outputs or stride > 1:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) -> (B, C', H', W')."""
        out = self.norm1(x)
        beside = x if self.shortcut is None else self.shortcut(out)
        out = self.conv2(self.dropout(self.norm2(self.conv1(out))))
        sum_: Tensor = beside + self.drop_path(out)
        return sum_


def _group(shape: WideShape, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    """The blocks of one width; the first of them has the stride."""
    first = WideBlock(inputs, outputs, stride=stride, dropout=shape.dropout)
    others = [
        WideBlock(outputs, outputs, stride=1, dropout=shape.dropout)
        for _ in range(shape.blocks - 1)
    ]
    return nn.Sequential(first, *others)


class WideResNet(nn.Module):
    """A wide residual network, with the methods that timm's networks have."""

    def __init__(
        self, shape: WideShape, num_classes: int, *, drop_rate: float, drop_path_rate: float
    ) -> None:
        """Make the layers; stochastic depth grows linearly over the blocks."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
        widths = [STEM * 2**group * shape.widen for group in range(3)]
        self.feature_info = [
            {"num_chs": width, "reduction": 2**group, "module": f"layer{group + 1}"}
            for group, width in enumerate(widths)
        ]
        inputs = (STEM, *widths)
        self.layer1 = _group(shape, *inputs[0:2], stride=1)
        self.layer2 = _group(shape, *inputs[1:3], stride=2)
        self.layer3 = _group(shape, *inputs[2:4], stride=2)
        last = widths[-1]
        self.norm = BatchNormAct2d(last)
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, last, last
        self.global_pool, self.fc = create_classifier(last, num_classes)
        self.head_drop = nn.Dropout(drop_rate)
        self._set_drop_path(drop_path_rate)
        draw_weights(self)

    def _set_drop_path(self, rate: float) -> None:
        """Rates from 0 at the first block to `rate` at the last."""
        blocks = [layer for layer in self.modules() if isinstance(layer, WideBlock)]
        for number, block in enumerate(blocks):
            if rate and number:
                block.drop_path = DropPath(rate * number / (len(blocks) - 1))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> feature maps (B, C, H / 4, W / 4)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        maps: Tensor = self.norm(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps -> logits (B, K), or the features (B, C) before them."""
        x = self.head_drop(self.global_pool(x))
        logits: Tensor = x if pre_logits else self.fc(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, K)."""
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of weights' names, from the input on, as timm's networks give them."""
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1", "blocks": [(blocks, None), (r"^norm", (99999,))]}

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer; none for 0 classes."""
        self.num_classes = num_classes
        device = self.conv1.weight.device
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, device=device)
