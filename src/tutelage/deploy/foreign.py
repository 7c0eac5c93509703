"""Networks from elsewhere as teachers: timm names, weight files, the hub, and modules in Python."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_model_data_config  # type: ignore[attr-defined]  # not in __all__
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.networks.build import Normalized, check_name, has_fixed_size

UNWRAP = ("state_dict", "model", "model_state_dict")  # under which training scripts keep weights


@dataclass(frozen=True)
class Foreign:
    """A network with its own preprocessing inside: images in [0, 1] -> logits."""

    module: nn.Module
    body: nn.Module  # the same up to its pooled features, or its outputs where it has no such part
    name: str
    num_classes: int  # outputs; 0 where it has no head
    classes: tuple[str, ...] | None  # names, where it carries them
    size: int | None  # pixels that it has to be shown; None: any


def from_timm(name: str) -> Foreign:
    """timm's network of that name with its pre-trained weights, from the hub where it must.

    Raises UsageError where there is no such network, or no weights for it can be had.
    """
    if not name.startswith("hf-hub:"):
        check_name(name)
    try:
        net = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise UsageError(
            f"no pre-trained weights for the teacher {name}: {error}; give a run, or NAME=FILE for "
            "weights that are on this machine"
        ) from error
    return _described(net, name, size=_native_size(net))


def from_file(name: str, file: Path, img_size: int) -> Foreign:
    """timm's network of that name with the weights of a safetensors or torch file.

    The number of classes is the file's. Raises UsageError where the file is missing, damaged, or
    of another network.
    """
    check_name(name)
    weights = read_weights(file)
    options: dict[str, Any] = {"img_size": img_size} if has_fixed_size(name) else {}
    with torch.device("meta"):
        config: dict[str, Any] = vars(timm.create_model(name, **options))["pretrained_cfg"]
    head = config["classifier"]
    first = head[0] if isinstance(head, tuple | list) else head
    if f"{first}.weight" in weights:
        options["num_classes"] = len(weights[f"{first}.weight"])
    net = timm.create_model(name, **options)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(
            f"{file} has the weights of another network than {name}: {error}"
        ) from None
    return _described(net, name, size=_fixed_size(net))


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a file, read as numbers and never as code.

    Raises UsageError where that can't be.
    """
    if not file.exists():
        raise UsageError(f"the teacher's weights {file} do not exist")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise UsageError(f"{file} is damaged or holds no weights: {error}") from error
    except Exception as error:  # pickle's own errors: the file wants to run code
        raise UsageError(f"{file} holds more than weights, and is not read: {error}") from error
    for key in UNWRAP:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UsageError(f"{file} holds no state dict: save `model.state_dict()`")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def from_module(module: nn.Module) -> Foreign:
    """A copy of a module: one of timm's gets its normalization, another takes images in [0, 1]."""
    module, name = deepcopy(module), type(module).__name__
    if "pretrained_cfg" in vars(module):
        return _described(module, name, size=_fixed_size(module))
    return Foreign(module, module, name, _outputs(module), None, None)


def _outputs(module: nn.Module) -> int:
    """Number of outputs, asked with a gray image; raises UsageError where it takes none."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            return int(module.eval()(torch.full((1, 3, 64, 64), 0.5, device=device)).shape[-1])
    except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"the teacher {type(module).__name__} can't be asked: it must take images (B, 3, H, W) "
            f"in [0, 1] and give logits (B, K); {error}"
        ) from error


def _native_size(net: nn.Module) -> int:
    """The side in pixels that a published network was trained at."""
    return int(resolve_model_data_config(net)["input_size"][-1])


def _fixed_size(net: nn.Module) -> int | None:
    """The side in pixels that a network can't do without, as most transformers; else None."""
    try:
        return int(net.patch_embed.img_size[0])  # type: ignore[union-attr,index]  # timm's
    except (AttributeError, TypeError):
        fixed = vars(net)["pretrained_cfg"].get("fixed_input_size")
        return _native_size(net) if fixed else None


def _described(net: nn.Module, name: str, *, size: int | None) -> Foreign:
    """A timm network behind its own normalization, with and without its head."""
    config = resolve_model_data_config(net)
    body = deepcopy(net)
    body.reset_classifier(0)  # type: ignore[operator]  # every timm network has it
    labels = vars(net)["pretrained_cfg"].get("label_names")
    return Foreign(
        module=Normalized(net, tuple(config["mean"]), tuple(config["std"])),
        body=Normalized(body, tuple(config["mean"]), tuple(config["std"])),
        name=name,
        num_classes=int(net.num_classes),  # type: ignore[arg-type]  # timm's networks know it
        classes=tuple(labels) if labels else None,
        size=size,
    )
