"""Where squeeze-and-excitation goes in a network, found by what the network computes.

Paper: Hu et al. 2018 (arXiv 1709.01507), section 3 and figures 2 and 3: in a residual network on
the branch, after its last norm and before the addition; in an Inception network on what a module
concatenates; in a plain one after each convolution's norm and activation. Not in the paper: in
DenseNets on the new maps of each layer; in inverted residuals after the widened spatial
convolution, as in MobileNetV3 (arXiv 1905.02244); in blocks without a shortcut that stand among
those with one, at their end.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from tutelage.errors import UsageError
from tutelage.networks.channel_gates import gate_in
from tutelage.networks.dataflow import Call, Flow, Op
from tutelage.networks.places import LISTS, Places, within

SLICES = ("split", "split_with_sizes", "slice", "select", "chunk", "narrow", "unbind", "index")
BRANCHES = 3  # of a module that concatenates them

Where = str | Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Site:
    """A layer whose output gets a gate."""

    path: str  # of the layer
    channels: int
    channels_last: bool = False


def sites_in(flow: Flow, where: Where, name: str) -> tuple[Site, ...]:
    """The sites of a network in the order of the forward pass; `name` is for messages.

    Raises UsageError where there are none, or its channels are weighed already.
    """
    gate = gate_in(flow)
    if gate is not None:
        raise UsageError(
            f"{name} weighs its channels already, in {gate or 'its forward pass'}: "
            "squeeze-and-excitation twice is a mistake; leave out --se, or take a network without"
        )
    found = _automatic(flow) if where == "auto" else _chosen(flow, where, name)
    sites: dict[str, Site] = {}
    for call in sorted(found, key=lambda call: call.end):
        assert call.output is not None  # as _usable asks
        op = flow.ops[call.output]
        sites[call.path] = Site(call.path, op.channels, op.channels_last)
    if not sites:
        raise UsageError(
            f"{name} has no convolution maps, apart from attention, for squeeze-and-excitation: "
            "leave out --se, or take a convolutional network, such as resnet50"
        )
    return tuple(sites.values())


def _automatic(flow: Flow) -> list[Call]:
    """The paper's sites: of the first kind of network that it is."""
    adds = list(_additions(flow))
    found = _residual(flow, adds)
    if found or flow.attends:
        return found
    found = _dense(flow) or _concatenated(flow)
    if found or adds:
        return found
    return _plain(flow)


def _chosen(flow: Flow, where: Where, name: str) -> list[Call]:
    """The layers that a pattern or a function of name and layer chooses."""
    wanted = {
        path: layer
        for path, layer in flow.layers.items()
        if path and (where(path, layer) if callable(where) else fnmatchcase(path, where))
    }
    places = Places(flow)
    calls = [call for call in flow.calls if call.path in wanted]
    found = [places.at(call.output, most=call.path) for call in calls if call.output is not None]
    usable = [call for call in found if call is not None]
    if not usable:
        some = ", ".join([path for path in flow.layers if path][-3:])
        raise UsageError(
            f"--se-where {where!r} chooses no layer of {name} that gives maps and is used once: "
            f"its layers are called like {some}"
        )
    return usable


@dataclass(frozen=True)
class Addition:
    """A residual block's sum."""

    owner: str  # the layer that does it
    fork: int  # what both sides begin with
    branch: int  # its last operation


def _additions(flow: Flow) -> Iterator[Addition]:
    """All sums of a branch and a shortcut, which has at most one convolution."""
    folded = _foldable(flow)
    for op in flow.ops:
        if op.name not in ("add", "add_") or len(set(op.parents)) != 2:
            continue
        one, other = op.parents
        fork = flow.fork(one, other)
        if fork is None or any(within(op.owner, path) for path in folded):
            continue
        sides = sorted((_weights(flow, fork, side), side) for side in (one, other))
        (fewer, shortcut), (more, branch) = sides
        cut = any(_cuts(between) for between in flow.between(fork, shortcut))
        if fewer <= 1 and fewer < more and not cut:
            yield Addition(op.owner, fork, branch)


def _cuts(op: Op) -> bool:
    """Whether a shortcut would lose by it: a part of its channels, or what others hold back."""
    return op.name in SLICES or (op.name in ("mul", "mul_") and len(set(op.parents)) > 1)


def _foldable(flow: Flow) -> list[str]:
    """Layers of parallel branches that become one convolution for use, as in RepVGG."""
    return [path for path, layer in flow.layers.items() if path and "reparameterize" in dir(layer)]


def _weights(flow: Flow, fork: int, end: int) -> int:
    """Convolutions and linear layers on the way."""
    return sum(op.learns for op in flow.between(fork, end))


def _mixes(flow: Flow, ops: list[Op]) -> bool:
    """Whether it is a branch of convolutions that mix positions, without attention."""
    least = 2 if flow.attends else 1  # a position encoding of a transformer is one convolution
    attends = any(op.name.startswith(("bmm", "baddbmm", "_scaled")) for op in ops)
    learned = sum(op.learns for op in ops)
    return learned >= least and any(op.is_spatial for op in ops) and not attends


