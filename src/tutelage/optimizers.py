"""timm's and torch's optimizers by name, with the right groups of weights.

Weight decay is for kernels alone: not for norms, biases, position tables, tokens and scales.
rmsproptf has epsilon 0.001 inside the root, as in EfficientNet's reference code. muon
(timm's, not torch's, which takes matrices alone) flattens convolutions to matrices, and leaves all
else, the classifier included, to AdamW, as its author advises; its steps are as large as AdamW's.
"""

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import (  # type: ignore[attr-defined]  # not in its __all__
    create_optimizer_v2,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from torch import nn

from tutelage.errors import UsageError
from tutelage.networks.build import Normalized
from tutelage.settings import Optim, plain_name
from tutelage.values import nearest

EPSILON = {"rmsproptf": 1e-3}  # where timm's default is another than the published one

SHARDABLE = (  # which give with parts of weights what they give with whole ones, as tests show
    "adam", "adamw", "adamax", "nadam", "nadamw", "radam", "adabelief", "adadelta", "adagrad",
    "adan", "adopt", "lamb", "lars", "lion", "momentum", "sgd", "rmsprop", "rmsproptf",
)  # fmt: skip


def check_optimizer(name: str) -> None:
    """Raises UsageError, with the nearest names, for an optimizer that timm doesn't know."""
    known = list(map(str, list_optimizers()))
    if name != "auto" and plain_name(name) not in known:
        hint = nearest(plain_name(name), known) or "; `timm.optim.list_optimizers()` names all"
        raise UsageError(f"--optim.name {name!r}: there is no such optimizer{hint}")


def check_shardable(name: str) -> None:
    """Raises UsageError for an optimizer that can't work on parts of weights."""
    if name != "auto" and name.lower() not in SHARDABLE:
        raise UsageError(
            f"--optim.name {name} takes whole weights, and those of a network that is sharded are "
            f"in parts: take one of {', '.join(SHARDABLE)}, or leave out --shard"
        )


def make_optimizer(module: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """The optimizer of that name for all weights that want a gradient; `optim` has no 'auto'.

    A group with `lr_scale` is meant to have that share of the learning rate. Raises UsageError for
    a name that timm doesn't know.
    """
    options: dict[str, Any] = {"momentum": optim.momentum}
    if plain_name(optim.name) in EPSILON:
        options["eps"] = EPSILON[plain_name(optim.name)]
    check_optimizer(optim.name)
    try:
        return create_optimizer_v2(
            _groups(module, optim), opt=optim.name, lr=float(optim.lr), **options
        )
    except (AssertionError, ValueError) as error:
        raise UsageError(f"--optim.name {optim.name!r}: {error}") from error


def _groups(module: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Weights by decay and, with layer decay, by layer: the last one has the whole rate."""
    net = module.net if isinstance(module, Normalized) else module  # timm's know their layers
    options: dict[str, Any] = {
        "weight_decay": float(optim.weight_decay),
        "no_weight_decay_list": _undecayed(net),
    }
    if "muon" in plain_name(optim.name):
        options |= {"fallback_list": _classifier(net), "fallback_no_weight_decay": True}
    if optim.layer_decay is None:
        return param_groups_weight_decay(net, **options)
    return param_groups_layer_decay(net, layer_decay=optim.layer_decay, **options)


def _undecayed(net: nn.Module) -> set[str]:
    """Position tables, tokens and scales: those timm lists, and all that isn't called a weight."""
    bare = {n for n, _ in net.named_parameters() if "weight" not in n.rpartition(".")[-1]}
    try:
        return bare | set(net.no_weight_decay())  # type: ignore[operator]  # transformers have it
    except AttributeError:
        return bare


def _classifier(net: nn.Module) -> set[str]:
    """Names of the last layer's weights; nothing where the network doesn't say."""
    try:
        heads = net.get_classifier()  # type: ignore[operator]  # timm's have it
    except AttributeError:
        return set()
    several: Iterable[nn.Module] = heads if isinstance(heads, tuple) else (heads,)
    weights = {id(weight) for head in several for weight in head.parameters()}
    return {name for name, weight in net.named_parameters() if id(weight) in weights}
