"""Dropout, stochastic depth and DropBlock of a network, set and set anew without rebuilding it.

Papers: stochastic depth, Huang et al. 2016 (arXiv 1603.09382), with rates that grow linearly over
the blocks; DropBlock, see drop_block.py. Which layers a family of networks has for them, and how
rates grow over its blocks, is timm's own answer: two weightless copies with different rates are
compared, and what differs is what the option governs. So a network that is set equals one that is
built with the rate. Networks that timm doesn't know by name, or that were changed since, get rates
from 0 to the given one over their residual blocks.
"""

import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from timm.layers import DropPath  # type: ignore[attr-defined]  # not in its __all__
from torch import nn

from tutelage.errors import UsageError
from tutelage.networks import names
from tutelage.networks.drop_block import attach, find_sites
from tutelage.settings import between

Option = Literal["drop_rate", "drop_path_rate"]
FLAGS = {  # by timm's name
    "drop_rate": "--noise.dropout", "drop_path_rate": "--noise.drop-path",
    "drop_block": "--noise.drop-block",
}  # fmt: skip
SIDE = 224  # pixels, where a network doesn't say what it is made for


@dataclass(frozen=True)
class Spot:
    """A number that an option governs."""

    path: str  # of the layer that holds the number
    name: str  # such as p, drop_prob or drop_rate
    value: float
    layer: nn.Module | None  # to put in the place of an nn.Identity or None; None: none fits


def set_noise(
    module: nn.Module,
    *,
    dropout: float | None = None,
    drop_path: float | None = None,
    drop_block: float | None = None,
) -> None:
    """Set dropout before the classifier, stochastic depth at the last block, and the share of
    feature maps that DropBlock drops; None leaves as it is. Weights, their names and the mode stay.

    Raises UsageError where a rate is not 0 to 1, or the network can't take it.
    """
    for name, rate in (("dropout", dropout), ("drop_path", drop_path), ("drop_block", drop_block)):
        if rate is not None:
            between(name, rate, 0, 1)
    net = _inner(module)
    if dropout is not None:
        _set_rate(net, "drop_rate", dropout)
    if drop_path is not None:
        _set_rate(net, "drop_path_rate", drop_path)
    if drop_block is not None:
        sites = _sites(net)
        if drop_block and not sites:
            raise _refusal(net, "drop_block")
        attach(net, drop_block, sites)


def _inner(module: nn.Module) -> nn.Module:
    """timm's network in it, or the module itself."""
    inside = (one for one in module.modules() if "pretrained_cfg" in vars(one))
    return next(inside, module)


def _name(net: nn.Module) -> str:
    """timm's name of the network; '' where it has none, or other residual blocks than that name."""
    name = (vars(net).get("pretrained_cfg") or {}).get("architecture") or ""
    if not names.is_model(name) or set(_slots(net)) != _slots_of(name):
        return ""
    return name


def refusal(name: str, option: str) -> UsageError:
    """A network can't take one of `FLAGS`."""
    return UsageError(f"{name} can't take {FLAGS[option]}: leave it out, or set it to 0")


def _refusal(net: nn.Module, option: str) -> UsageError:
    return refusal(_name(net) or type(net).__name__, option)


def _set_rate(net: nn.Module, option: Option, rate: float) -> None:
    """Dropout or stochastic depth."""
    name = _name(net)
    spots = _spots_of(name, option, rate) if name else _usual_spots(net, option, rate)
    if rate and not (spots and all(_fits(net, spot) for spot in spots)):
        raise _refusal(net, option)
    for spot in spots:
        if _fits(net, spot):
            _put(net, spot)


def _at(net: nn.Module, path: str) -> nn.Module | None:
    """The layer there; None where there is none, or None stands there."""
    try:
        return net.get_submodule(path)
    except AttributeError:
        return None


def _fits(net: nn.Module, spot: Spot) -> bool:
    """Whether the number can be set: in the layer that is there, or in one put there for it."""
    found = _at(net, spot.path)
    if found is not None and spot.name in vars(found):
        return True
    parent, _, key = spot.path.rpartition(".")
    owner = _at(net, parent)
    empty = owner is not None and (key in owner._modules or key in vars(owner))
    return empty and spot.layer is not None and isinstance(found, nn.Identity | None)


