"""Which layer gives what an operation of a network gives, so that something can be put after it."""

from torch import nn

from tutelage.networks.dataflow import Call, Flow

CHILD = "se"  # a site's layer holds its gate under this name
SCALES = ("mul", "mul_", "view", "permute", "unsqueeze", "_unsafe_view", "expand", "clone")
LISTS = nn.Sequential | nn.ModuleList | nn.ModuleDict  # whose children are run in turn


def within(path: str, outer: str) -> bool:
    """Whether a layer is another one, or inside of it; all are inside of the network, ""."""
    return not outer or path == outer or path.startswith(f"{outer}.")


class Places:
    """Which layer's output an operation's result is."""

    def __init__(self, flow: Flow) -> None:
        """Look at all layers that can take a gate."""
        self.flow = flow
        counts: dict[str, int] = {}
        for call in flow.calls:
            counts[call.path] = counts.get(call.path, 0) + 1
        self.ends: dict[int, list[Call]] = {}
        for call in flow.calls:
            if counts[call.path] == 1 and call.output is not None and self._usable(call):
                self.ends.setdefault(call.output, []).append(call)

    def _usable(self, call: Call) -> bool:
        """Whether it made maps, and is no list of layers, nor one that folding replaces."""
        layer = self.flow.layers[call.path]
        listed = isinstance(layer, LISTS)
        made = call.output is not None and call.start <= call.output < call.end
        op = None if call.output is None else self.flow.ops[call.output]
        is_map = op is not None and op.is_map and op.channels > 1
        taken = CHILD in layer._modules or CHILD in vars(layer) or "fuse" in dir(layer)
        return bool(call.path) and is_map and made and not listed and not taken

    def at(self, op: int | None, *, most: str = "") -> Call | None:
        """The outermost layer that gives the operation's result, inside of the layer `most`; None
        where no layer does."""
        inside = (c for c in self.ends.get(-1 if op is None else op, ()) if within(c.path, most))
        return min(inside, key=lambda call: call.path.count("."), default=None)

    def end_of(self, branch: list[int]) -> Call | None:
        """The layer that gives the last result of a branch before noise and scaling, with no fewer
        channels."""
        ops = self.flow.ops
        least = ops[branch[-1]].channels if ops[branch[-1]].is_map else 0
        for op in reversed(branch):
            call = self.at(op)
            if call and ops[op].channels >= least and not self._only_scales(call):
                return call
        return None

    def _only_scales(self, call: Call) -> bool:
        return {op.name for op in self.flow.inside(call)} <= set(SCALES)

    def after(self, op: int) -> Call | None:
        """The last layer after a convolution that leaves its positions and channels apart: its
        norm, its activation."""
        best, reached, goes_on = self.at(op), op, True
        while goes_on:
            goes_on = False
            for call in self.flow.calls:
                if call.inputs == (reached,) and call.output is not None and self._passes(call):
                    reached, goes_on = call.output, True
                    best = self.at(reached) or best
                    break
        return best

    def _passes(self, call: Call) -> bool:
        """Whether a layer does something, and it is no convolution, no pooling and no sum."""
        ops, shape = self.flow.inside(call), self.flow.ops[call.inputs[0]].shape
        assert call.output is not None  # as `after` asks
        if not call.start <= call.output < call.end:
            return False
        same = self.flow.ops[call.output].shape == shape
        return same and not any(op.learns or "pool" in op.name for op in ops)
