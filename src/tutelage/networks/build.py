"""Networks by name that take images in [0, 1] and normalize for themselves."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import timm
import torch
from timm.data import resolve_model_data_config  # type: ignore[attr-defined]  # not in __all__
from torch import Tensor, nn

from tutelage.core import Dice, fold
from tutelage.errors import UsageError
from tutelage.networks import names
from tutelage.networks.noise import FLAGS, block_sites, refusal, set_noise
from tutelage.networks.squeeze_excite import SE, put, sites_of

SMALLEST_MAP = 4  # side of the last feature map that small images are given room for


@dataclass(frozen=True, kw_only=True)
class Net:
    """Everything that `build` needs to make the same network again."""

    name: str  # timm's, or of networks/names.py
    num_classes: int
    img_size: int  # pixels
    small_stem: bool = False  # first layers keep the resolution
    stem_size: int | None = None  # pixels that they do it for, where those are not img_size
    dropout: float = 0.0
    drop_path: float = 0.0
    many_sizes: bool = False  # made for one size, it takes others by resampling its positions
    two_heads: bool = False  # in training the distillation token answers apart from the class token
    drop_block: float = 0.0
    se: SE | None = None  # squeeze-and-excitation beyond what the network has


class Normalized(nn.Module):
    """A network behind its own normalization: (B, 3, H, W) in [0, 1] -> (B, K) logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Keep the network and the channel statistics it expects."""
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.at_rest: frozenset[str] = frozenset()  # names of layers that stay in eval mode

    def resting(self) -> set[nn.Module]:
        """The layers that stay in eval mode, because they are frozen."""
        return {layer for name, layer in self.named_modules() if name in self.at_rest}

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; what is frozen stays in eval mode."""
        super().train(mode)
        for layer in self.resting():
            layer.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images in [0, 1]."""
        return self.net((images - self.mean) / self.std)


@cache
def has_batch_norm(name: str) -> bool:
    """Whether the network of that name has batch norm, without making its weights."""
    names.check_name(name)
    with torch.device("meta"):
        module = names.create(name, {})
    return normalizes_batches(module)


@cache
def takes(name: str, option: str) -> bool:
    """Whether the network of that name can take `drop_rate`, `drop_path_rate`, `drop_block`."""
    names.check_name(name)
    if option == "drop_block":
        return bool(block_sites(name))
    rate: dict[str, Any] = {option: 0.1}
    try:
        with torch.device("meta"):
            names.create(name, rate)
    except TypeError:
        return False
    return True


@cache
def has_token(name: str) -> bool:
    """Whether the network of that name has a distillation token."""
    names.check_name(name)
    with torch.device("meta"):
        module = names.create(name, {})
    try:
        _part_heads(module, name)
    except UsageError:
        return False
    return True


def normalizes_batches(module: nn.Module) -> bool:
    """Whether there is a batch norm in it."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


