"""Where teachers come from: folders, timm names, weight files, the hub, and modules in Python."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import (  # type: ignore[attr-defined]  # not in its __all__
    ImageNetInfo,
    infer_imagenet_subset,
    resolve_model_data_config,
)
from torch import Tensor, nn

from tutelage.deploy.model_folder import load_model
from tutelage.errors import UsageError
from tutelage.networks.build import Normalized, has_fixed_size
from tutelage.networks.names import check_name, create
from tutelage.networks.pretrained import create_pretrained
from tutelage.networks.squeeze_excite import SE
from tutelage.weights import load_weights

HUB = ("hf-hub:", "local-dir:")  # of timm: OWNER/NAME on the hub, or a folder like one there
# Under which training scripts keep weights; an average of them first, as in timm's own loader.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")  # of networks on several devices, and of compiled ones
UNFIT = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError)


@dataclass(frozen=True)
class Found:
    """A network with its own preprocessing inside: images in [0, 1] -> logits."""

    module: nn.Module
    name: str
    num_classes: int  # outputs; 0 where it has no head
    classes: tuple[str, ...] | None  # names of the outputs, where they are known
    size: int | None = None  # pixels that its weights are made for, where that is known
    folder: Path | None = None  # where it was trained by this package
    se: SE | None = None  # gates that timm's network of that name doesn't have
    stem_size: int | None = None  # pixels that its first layers were changed for, where they were


def from_folder(folder: Path, name: str, device: torch.device) -> Found:
    """The network of a run, model or round folder; raises UsageError where there is none."""
    model = load_model(folder, device)
    net, count = model.net, len(model.classes)
    stem = (net.stem_size or net.img_size) if net.small_stem else None
    return Found(model.module, name, count, model.classes, net.img_size, folder, net.se, stem)


def from_middle(file: Path) -> Found:
    """The network of a round as it was in the middle of its training, on the CPU; raises UsageError
    where its weights or its folder are damaged."""
    cpu = torch.device("cpu")
    net = load_model(file.parent, cpu).net
    found = from_folder(file.parent, str(file), cpu)
    return replace(found, module=load_weights(file, net, cpu))


def from_timm(name: str, img_size: int | None = None) -> Found:
    """timm's network of that name with its pre-trained weights, from the hub where it must.

    Networks with position tables are put to `img_size` where it is given. Raises UsageError where
    there is no such network, or no weights for it can be had.
    """
    if not name.startswith(HUB):
        check_name(name)
    try:
        if name.startswith(HUB):
            net = timm.create_model(name, pretrained=True)
        else:
            size = img_size if has_fixed_size(name) else None
            net = create_pretrained(name, img_size=size)
    except Exception as error:  # of the network, the hub, the disk: each library has its own
        why = str(error) if isinstance(error, UsageError) else f"no pre-trained weights: {error}"
        raise UsageError(
            f"{why}; or give a run, or NAME=FILE for weights that are on this machine"
        ) from error
    found = _described(net, name)
    names = found.classes or imagenet_names(found.num_classes)
    return Found(found.module, name, found.num_classes, names, found.size)


def from_file(name: str, file: Path, img_size: int) -> Found:
    """The network of that name with the weights of a safetensors or torch file.

    The number of classes is the file's. Raises UsageError where the file is missing, damaged, or
    of another network.
    """
    check_name(name)
    weights = read_weights(file)
    with torch.device("meta"):
        head = vars(create(name, {}))["pretrained_cfg"]["classifier"]
    first = head[0] if isinstance(head, tuple | list) else head
    rows = weights.get(f"{first}.weight")
    options: list[dict[str, Any]] = [{"num_classes": 0 if rows is None else len(rows)}]
    if has_fixed_size(name):  # transformers: made for the published size, or for that of the images
        options.append(options[0] | {"img_size": img_size})
    odd = ""
    for option in options:
        net = create(name, option)
        odd = odd or _difference(net, weights)
        if not _difference(net, weights):
            net.load_state_dict(weights, strict=False)  # counters of batches may be missing
            made = _described(net, f"{name}={file}")
            size = option.get("img_size", made.size)
            return Found(made.module, made.name, made.num_classes, None, size)
    raise UsageError(f"{file} has the weights of another network than {name}: {odd}")


def _difference(net: nn.Module, weights: dict[str, Tensor]) -> str:
    """What a network lacks in a file, or the file in the network, in words; nothing if they fit."""
    own = net.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith("_tracked")]
    unknown = [key for key in weights if key not in own]
    shapes = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    kinds = (("it lacks", missing), ("it has an unknown", unknown), ("another shape has", shapes))
    return "; ".join(
        f"{what} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for what, keys in kinds
        if keys
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a file, read as numbers and never as code.

    Raises UsageError where that can't be.
    """
    if not file.is_file():
        raise UsageError(f"there is no weights file {file}")
    found: Any
    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise UsageError(f"{file} is damaged or holds no weights: {error}") from error
    except Exception as error:  # pickle's own errors: the file wants to run code
        raise UsageError(f"{file} holds more than weights, and is not read: {error}") from error
    wrapped = [
        key for key in WRAPPERS if isinstance(found, dict) and isinstance(found.get(key), dict)
    ]
    if wrapped:
        found = found[wrapped[0]]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UsageError(f"{file} holds no weights by name: save `model.state_dict()`")
    found = {_plain(name): tensor for name, tensor in found.items()}
    if {"mean", "std"} <= set(found):  # a model of this package, apart from its folder
        found = {name.removeprefix("net."): t for name, t in found.items()}
        del found["mean"], found["std"]
    return found


