"""The network that all arms train: timm's test_resnet with its stem's strides taken out, or one
that begins with published weights.

tutelage does that to `--model test_resnet` at 32 pixels, where the published network would leave a
last map of one position. Here it is a timm model of its own, so that peers which build by timm's
names train the same layers. Needs timm alone.
"""

import timm
import torch
from safetensors.torch import load_file
from timm.models import register_model
from torch import Tensor, nn

NETWORK = "peers_resnet"
PUBLISHED = "tf_efficientnet_lite0"  # timm's name
MEAN = STD = (0.5, 0.5, 0.5)  # both networks' own, for images in [0, 1]


@register_model
def peers_resnet(pretrained: bool = False, **options: object) -> nn.Module:
    """test_resnet for images of 32 pixels: its last map has a side of 4."""
    if pretrained:
        raise ValueError(f"{NETWORK} has no weights: all arms begin with new ones")
    model = timm.create_model("test_resnet", **options)
    model.maxpool = nn.Identity()
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride[0] > 1)
    first.stride = (1, 1)
    return model


def network(
    num_classes: int, *, dropout: float = 0.0, drop_path: float = 0.0, weights: str = ""
) -> nn.Module:
    """New weights, or published ones under a new classifier; with no class, features alone."""
    noise = {"drop_rate": dropout, "drop_path_rate": drop_path}
    if not weights:
        return timm.create_model(NETWORK, num_classes=num_classes, **noise)
    model = timm.create_model(PUBLISHED, **noise)
    model.load_state_dict(load_file(weights))
    model.reset_classifier(num_classes)
    return model


def normalized(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as the network expects them."""
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