def mixes_images(module: nn.Module) -> bool:
    """Whether an answer depends on the other images of its batch, as by batch norm in training."""
    norms = (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return any(norm.training or norm.running_mean is None for norm in norms)


@cache
def check_net(net: Net, at: int | None = None) -> None:
    """Raises UsageError where the network can't take its image size, or the size of a stage, or
    another setting."""
    side = at or net.img_size
    with torch.device("meta"):
        try:
            module = build(net).eval()
            module(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            native = names.config_of(net.name)
            size = native.input_size[-1] if native else 224
            hint = f"--img-size {size}" if at is None else "--progressive.multiple 16"
            raise UsageError(
                f"{net.name} can't take images of {side} pixels ({error}): try {hint}"
            ) from error


def build(net: Net, *, seed: int = 0) -> Normalized:
    """The network with weights drawn from the seed, in train mode.

    Raises UsageError for an unknown name, and where the network can't take a setting.
    """
    names.check_name(net.name)
    options: dict[str, Any] = {}
    if net.dropout:
        options["drop_rate"] = net.dropout
    if net.drop_path:
        options["drop_path_rate"] = net.drop_path
    fixed = has_fixed_size(net.name)
    if fixed:
        options["img_size"] = net.img_size
    if fixed and net.many_sizes:
        options["dynamic_img_size"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed, Dice.INIT, 0))
        module = _create(net, options)
        if net.se:
            put(module, sites_of(net.name, net.se.where), net.se)
    if net.two_heads:
        _part_heads(module, net.name)
    config = resolve_model_data_config(module)
    reduction = names.reduction_of(net.name)
    if net.small_stem and not fixed and reduction is not None:
        keep_resolution(module, net.stem_size or net.img_size, reduction=reduction)
    if net.drop_block:
        set_noise(module, drop_block=net.drop_block)
    return Normalized(module, tuple(config["mean"]), tuple(config["std"]))


def _create(net: Net, options: dict[str, Any]) -> nn.Module:
    """The network without normalization, complaints about options put in words."""
    try:
        return names.create(net.name, {"num_classes": net.num_classes} | options)
    except TypeError as error:
        for option in FLAGS.keys() & options.keys():
            if option in str(error):
                raise refusal(net.name, option) from error
        raise UsageError(f"{net.name} can't take one of {', '.join(options)}: {error}") from error


def _part_heads(module: nn.Module, name: str) -> None:
    """Let a distilled transformer answer with both tokens in training."""
    try:
        module.set_distilled_training(True)  # type: ignore[operator]  # timm's distilled ones
    except AttributeError:
        raise UsageError(
            f"{name} has no distillation token: take a network that has one, such as "
            "deit_tiny_distilled_patch16_224"
        ) from None


def has_fixed_size(name: str) -> bool:
    """Whether the network's weights are made for one image size, as in most transformers."""
    if names.own(name) is not None:
        return False
    config = timm.models.get_pretrained_cfg(name)
    entry = timm.models.model_entrypoint(name)
    module = inspect.getmodule(entry)
    fixed = bool(config and config.fixed_input_size)
    return fixed or (module is not None and "vision_transformer" in module.__name__)


def keep_resolution(
    module: nn.Module, img_size: int, *, reduction: int = names.TIMM_REDUCTION
) -> None:
    """Take strides out of the stem until the last map has a side of 4, or no stride is left.

    First the stem's max-pool, then the first strided convolution: what published networks for
    32-pixel images do (He et al. 2016, arXiv 1512.03385, section 4.2). Where several such ones see
    the image, as in RepVGG, MobileOne and FastViT, they are branches that are added up, and go
    together. Patch embeddings, whose stride is their kernel, stay. `reduction`: pixels for each
    position of the last map.
    """
    side = img_size // reduction
    pools = [(n, m) for n, m in module.named_children() if isinstance(m, nn.MaxPool2d)]
    for name, _ in pools:
        if side < SMALLEST_MAP:
            setattr(module, name, nn.Identity())
            side *= 2
    convs = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    first = next((conv for conv in convs if conv.stride[0] > 1), None)
    if side >= SMALLEST_MAP or first is None or first.stride == first.kernel_size:
        return
    seeing = [conv for conv in convs if conv.in_channels == convs[0].in_channels]
    branches = {conv for conv in seeing if conv.stride == first.stride}
    if first in branches and len(branches) > 1:
        _note_stride(module, branches, first.stride[0])
    for conv in branches if first in branches else {first}:
        conv.stride = (1, 1)


def _note_stride(module: nn.Module, branches: set[nn.Conv2d], before: int) -> None:
    """Let blocks that fold such branches into a convolution of a stride they note, as FastViT's do,
    note 1."""
    for block in module.modules():
        if vars(block).get("stride") == before and branches & set(block.modules()):
            block.stride = 1  # type: ignore[assignment]  # a plain number


def weight_digest(module: nn.Module) -> str:
    """A short hash of all weights and buffers, which binds labels to their teacher."""
    return digest_of(module.state_dict())


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A short hash of tensors by name."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def parameters(module: nn.Module) -> int:
    """Number of weights, without buffers."""
    return sum(p.numel() for p in module.parameters())


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights are."""
    return next(module.parameters()).device