def _residual(flow: Flow, adds: list[Addition]) -> list[Call]:
    """Sites in residual blocks, and in those without a shortcut that stand among them."""
    places, found = Places(flow), []
    whole = {call.path for call in _concatenating(flow, ends=True)}
    blocks: set[str] = set()
    for add in adds:
        op = flow.ops[add.branch]
        mixing = op.is_map and op.channels > 1 and _mixes(flow, flow.between(add.fork, add.branch))
        if mixing and add.owner not in whole:
            found.append(_on_branch(places, add.fork, flow.numbers(add.fork, add.branch)))
            blocks.add(add.owner)
    kinds = {_kind(path) for path in blocks if path}
    for call in flow.calls:
        if _kind(call.path) in kinds and call.path not in blocks and len(call.inputs) == 1:
            ops = flow.inside(call)
            if call.output is None or sum(op.learns for op in ops) < 2 or not _mixes(flow, ops):
                continue
            if flow.ops[call.output].is_map:
                way = flow.numbers(call.inputs[0], call.output)
                found.append(_on_branch(places, call.inputs[0], way))
    return [call for call in found if call is not None]


def _kind(path: str) -> str:
    """A layer's name without its numbers, which blocks of one network share."""
    return re.sub(r"\d+", "*", path)


def _on_branch(places: Places, fork: int, branch: list[int]) -> Call | None:
    """The branch's site: after its widest spatial convolution where it is inverted, else its end.

    A branch is inverted where a depthwise convolution, or a first one that isn't grouped, gives
    more channels than the branch takes and gives.
    """
    ops = places.flow.ops
    ends = max(ops[fork].channels, ops[branch[-1]].channels)
    learned = [n for n in branch if ops[n].learns]
    wide = [
        n
        for n in learned
        if ops[n].is_spatial and ops[n].channels > ends
        if ops[n].is_depthwise or (n == learned[0] and ops[n].groups == 1)
    ]
    if wide and wide[-1] != learned[-1]:
        return places.after(wide[-1]) or places.end_of(branch)
    return places.end_of(branch)


def _dense(flow: Flow) -> list[Call]:
    """New maps that are concatenated with all before, again and again, as in DenseNets."""
    lists: dict[int, tuple[int, ...]] = {}
    known, new = set(), []
    longest = 0
    for number, op in enumerate(flow.ops):
        if op.name != "cat" or not op.is_map:
            continue
        parts = tuple(p for parent in op.parents for p in lists.get(parent, (parent,)))
        lists[number] = parts
        if len(parts) > 1:
            grown = parts[:-1] in known or len(parts) == 2
            if grown and any(o.is_spatial for o in flow.between(parts[0], parts[-1])):
                new.append(parts[-1])
                longest = max(longest, len(parts))
        known.add(parts)
    places = Places(flow)
    found = [places.at(number) for number in dict.fromkeys(new)]
    return [call for call in found if call is not None] if longest > BRANCHES else []


def _concatenating(flow: Flow, *, ends: bool) -> list[Call]:
    """Layers that concatenate branches with convolutions; `ends`: and give just that."""
    calls = {call.path: call for call in flow.calls}
    found: dict[str, Call] = {}
    for number, op in enumerate(flow.ops):
        path = op.owner
        while path and isinstance(flow.layers[path], LISTS):
            path = path.rpartition(".")[0]
        call = calls.get(path)
        if op.name != "cat" or len(set(op.parents)) < BRANCHES or call is None or not call.path:
            continue
        mixing = any(inner.is_spatial for inner in flow.inside(call))
        if op.is_map and mixing and (call.output == number or not ends):
            found[call.path] = call
    return list(found.values())


def _concatenated(flow: Flow) -> list[Call]:
    """Whole Inception modules and their like, which go on with a convolution."""
    calls = _concatenating(flow, ends=False)
    places = Places(flow)
    found = [
        places.at(call.output) if call.output is not None else places.end_of(_inner(call))
        for call in calls
        if not any(call.path != other.path and within(call.path, other.path) for other in calls)
    ]
    return [call for call in found if call is not None]


def _inner(call: Call) -> list[int]:
    return list(range(call.start, call.end))


def _plain(flow: Flow) -> list[Call]:
    """Each convolution with its norm and activation; a depthwise one counts with the next."""
    places, found = Places(flow), []
    paths = set(_foldable(flow))
    folded = [call for call in flow.calls if call.path in paths]
    for number, op in enumerate(flow.ops):
        patches = op.kernel > 1 and not op.is_spatial
        if not op.kernel or patches or op.is_depthwise or not op.is_map:
            continue
        outer = [call for call in folded if call.start <= number < call.end]
        found.append(places.at(outer[-1].output) if outer else places.after(number))
    return [call for call in found if call is not None]
