"""Networks whose weights, gradients and optimizer are spread over all processes.

Zhao et al. 2023, PyTorch FSDP (arXiv 2304.11277), by torch's `fully_shard`: each process holds a
part of every weight. The weights of a block are put together just before it computes, and taken
apart after it. A network's names, its answers and its saved state stay what they are.
What torch has for it is imported where it is used: it takes its time, and not all builds have it.
"""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tutelage.distributed.collectives import rank, world
from tutelage.errors import UsageError

LEAST = 0.01  # of a network's weights, for a block that is put together by itself
SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class _Uses(TorchFunctionMode):
    """Notes which layers compute, and which of them FSDP can't take: those whose weights are used
    while they don't compute, that change what they are given, or that answer with a view which is
    changed later on: torch would lose track of it."""

    def __init__(self, module: nn.Module) -> None:
        """Watch all layers of a network."""
        super().__init__()
        self.owners: dict[int, list[nn.Module]] = {id(weight): [] for weight in module.parameters()}
        self.now: list[nn.Module] = []
        self.given: list[list[int]] = []  # versions of what they were given
        self.called: set[nn.Module] = set()
        self.unfit: set[nn.Module] = set()
        self.views: list[tuple[nn.Module, Tensor, int]] = []  # answers, with their versions
        for layer in module.modules():
            for weight in layer.parameters():
                self.owners[id(weight)].append(layer)
            layer.register_forward_pre_hook(self._enter)
            layer.register_forward_hook(self._leave)

    def _enter(self, layer: nn.Module, given: Any) -> None:
        self.called.add(layer)
        self.now.append(layer)
        self.given.append([one._version for one in _flat(given) if isinstance(one, Tensor)])

    def _leave(self, layer: nn.Module, given: Any, found: Any) -> None:
        self.now.pop()
        versions = [one._version for one in _flat(given) if isinstance(one, Tensor)]
        if versions != self.given.pop():
            self.unfit.add(layer)
        tensors = [one for one in _flat(found) if isinstance(one, Tensor)]
        self.views += [(layer, one, one._version) for one in tensors if one._is_view()]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Look at the arguments of whatever torch computes."""
        for one in _flat((args, kwargs or {})):
            self.unfit.update(set(self.owners.get(id(one), ())) - set(self.now))
        return func(*args, **(kwargs or {}))


def _flat(nested: Any) -> Iterator[Any]:
    """All values in tuples, lists and dicts."""
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    if not isinstance(nested, tuple | list):
        yield nested
        return
    for one in nested:
        yield from _flat(one)


def skeleton(module: nn.Module) -> nn.Module:
    """A copy without the weights, which are on the meta device."""
    bare: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
        for weight in module.parameters()
    }
    return deepcopy(module, bare)


def blocks_of(module: nn.Module, size: int) -> list[str]:
    """Names of the layers to put together one at a time, inner ones first: parts of sequences, and
    the network's own parts, that have a share of its weights which nothing else uses.

    A copy on the meta device shows it, with images of `size` pixels. Where that can't be run there
    are none, and the network is put together as a whole.
    """
    bare = skeleton(module).to("meta")
    uses = _Uses(bare)
    try:
        with torch.enable_grad(), uses:
            bare(torch.zeros(2, 3, size, size, device="meta"))
    except (RuntimeError, NotImplementedError, ValueError, AssertionError):
        return []
    changed = {layer for layer, answer, version in uses.views if answer._version != version}
    fit = uses.called - uses.unfit - changed
    least = LEAST * sum(weight.numel() for weight in bare.parameters())
    found: list[str] = []
    taken: set[nn.Parameter] = set()
    for name, layer in reversed(dict(bare.named_modules()).items()):  # inner ones first
        parent = bare.get_submodule(name.rpartition(".")[0])
        part = isinstance(parent, SEQUENCES) or parent is bare or parent in bare.children()
        own = set(layer.parameters()) - taken
        big = sum(weight.numel() for weight in own) >= least
        if name and part and big and layer in fit:
            found.append(name)
            taken |= own
    return found


def spread(module: nn.Module, blocks: list[str], device: torch.device) -> None:
    """Let each process have its part of the weights, on that device, and whole buffers.

    Raises UsageError for a weight that is a single number without a dimension.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, weight in module.named_parameters():
        if not weight.ndim:
            raise UsageError(
                f"the weight {name} is a single number, which can't be sharded: leave out --shard"
            )
        weight.data = weight.data.contiguous()
    # `blocks_of` has seen whether an answer that is a view is changed.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    mesh = init_device_mesh(device.type, (world(),))
    for name in blocks:
        fully_shard(module.get_submodule(name), mesh=mesh, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)  # or it would answer with old ones


