"""The weights that networks for 32 pixels begin with."""

from torch import nn


def draw_weights(net: nn.Module) -> None:
    """Convolutions by He et al. 2015's normal distribution (arXiv 1502.01852), by fan-out, and the
    classifier's biases 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