def _put(net: nn.Module, spot: Spot) -> None:
    """Set the number, in a new layer without weights where it takes one."""
    found = _at(net, spot.path)
    if found is None or spot.name not in vars(found):
        if not spot.value:
            return
        parent, _, key = spot.path.rpartition(".")
        owner = net.get_submodule(parent)
        found = copy.deepcopy(spot.layer)
        assert found is not None  # as _fits has found
        setattr(owner, key, found.train(owner.training))
    setattr(found, spot.name, spot.value)


def _twin(name: str, options: dict[str, Any]) -> nn.Module:
    """The network of that name without weights; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return names.create(name, options)


def _spots_of(name: str, option: Option, rate: float) -> tuple[Spot, ...]:
    """What the option sets in timm's network of that name, and to what."""
    try:
        here = _numbers_of(name, option, rate)
        there = _numbers_of(name, option, 0.25 if rate >= 0.5 else 0.75)
    except TypeError:
        return ()
    values = {(spot.path, spot.name): spot.value for spot in here}
    spots = (replace(spot, value=values.get((spot.path, spot.name), 0.0)) for spot in there)
    return tuple(new for new, spot in zip(spots, there, strict=True) if new.value != spot.value)


@cache
def _numbers_of(name: str, option: Option, rate: float) -> list[Spot]:
    return _numbers(_twin(name, {option: rate}))


def _numbers(net: nn.Module) -> list[Spot]:
    """All plain numbers in it."""
    return [
        Spot(path, key, value, None if _weighs(layer) else layer)
        for path, layer in net.named_modules()
        for key, value in vars(layer).items()
        if type(value) in (int, float)
    ]


def _weighs(layer: nn.Module) -> bool:
    """Whether it is more than a layer of noise."""
    return bool(layer._parameters or layer._buffers or layer._modules)


def _slots(net: nn.Module) -> list[str]:
    """Where residual blocks keep their drop-path, in order; nothing may be in there."""
    return [
        f"{path}.{key}"
        for path, layer in net.named_modules()
        for key, held in (vars(layer) | layer._modules).items()
        if "drop_path" in key and isinstance(held, DropPath | nn.Identity | None)
    ]


@cache
def _slots_of(name: str) -> set[str]:
    return set(_slots(_twin(name, {})))


def _usual_spots(net: nn.Module, option: Option, rate: float) -> tuple[Spot, ...]:
    """The same for a network without a name."""
    if option == "drop_rate":
        heads = ("", "head", "head_drop", "head.drop")
        found = (s for s in _numbers(net) if s.path in heads and s.name in ("drop_rate", "p"))
        return tuple(replace(spot, value=rate) for spot in found)
    slots = _slots(net)
    blocks = list(dict.fromkeys(slot.rpartition(".")[0] for slot in slots))
    last = max(1, len(blocks) - 1)
    rates = {block: rate * i / last for i, block in enumerate(blocks)}
    return tuple(
        Spot(slot, "drop_prob", rates[slot.rpartition(".")[0]], DropPath()) for slot in slots
    )


def _sites(net: nn.Module) -> dict[str, float]:
    """Where DropBlock acts, with shares of its rate."""
    name = _name(net)
    if name:
        return block_sites(name)
    tensors = (*net.parameters(), *net.buffers())
    weightless = {id(t): nn.Parameter(t.to("meta"), requires_grad=False) for t in tensors}
    return _find(copy.deepcopy(net, weightless))


@cache
def block_sites(name: str) -> dict[str, float]:
    """Layers of timm's network of that name that DropBlock acts on, with shares of its rate."""
    return _find(_twin(name, {}))


def _find(net: nn.Module) -> dict[str, float]:
    blocks = [slot.rpartition(".")[0] for slot in _slots(net)]
    size = (vars(net).get("pretrained_cfg") or {}).get("input_size") or (SIDE,)
    return find_sites(net, blocks, size[-1])