def spread_with(
    module: nn.Module, optimizer: torch.optim.Optimizer, blocks: list[str], device: torch.device
) -> None:
    """The same for a network that learns, with its gradients and its optimizer's state."""
    names: dict[Tensor, str] = {weight: name for name, weight in module.named_parameters()}
    slopes = {name: weight.grad for weight, name in names.items()}
    groups = [[names[weight] for weight in group["params"]] for group in optimizer.param_groups]
    states = {names[weight]: state for weight, state in optimizer.state.items()}
    names.clear()  # nothing is to hold the whole weights
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["params"] = []
    spread(module, blocks, device)
    weights = dict(module.named_parameters())
    for group, own in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = [weights[name] for name in own]
    for name, state in states.items():
        optimizer.state[weights[name]] = {
            key: part_like(v, weights[name]) for key, v in state.items()
        }
    for name, slope in slopes.items():
        weights[name].grad = None if slope is None else part_like(slope, weights[name])


def part_like(value: Any, weight: Tensor) -> Any:
    """A whole tensor of a weight's shape, spread as that is; anything else as it is."""
    from torch.distributed.tensor import DTensor

    assert isinstance(weight, DTensor)
    if not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    each = -(-len(value) // world())
    own = value[rank() * each : (rank() + 1) * each]
    own = own.to(weight.device, copy=True, memory_format=torch.contiguous_format)
    stride = torch.empty(value.shape, device="meta").stride()
    return DTensor.from_local(
        own, weight.device_mesh, weight.placements, shape=value.shape, stride=stride
    )


def parts(tensors: list[Tensor]) -> list[Tensor]:
    """What this process has of each."""
    if world() == 1:
        return tensors
    from torch.distributed.tensor import DTensor

    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def whole(value: Any, device: str | torch.device = "cpu") -> Any:
    """The same with tensors put together again, on a device of the leader, in tuples, lists and
    dicts too; what is no part of something stays as it is. All processes take part, and those that
    don't lead get tensors without content."""
    from torch.distributed.tensor import DTensor

    if isinstance(value, dict):
        return type(value)((key, whole(one, device)) for key, one in value.items())
    if isinstance(value, tuple | list):
        return type(value)(whole(one, device) for one in value)
    if not isinstance(value, DTensor):
        return value
    with torch.no_grad():
        full = value.full_tensor()
    order = torch.channels_last if full.ndim == 4 else torch.contiguous_format
    return full.to("meta" if rank() else device).contiguous(memory_format=order)


def put_together(bare: nn.Module, module: nn.Module, device: torch.device) -> nn.Module:
    """A plain network, made of a skeleton and the weights and buffers of one that is spread; all
    processes take part, and those that don't lead get one without weights."""
    weights: dict[int, Any] = {
        id(meta): nn.Parameter(whole(weight, device), weight.requires_grad)
        for meta, weight in zip(bare.parameters(), module.parameters(), strict=True)
    }
    plain = deepcopy(bare, weights)
    for layer, other in zip(plain.modules(), module.modules(), strict=True):
        layer._buffers.update(
            {key: b if b is None else b.clone() for key, b in other._buffers.items()}
        )
    return plain


def forget_forwards(module: nn.Module) -> None:
    """Drop what torch notes in each forward for a backward that doesn't come, a few bytes a block;
    before torch 2.13 or so it can't be dropped."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(module, FSDPModule)
    try:
        module.reset_iter_state()
    except AttributeError:
        return
