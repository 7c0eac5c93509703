"""What a network computes, seen in one dry forward pass without weights: operations and layers.

Operations are torch's own (aten), so that it doesn't matter how a network is written down.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.errors import UsageError

SIDES = (224, 256, 384, 32, 64, 28, 96, 128, 299, 512)  # pixels, where a network doesn't say
MATMULS = ("addmm", "mm")  # what a linear layer comes to
ATTENTION = ("bmm", "baddbmm", "_scaled_dot_product")


@dataclass(frozen=True)
class Op:
    """One operation on what descends from the image, and the one tensor it gave."""

    name: str  # as in add, add_, convolution
    parents: tuple[int, ...]  # operations before it, by number
    ancestors: int  # bit i is set where operation i leads here; its own bit too
    shape: tuple[int, ...]
    channels_last: bool  # (B, H, W, C) instead of (B, C, H, W)
    owner: str  # path of the innermost layer that did it
    kernel: int = 0  # side of a convolution's weights; 0: no convolution
    groups: int = 1
    strides: int = 1

    @property
    def channels(self) -> int:
        """Channels of a map."""
        return self.shape[-1 if self.channels_last else 1]

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of a map."""
        return self.shape[1:3] if self.channels_last else self.shape[2:4]

    @property
    def is_map(self) -> bool:
        """Whether it is a batch of feature maps of more than one position."""
        return len(self.shape) == 4 and math.prod(self.sides) > 1

    @property
    def learns(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.kernel > 0 or self.name in MATMULS

    @property
    def is_spatial(self) -> bool:
        """Whether it is a convolution that mixes positions, and no cut into patches."""
        return self.kernel > 1 and self.kernel != self.strides

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution of each channel by itself."""
        return self.kernel > 1 and self.groups == self.channels > 1


@dataclass(frozen=True)
class Call:
    """One use of a layer."""

    path: str
    inputs: tuple[int, ...]  # operations that made its inputs
    output: int | None  # the operation that made its output; None where it is no single tensor
    start: int  # number of its first operation
    end: int  # and of the next one after it


@dataclass
class Flow:
    """All operations in order, and all uses of layers in the order of their ends."""

    layers: dict[str, nn.Module]
    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def between(self, first: int, last: int) -> list[Op]:
        """What leads from one operation to another, which belongs to it, in order."""
        reach = self.ops[last].ancestors
        return [
            op
            for i, op in enumerate(self.ops[first + 1 : last + 1], first + 1)
            if reach >> i & 1 and op.ancestors >> first & 1
        ]

    def numbers(self, first: int, last: int) -> list[int]:
        """The same as numbers."""
        reach = self.ops[last].ancestors
        span = range(first + 1, last + 1)
        return [i for i in span if reach >> i & 1 and self.ops[i].ancestors >> first & 1]

    def fork(self, one: int, other: int) -> int | None:
        """The last operation that leads to both; None where there is none."""
        common = self.ops[one].ancestors & self.ops[other].ancestors
        return common.bit_length() - 1 if common else None

    def inside(self, call: Call) -> list[Op]:
        """What a use of a layer did."""
        return self.ops[call.start : call.end]

    @property
    def attends(self) -> bool:
        """Whether positions are mixed by attention somewhere."""
        return any(op.name.startswith(ATTENTION) for op in self.ops)


def flow_of(net: nn.Module) -> Flow:
    """The dry run of a network on one image, on a copy without weights and in eval mode.

    Raises UsageError where it takes no image of any usual size.
    """
    tensors = (*net.parameters(), *net.buffers())
    bare: dict[int, Any] = {
        id(t): nn.Parameter(t.detach().to("meta"), requires_grad=False) for t in tensors
    }
    twin = copy.deepcopy(net, bare).eval()
    why: Exception | None = None
    for shape in _shapes(twin):
        try:
            return _run(twin, shape)
        except (AssertionError, RuntimeError, TypeError, ValueError, IndexError) as error:
            why = why or error
    raise UsageError(
        f"{type(net).__name__} takes no single image (1, 3, H, W) ({why}): leave out --se, "
        "which is for networks of images"
    ) from why


def _shapes(net: nn.Module) -> Sequence[tuple[int, int, int]]:
    """Shapes of images to try: what timm names first."""
    known = (vars(net).get("pretrained_cfg") or {}).get("input_size")
    convs = (m for m in net.modules() if isinstance(m, nn.Conv2d))
    first = next(convs, None)
    channels = 3 if first is None else first.in_channels
    usual = [(channels, side, side) for side in SIDES]
    return [tuple(known), *usual] if known else usual


class _Recorder(TorchDispatchMode):
    """Notes every operation on what descends from the image."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow, self.stack = flow, [""]
        self.made: dict[int, int] = {}  # id of a tensor -> its operation
        self.kept: list[Tensor] = []  # so that no id comes twice

    def number(self, tensor: Any) -> int | None:
        """The operation that made a tensor; None where it doesn't descend from the image."""
        return self.made.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do the operation, and note it."""
        found = func(*args, **(kwargs or {}))
        given = [self.number(leaf) for leaf in tree_leaves(args)]
        parents = tuple(n for n in given if n is not None)
        if parents:
            for leaf in tree_leaves(found):
                if isinstance(leaf, Tensor):
                    self.note(func.overloadpacket.__name__, parents, args, leaf)
        return found

    def note(self, name: str, parents: tuple[int, ...], args: Any, made: Tensor) -> None:
        """One more operation."""
        ops = self.flow.ops
        last = ops[parents[0]].channels_last if parents else False
        if name in ("permute", "transpose") and len(made.shape) == 4:
            last = _is_last(name, args, last)
        reach = 1 << len(ops)
        for parent in parents:
            reach |= ops[parent].ancestors
        more = {}
        if name == "convolution":
            weight = args[1]
            more = {"kernel": max(weight.shape[2:]), "groups": args[8], "strides": max(args[3])}
        op = Op(name, parents, reach, tuple(made.shape), last, self.stack[-1], **more)
        self.made[id(made)] = len(ops)
        self.kept.append(made)
        ops.append(op)


def _is_last(name: str, args: Any, before: bool) -> bool:
    """Whether channels are last in a batch of maps whose axes were put in another order."""
    if name == "permute":
        order = [int(axis) % 4 for axis in args[1]]
        return order.index(3 if before else 1) == 3
    axes = {int(axis) % 4 for axis in args[1:3]}
    return not before if axes == {1, 3} else before


def _run(net: nn.Module, shape: tuple[int, int, int]) -> Flow:
    """The forward pass; raises what it raises."""
    flow = Flow(dict(net.named_modules()))
    recorder = _Recorder(flow)
    paths = {layer: path for path, layer in flow.layers.items()}
    begun: list[tuple[int, ...]] = []  # inputs, before a layer changes them in place

    def enter(layer: nn.Module, inputs: Any) -> None:
        recorder.stack.append(paths[layer])
        given = [recorder.number(leaf) for leaf in tree_leaves(inputs)]
        begun.append((len(flow.ops), *(n for n in given if n is not None)))

    def leave(layer: nn.Module, inputs: Any, output: Any) -> None:
        recorder.stack.pop()
        start, *given = begun.pop()
        made = recorder.number(output)
        flow.calls.append(Call(paths[layer], tuple(given), made, start, len(flow.ops)))

    for layer in flow.layers.values():
        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave)
    try:
        with torch.no_grad(), torch.device("meta"):
            image = torch.zeros(1, *shape)
            with recorder:
                recorder.note("image", (), (), image)
                net(image)
    finally:
        for layer in flow.layers.values():
            layer._forward_hooks.clear()
            layer._forward_pre_hooks.clear()
    return flow
