"""timm's pre-trained weights: from a folder on this machine, from the hub's cache, or downloaded.

The environment variable TUTELAGE_WEIGHTS names the folder. Its files are called as timm calls the
network, with tag or without: resnet18.a1_in1k.safetensors, resnet18.safetensors; or .pth, .pt and
.bin, which are read as numbers and never as code. It is no setting of a run: where weights lie
doesn't change what they are, and a run is bound to them by their digest.
"""

import os
import socket
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import PretrainedCfg
from torch import nn

from tutelage.errors import Unreachable, UsageError
from tutelage.networks import names

WEIGHTS = "TUTELAGE_WEIGHTS"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
PATIENCE = 5.0  # seconds for a connection: without a network the hub's own retries take a minute


def create_pretrained(name: str, *, img_size: int | None = None) -> nn.Module:
    """timm's network of that name with its pre-trained weights and their own head.

    `img_size` is for networks with position tables, which timm resamples. Raises UsageError where
    the weights can't be had, saying how to bring them, and where a file is damaged or another
    network's.
    """
    source = weights_source(name)
    options: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source, **options)
    except Exception as error:  # of the file, the hub, the disk: each library has its own
        if "file" in source:
            raise UsageError(
                f"{source['file']} is damaged, holds more than weights, or is not of {name}: "
                f"{_short(error)}"
            ) from error
        raise UsageError(how_to_bring(name, _short(error))) from error


def weights_source(name: str) -> dict[str, Any]:
    """What timm is to be told of where the weights are: a file, or nothing where it must download.

    Raises UsageError where there are none, Unreachable where the network can't be reached.
    """
    if names.own(name) is not None:
        raise UsageError(
            f"nobody publishes weights for {name}: begin with new ones, or with those of a run, as "
            "in --init RUN"
        )
    file = _here(name)
    if file is not None:
        return {"file": file}
    config = _config(name)
    host = urlparse(constants.ENDPOINT if config.hf_hub_id else _url(config))
    if not urllib.request.getproxies():  # with a proxy a direct connection tells nothing
        try:
            port = host.port or (443 if host.scheme == "https" else 80)
            socket.create_connection((host.hostname or "", port), timeout=PATIENCE).close()
        except OSError as error:
            why = f"{host.hostname} can't be reached ({error})"
            raise Unreachable(how_to_bring(name, why)) from error
    return {}


def check_weights(wanted: Sequence[str]) -> None:
    """Raises Unreachable where some networks' weights are not here and can't be downloaded."""
    missing = [name for name in wanted if _here(name) is None]
    if not missing:
        return
    try:
        weights_source(missing[0])
    except Unreachable as error:
        here = ",".join(name for name in wanted if name not in missing)
        only = f"; or ask only those that are here: {here}" if here else ""
        count = f"{len(missing)} of {len(wanted)} networks have no weights here: "
        raise Unreachable(f"{count}{error}{only}") from error


def _here(name: str) -> str | None:
    """The network's weights in the folder of TUTELAGE_WEIGHTS or in the hub's own cache."""
    file = local_file(name)
    if file is not None:
        return str(file)
    config = _config(name)
    return None if config.custom_load else _cached(config)


def has_weights(name: str) -> bool:
    """Whether timm has weights for the network, or the folder of TUTELAGE_WEIGHTS does.

    Raises UsageError where that folder is missing.
    """
    if names.own(name) is not None:
        return False
    config = timm.models.get_pretrained_cfg(name)
    return (config is not None and config.has_weights) or local_file(name) is not None


def local_file(name: str) -> Path | None:
    """The network's file in the folder of TUTELAGE_WEIGHTS; None where there is none.

    A name with a tag takes that tag's file alone. Raises UsageError where the folder is missing.
    """
    given = os.environ.get(WEIGHTS)
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{WEIGHTS} is {given}, which is no folder: make it, or unset {WEIGHTS}")
    names = [name] if "." in name else [_full_name(name), name]
    files = [folder / f"{one}{suffix}" for one in names for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), None)


def how_to_bring(name: str, why: str) -> str:
    """Why there are no weights, and which file to put where, under which name."""
    config, folder = _config(name), os.environ.get(WEIGHTS) or "FOLDER"
    if config.hf_hub_id:
        file = config.hf_hub_filename or HUB_FILES[0]
        page = f"{file} from https://huggingface.co/{config.hf_hub_id.split('@')[0]}"
    else:
        page = file = _url(config)
    return (
        f"no pre-trained weights for {name}: {why}. To bring them: download {page}, save it as "
        f"{folder}/{_full_name(name)}{Path(file).suffix}, and set {WEIGHTS}={folder}"
    )


def _config(name: str) -> PretrainedCfg:
    """What timm knows of the weights; raises UsageError where it has none."""
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise UsageError(
            f"timm has no pre-trained weights for {name}; `tutelage models PATTERN --pretrained` "
            "lists the names that have"
        )
    return config


def _url(config: PretrainedCfg) -> str:
    """Where the weights are that are not on the hub."""
    return config.url if isinstance(config.url, str) else ""


def _full_name(name: str) -> str:
    """The name with its tag, timm's default one where none is given."""
    config = timm.models.get_pretrained_cfg(name)
    if "." in name or config is None or not config.tag:
        return name
    return f"{name}.{config.tag}"


def _cached(config: PretrainedCfg) -> str | None:
    """The weights in the hub's own cache, which then needs no network."""
    if not config.hf_hub_id:
        return None
    repo, _, revision = config.hf_hub_id.partition("@")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    found = [try_to_load_from_cache(repo, file, revision=revision or None) for file in files]
    return next((one for one in found if isinstance(one, str)), None)


def _short(error: Exception) -> str:
    """The beginning of an error's words, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
