"""Weights in safetensors files, which hold numbers and no code."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from tutelage.errors import UsageError
from tutelage.files import write_with
from tutelage.networks.build import Net, build


def save_weights(path: Path, module: nn.Module) -> None:
    """Weights and buffers as safetensors, whole or not at all."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    write_with(path, lambda part: part.write_bytes(save(tensors)))  # whose errors are the disk's


def load_weights(path: Path, net: Net, device: torch.device) -> nn.Module:
    """The network with these weights, frozen and in eval mode on the device.

    Raises UsageError where the file is damaged or belongs to another network.
    """
    module = build(net)
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise UsageError(f"{path} is damaged or of another network: {error}") from error
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.eval().requires_grad_(False)
