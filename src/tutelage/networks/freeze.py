"""Which parts of a network learn: the others keep their weights and their batch-norm statistics.

Frozen weights take no gradient, and the layers around them stay in eval mode whatever mode the
network is put into, so that neither statistics nor dropout move.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.networks.build import Net, Normalized, build, device_of

USUAL = 224  # pixels, of a network that is only looked at
PROBE_SIZE = 128  # pixels of the one gray image that shows which batch norm comes last


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """What stays as it was.

    body: all but the classifier. body-but-last-norm: the same, in eval mode as a whole but for the
    last batch norm before the pooling, whose statistics go on moving. stem: the first groups.
    norms: the statistics of all batch norms, whose scale and shift may learn.
    """

    part: Literal["nothing", "body", "body-but-last-norm", "stem"] = "nothing"
    groups: int = 0  # of layers, by timm's coarse count: the stem, then each stage
    norms: bool = False

    @property
    def words(self) -> str:
        """What learns, where it isn't all."""
        if self.part == "stem":
            return f"all but {self.groups} groups of layers"
        known = {"body": "classifier alone", "body-but-last-norm": "classifier and last statistics"}
        return known.get(self.part, "")


def freeze(module: nn.Module, how: Freeze) -> None:
    """Freeze a part of a network in place.

    Raises UsageError where the network has no classifier or no such groups.
    """
    if how == Freeze():
        return
    assert isinstance(module, Normalized), "networks of build alone are frozen in parts"
    if how.part != "nothing":
        frozen = _stem(module, how.groups) if how.part == "stem" else _body(module)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen)
    if how.part == "body-but-last-norm":
        last = last_norm(module)
        module.at_rest = frozenset(name for name, _ in module.named_modules() if name != last)
    else:
        module.at_rest = frozenset(_resting(module)) | (_norms(module) if how.norms else set())
    module.train(module.training)


def check_freeze(name: str, how: Freeze) -> None:
    """Raises what `freeze` would for the network of that name, without weights."""
    if how.words:
        with torch.device("meta"):
            freeze(build(Net(name=name, num_classes=2, img_size=USUAL)), how)


def head_names(module: Normalized) -> tuple[str, ...]:
    """Names of the classifier, or of both where there are two, as in `net.fc`."""
    head = vars(module.net)["pretrained_cfg"]["classifier"]
    names = head if isinstance(head, tuple | list) else (head,)
    known = dict(module.named_modules())
    found = tuple(f"net.{name}" for name in names if name and f"net.{name}" in known)
    if not found:
        raise UsageError(
            f"timm doesn't say where {type(module.net).__name__} has its classifier, so that it "
            "can't learn alone: train all of it, or take another --model"
        )
    return found


def groups_of(module: Normalized) -> dict[int, list[str]]:
    """Names of weights by coarse group, from the input on; the last one has the classifier.

    Raises UsageError where timm doesn't know the network's groups.
    """
    try:
        matcher = module.net.group_matcher(coarse=True)  # type: ignore[operator]  # timm's
    except (AttributeError, AssertionError) as error:
        kind = type(module.net).__name__
        raise UsageError(
            f"timm doesn't know the groups of layers of {kind}, so that some can't be frozen: "
            "train all of it, or take another --model"
        ) from error
    found = group_parameters(module.net, matcher)
    return {int(group): [f"net.{name}" for name in names] for group, names in found.items()}


def last_norm(module: Normalized) -> str | None:
    """Name of the last batch norm before the pooling, as in `net.layer4.1.bn2`; None without one.

    That of the main branch where a shortcut beside it has one too, as the FixRes code takes it.
    """
    seen: list[str] = []

    def note(name: str) -> torch.utils.hooks.RemovableHandle:
        return layers[name].register_forward_hook(lambda *_: seen.append(name))

    norms = _norms(module)
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if name in norms and not {"downsample", "shortcut"} & set(name.split("."))
    }
    handles = [note(name) for name in layers]
    modes = {layer: layer.training for layer in module.modules()}
    images: Tensor = torch.full((1, 3, PROBE_SIZE, PROBE_SIZE), 0.5, device=device_of(module))
    try:
        with torch.no_grad():
            module.eval().net.forward_features(images)  # type: ignore[operator]  # timm's
    finally:
        for layer, mode in modes.items():
            layer.training = mode
        for handle in handles:
            handle.remove()
    return seen[-1] if seen else None


def _body(module: Normalized) -> set[str]:
    """Names of all weights but the classifier's."""
    heads = tuple(f"{name}." for name in head_names(module))
    return {name for name, _ in module.named_parameters() if not name.startswith(heads)}


def _stem(module: Normalized, count: int) -> set[str]:
    """Names of the weights in the first groups."""
    groups = groups_of(module)
    if not 1 <= count < len(groups):
        raise UsageError(
            f"{count} groups can't be frozen: {type(module.net).__name__} has {len(groups)}, of "
            f"which the last has the classifier and learns; give --freeze 1 to {len(groups) - 1}"
        )
    return {name for group in range(count) for name in groups[group]}


def _norms(module: Normalized) -> set[str]:
    """Names of all batch norms."""
    kind = nn.modules.batchnorm._BatchNorm
    return {name for name, layer in module.named_modules() if isinstance(layer, kind)}


def _resting(module: Normalized) -> Iterator[str]:
    """Names of the layers whose weights are all frozen, and of what is inside of them."""
    for name, layer in module.named_modules():
        weights = list(layer.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            yield from (f"{name}.{inner}" if inner else name for inner, _ in layer.named_modules())
