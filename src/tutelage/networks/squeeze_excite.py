"""Squeeze-and-excitation on any convolutional network: a gate for each channel, from their means.

Paper: Hu et al. 2018 (arXiv 1709.01507), equations 2 to 4, without biases, as in its count of
parameters (equation 5). Where it goes: see se_sites.py. Not in the paper: the gate "twice" is
2 sigmoid(.) with a last layer of zeros, which is exactly 1 before training, so that a network with
learned weights begins as it is; the paper's gate would halve each map.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from timm.layers.squeeze_excite import SEModule, SqueezeExciteCl
from torch import Tensor, nn

from tutelage.networks import names
from tutelage.networks.dataflow import flow_of
from tutelage.networks.places import CHILD
from tutelage.networks.se_sites import Site, Where, sites_in
from tutelage.settings import at_least

Gate = Literal["sigmoid", "twice"]


@dataclass(frozen=True, kw_only=True)
class SE:
    """Everything that `attach_se` needs to do the same again."""

    reduction: int = 16  # r: a gate has C // r hidden units
    where: str = "auto"  # or a pattern of layers' names
    gate: Gate = "sigmoid"
    bias: bool = False


class Twice(nn.Module):
    """2 sigmoid(x), which is 1 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, between 0 and 2."""
        return 2 * x.sigmoid()


def attach_se(
    module: nn.Module, *, reduction: int = 16, where: Where = "auto", gate: Gate = "sigmoid",
    bias: bool = False,
) -> list[Site]:  # fmt: skip
    """Give a network gates, in place; returns where. Names of weights that it has stay.

    `where`: auto, a pattern of layers' names, or a function of name and layer. Raises UsageError
    where there are no such maps, and where the network weighs its channels already.
    """
    at_least("reduction", reduction, 1)
    sites = sites_in(flow_of(module), where, type(module).__name__)
    put(module, sites, SE(reduction=reduction, gate=gate, bias=bias))
    return list(sites)


@cache
def sites_of(name: str, where: str) -> tuple[Site, ...]:
    """The sites in the network of that name; raises what `attach_se` raises."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        net = names.create(name, {})
    return sites_in(flow_of(net), where, name)


def put(net: nn.Module, sites: tuple[Site, ...], se: SE) -> None:
    """Gates at these layers, on their device and with their kind of numbers."""
    options: dict[str, Any] = {"bias": se.bias}
    if se.gate == "twice":
        options["gate_layer"] = Twice
    for site in sites:
        layer = net.get_submodule(site.path)
        kind = SqueezeExciteCl if site.channels_last else SEModule
        near = next(layer.parameters(), next(net.parameters()))
        options |= {"device": near.device, "dtype": near.dtype}
        made = kind(site.channels, rd_channels=max(1, site.channels // se.reduction), **options)
        if se.gate == "twice":
            nn.init.zeros_(made.fc2.weight)
            if made.fc2.bias is not None:
                nn.init.zeros_(made.fc2.bias)
        layer.add_module(CHILD, made.train(layer.training))
        layer.register_forward_hook(_gate)


def _gate(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """A site's output through the gate: a hook, so that the layer itself stays what it was."""
    made: Tensor = layer._modules[CHILD](output)  # type: ignore[misc]  # as `put` has put it
    return made


def gates_in(net: nn.Module) -> list[str]:
    """Paths of the gates that were attached, such as layer1.0.bn3.se."""
    return [
        f"{path}.{CHILD}" if path else CHILD
        for path, layer in net.named_modules()
        if _gate in layer._forward_hooks.values()
    ]
