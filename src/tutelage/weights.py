"""Weights in safetensors files, which hold numbers and no code; ours have a digest of them."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tutelage.errors import Damaged, UsageError
from tutelage.files import write_with
from tutelage.networks.build import Net, build, digest_of, weight_digest

WEIGHTS = "model.safetensors"  # in the folder of a model or a training
MIDDLE = "halfway.safetensors"  # beside it, of a training whose middle is asked for
DIGEST = "tutelage.digest"  # of the weights, in the file's header
AGAIN = "copy it again, or give the training's command again, which makes it anew in a run folder"


def save_weights(path: Path, module: nn.Module) -> None:
    """Weights and buffers as safetensors, whole or not at all."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    data = save(tensors, {DIGEST: weight_digest(module)})
    write_with(path, lambda part: part.write_bytes(data))  # whose errors are the disk's


def load_weights(
    path: Path, net: Net, device: torch.device, *, digest: str | None = None
) -> nn.Module:
    """The network with these weights, frozen and in eval mode on the device.

    Raises Damaged where the file is missing or not as it was written, or has weights of another
    digest than is asked for; UsageError where it belongs to another network.
    """
    tensors, written = _read(path)
    module = build(net)
    types = {name: tensor.dtype for name, tensor in module.state_dict().items()}
    found = digest_of(tensors) if written or digest else None
    if written and found != written:
        raise Damaged(f"{path} is damaged, its weights are not those that were written: {AGAIN}")
    if digest and found != digest:
        raise Damaged(
            f"the weights in {path.parent} are not those that its config.json names: {AGAIN}"
        )
    if written and any(types.get(name, t.dtype) != t.dtype for name, t in tensors.items()):
        raise Damaged(f"{path} is damaged, its numbers are of another type: {AGAIN}")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise UsageError(f"{path} is damaged or of another network: {error}") from error
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.eval().requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """A file's tensors, and the digest that it was written with; None in files of other programs.
    Raises what `load_weights` raises."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get(DIGEST)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing: {AGAIN}") from None
    except PermissionError as error:
        raise UsageError(f"{path} can't be read: {error}; make it readable") from error
    except (SafetensorError, RuntimeError, OSError, ValueError, LookupError) as error:
        raise Damaged(f"{path} is damaged: {error}: {AGAIN}") from error
