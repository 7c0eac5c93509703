"""DropBlock: in training, squares of each channel of a feature map are 0.

Paper: Ghiasi, Lin and Le 2018 (arXiv 1810.12890), algorithm 1 and equation 1; every channel has a
mask of its own, as there. From the authors' code: the rate of the last-but-one feature maps is a
quarter, and a block is at most as large as the map. Deviations: it acts on what a residual block
adds up to, and on the output of a stage in networks without residual blocks, instead of on each
convolution and skip connection; and the rate is constant until it is set anew, so that the paper's
growing rate is had by setting it from stage to stage of a training.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

BLOCK = 7  # side of a dropped square, the paper's block_size
SHARES = (1.0, 0.25)  # of the rate, for the smallest feature maps and for the next larger ones


def gamma(rate: float, block: int, height: int, width: int) -> float:
    """Probability that a square begins at a position, so that `rate` of the map is dropped."""
    positions = (height - block + 1) * (width - block + 1)
    return rate * height * width / (block * block * positions)


def drop_block(maps: Tensor, rate: float) -> Tensor:
    """Feature maps (B, C, H, W) with squares at 0, and the rest scaled up to keep the mean.

    Drawn from torch's global generator of the maps' device.
    """
    height, width = maps.shape[-2:]
    block = min(BLOCK, height, width)
    free = (*maps.shape[:2], height - block + 1, width - block + 1)  # the square fits in the map
    starts = torch.empty(free, dtype=maps.dtype, device=maps.device)
    starts.bernoulli_(gamma(rate, block, height, width))
    padded = functional.pad(starts, [block - 1] * 4)
    kept = 1 - functional.max_pool2d(padded, block, stride=1)
    share = kept.mean(dtype=torch.float32).clamp_(min=1 / kept.numel())
    return maps * kept * share.reciprocal().to(maps.dtype)


class DropBlock:
    """A forward hook: it adds nothing to a network's weights, names or children."""

    handle: RemovableHandle

    def __init__(self, rate: float, owner: nn.Module) -> None:
        """Drop while `owner` is in train mode: what holds the layer, which may be a batch norm
        whose own mode is about statistics."""
        self.rate, self.owner = rate, owner

    def __call__(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """The layer's output (B, C, H, W), with squares dropped in training."""
        return drop_block(output, self.rate) if self.owner.training else output


def attach(net: nn.Module, rate: float, sites: dict[str, float]) -> None:
    """Drop blocks at these layers from now on, at their shares of the rate, and nowhere else."""
    hooks = [hook for layer in net.modules() for hook in layer._forward_hooks.values()]
    for hook in hooks:
        if isinstance(hook, DropBlock):
            hook.handle.remove()
    for path, share in sites.items() if rate else ():
        owner = net.get_submodule(path.rpartition(".")[0])
        new = DropBlock(rate * share, owner)
        new.handle = net.get_submodule(path).register_forward_hook(new)


def find_sites(net: nn.Module, blocks: Iterable[str], side: int) -> dict[str, float]:
    """Layers with the smallest and the next larger feature maps, with their shares of the rate.

    `blocks` are the residual blocks; where they don't give maps of two sizes, down to those of
    timm's last stage, the stages are taken. The network is on the meta device, and is asked an
    image of `side` pixels. Empty where it ends in no feature maps.
    """
    info = vars(net).get("feature_info") or ()
    stages = {one["reduction"]: one["module"] for one in info}
    smallest = side / max(stages, default=1)
    layers = dict(net.named_modules())
    chosen: dict[str, int] = {}
    for names in (blocks, stages.values()):
        if len(set(chosen.values())) < len(SHARES):
            found = _sides(net, {name: layers[name] for name in names if name in layers}, side)
            if min(found.values(), default=side) < smallest + 1:  # sides are rounded up
                chosen = found
    levels = sorted(set(chosen.values()))[: len(SHARES)]
    return {p: SHARES[levels.index(s)] for p, s in chosen.items() if s in levels}


def _sides(net: nn.Module, layers: dict[str, nn.Module], side: int) -> dict[str, int]:
    """Sides of the square feature maps (1, C, S, S) that these layers put out."""
    found: dict[str, int] = {}

    def watch(name: str) -> RemovableHandle:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                channels, height, width = output.shape[1:]
                if height == width != channels:  # channels last: height == channels by no network
                    found[name] = height

        return layers[name].register_forward_hook(hook)

    handles = [watch(name) for name in layers]
    try:
        with torch.device("meta"):
            net.eval()(torch.zeros(1, 3, side, side))
    except (AssertionError, RuntimeError, TypeError, ValueError):
        return {}
    finally:
        for handle in handles:
            handle.remove()
    return found
