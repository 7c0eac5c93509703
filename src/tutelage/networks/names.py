"""Networks by name: timm's, and those that timm lacks.

Lacking there: wide residual networks and DenseNets for 32 pixels, Noisy Student's L0 and L1, and
EfficientNets of one's own or with coefficients. A name says everything, so that there is nothing to
register and a model folder is read anywhere. timm's own names always mean timm's networks.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg
from torch import nn

from tutelage.errors import UsageError
from tutelage.networks.densenet_small import DenseShape, parse_dense
from tutelage.networks.efficientnet import Architecture
from tutelage.networks.published import NEW, architecture_of, size_of
from tutelage.networks.wide_resnet import WideShape, parse_wide
from tutelage.values import from_plain, load_yaml, nearest

SMALL = (  # of the papers; any other depth and width can be named as well
    "wrn-16-4", "wrn-16-8", "wrn-22-8", "wrn-28-2", "wrn-28-8", "wrn-28-10", "wrn-40-1", "wrn-40-2",
    "wrn-40-4", "wrn-40-8", "densenet-40-12", "densenet-100-12", "densenet-100-24",
    "densenet-bc-100-12", "densenet-bc-190-40", "densenet-bc-250-24",
)  # fmt: skip
# Channels' mean and standard deviation over the training images of CIFAR-10.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TIMM_REDUCTION = 32  # pixels for each position of the last map, in nearly all of timm's networks
YAML = (".yaml", ".yml")


def own(name: str) -> Architecture | DenseShape | WideShape | None:
    """The network of a name that timm doesn't have; None for timm's and for unknown names.

    Raises UsageError for a name of such a family that can't be built.
    """
    if timm.is_model(name.split(".")[0]):
        return None
    return parse_wide(name) or parse_dense(name) or architecture_of(name)


def is_model(name: str) -> bool:
    """Whether there is a network of that name; raises what `own` raises."""
    return own(name) is not None or timm.is_model(name.split(".")[0])


def check_name(name: str) -> None:
    """Raises UsageError, with the nearest names, where there is no network of that name."""
    if not is_model(name):
        hint = nearest(name, listed("*")) or ";"
        raise UsageError(f"timm has no model {name!r}{hint} `tutelage models` lists them")


def listed(pattern: str, *, pretrained: bool = False) -> list[str]:
    """Names that match a pattern with * and ?: timm's, then others of papers."""
    names: list[str] = timm.list_models(pattern, pretrained=pretrained)
    return names if pretrained else names + fnmatch.filter([*SMALL, *NEW], pattern)


def create(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network of that name without its pre-trained weights.

    Raises TypeError for an option that it can't take.
    """
    made = own(name)
    if made is None:
        return timm.create_model(name, **options)
    module = made.build(**options)
    config = _config(name, made)
    config.num_classes = int(vars(module)["num_classes"])
    vars(module)["pretrained_cfg"] = config.to_dict()
    return module


def config_of(name: str) -> PretrainedCfg | None:
    """What is known of the network: input size, statistics, name of the classifier."""
    made = own(name)
    return timm.models.get_pretrained_cfg(name) if made is None else _config(name, made)


def reduction_of(name: str) -> int | None:
    """Pixels of an image for each position of the last feature map; None where the stem has no
    stride, so that there is nothing to take out of it."""
    made = own(name)
    if made is None:
        return TIMM_REDUCTION
    return made.reduction if isinstance(made, Architecture) else None


def name_in(given: str) -> str:
    """The name of the EfficientNet that a YAML file describes; other names as they are.

    Raises UsageError where the file is missing or describes none.
    """
    if Path(given).suffix not in YAML:
        return given
    return from_plain(Architecture, load_yaml(Path(given))).name


def _config(name: str, made: Architecture | DenseShape | WideShape) -> PretrainedCfg:
    """As timm has it for its own; scaled EfficientNets have the statistics of their base."""
    if isinstance(made, Architecture):
        base = name.split("-")[0]
        of_base = timm.models.get_pretrained_cfg(base) if timm.is_model(base) else None
        known = of_base or PretrainedCfg()
        side, first = size_of(base), "conv_stem"
        mean, std, last = known.mean, known.std, "classifier"
    else:
        wide = isinstance(made, WideShape)
        side, first = 32, "conv1" if wide else "features.conv0"
        mean, std, last = CIFAR_MEAN, CIFAR_STD, "fc" if wide else "classifier"
    return PretrainedCfg(
        architecture=name, input_size=(3, side, side), mean=mean, std=std, first_conv=first,
        classifier=last,
    )  # fmt: skip
