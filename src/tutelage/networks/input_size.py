"""A trained network on images of another size than it was trained on."""

from copy import deepcopy

import torch
from torch import nn

from tutelage.errors import UsageError
from tutelage.networks.build import Net, device_of, has_fixed_size


def at_input_size(module: nn.Module, net: Net, size: int) -> nn.Module:
    """The network itself where any size will do, else a copy for images of `size` pixels.

    The copy's position tables are resampled, and its windows fitted, by timm. Statistics of batch
    norm stay. Raises UsageError where the network can't take the size.
    """
    if size != net.img_size and has_fixed_size(net.name):
        module = deepcopy(module)
        try:
            fits = resample(module, size)
        except ValueError as error:
            raise _refusal(net, size, error) from error
        if not fits:
            raise UsageError(
                f"{net.name} takes images of {net.img_size} pixels alone: leave out --img-size"
            )
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, 3, size, size, device=device_of(module)))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _refusal(net, size, error) from error
    return module


def resample(module: nn.Module, size: int) -> bool:
    """Put position tables and windows to images of `size` pixels, in place, as timm does it.

    False where the network has nothing that timm can put. Raises ValueError where it can't be.
    """
    try:
        module.net.set_input_size(img_size=(size, size))  # type: ignore[operator, union-attr]
    except (AttributeError, TypeError):
        return False
    except (AssertionError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return True


def _refusal(net: Net, size: int, error: Exception) -> UsageError:
    return UsageError(
        f"{net.name} can't take images of {size} pixels ({error}): it was trained on "
        f"{net.img_size}; try a multiple of 32 near it"
    )