def _plain(name: str) -> str:
    """A weight's name without what wrappers put before it."""
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def from_module(module: nn.Module, img_size: int) -> Found:
    """A copy of a module: one of timm's gets its normalization, another takes images in [0, 1].

    Raises UsageError where it doesn't take images and give logits.
    """
    module, name = deepcopy(module), type(module).__name__
    if "pretrained_cfg" in vars(module):
        return _described(module, name)
    return Found(module, name, outputs(module, img_size, name), None)


def outputs(module: nn.Module, size: int, name: str) -> int:
    """How many logits it gives for an image of that size; raises UsageError where it gives none."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            found: Tensor = module.eval()(torch.full((2, 3, size, size), 0.5, device=device))
            _, columns = found.shape
    except UNFIT as error:
        raise UsageError(
            f"{name} can't be asked at {size} pixels: it must take images (B, 3, H, W) "
            f"in [0, 1] and give logits (B, K); {error}"
        ) from error
    return columns


def headless(module: nn.Module) -> nn.Module:
    """The network up to its pooled features, in place; all of it where it has no such part."""
    net = module.net if isinstance(module, Normalized) else module
    try:
        net.reset_classifier(0)  # type: ignore[operator]  # every timm network has it
    except AttributeError:
        return module
    return module


def imagenet_names(num_classes: int) -> tuple[str, ...] | None:
    """WordNet's names of the outputs of a network with that many; None where it's not ImageNet."""
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else tuple(ImageNetInfo(subset).label_names())


def names_for(found: Found, classes: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the outputs; those of ImageNet where they cover the classes."""
    if found.classes is not None:
        return found.classes
    names = imagenet_names(found.num_classes)
    return names if names is not None and set(classes) <= set(names) else None


def _described(net: nn.Module, name: str) -> Found:
    """A timm network behind its own normalization."""
    config = resolve_model_data_config(net)
    labels = vars(net)["pretrained_cfg"].get("label_names")
    return Found(
        module=Normalized(net, tuple(config["mean"]), tuple(config["std"])),
        name=name,
        num_classes=int(net.num_classes),  # type: ignore[arg-type]  # timm's networks know it
        classes=tuple(labels) if labels else None,
        size=int(config["input_size"][-1]),
    )
