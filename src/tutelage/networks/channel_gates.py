"""Whether a network weighs its channels already: squeeze-and-excitation, or one of its kin."""

from tutelage.networks.dataflow import Flow, Op

POOLS = {
    "mean", "sum", "amax", "_adaptive_avg_pool2d", "avg_pool2d", "max_pool2d_with_indices",
    "bmm",  # a mean whose weights are learned, as in global context
}  # fmt: skip


def gate_in(flow: Flow) -> str | None:
    """The layer that multiplies maps by one number a channel, made from their mean by weights."""
    for op in flow.ops:
        if op.name not in ("mul", "mul_") or len(op.shape) < 4 or len(set(op.parents)) != 2:
            continue
        one, other = (_narrowest(flow, parent) for parent in op.parents)
        for gate, maps in ((one, other), (other, one)):
            if _narrows(flow.ops[gate], flow.ops[maps]) and _is_learned(flow, gate, maps):
                return op.owner
    return None


def _narrowest(flow: Flow, number: int) -> int:
    """The operation before its result was repeated over all positions."""
    while flow.ops[number].name == "expand":
        number = flow.ops[number].parents[0]
    return number


def _is_learned(flow: Flow, gate: int, maps: int) -> bool:
    """Whether there are weights between the maps' pooling and the gate."""
    fork, pooled = flow.fork(gate, maps), 0
    if fork is None:
        return False
    for number in flow.numbers(fork, gate):
        made = flow.ops[number]
        if made.learns and made.ancestors & pooled:
            return True
        pooled |= (made.name in POOLS) << number
    return False


def _narrows(gate: Op, maps: Op) -> bool:
    """Whether one has a single position for all positions of the other."""
    if len(gate.shape) != len(maps.shape):
        return False
    spans = (slice(-2, None), slice(-3, -1))
    return any(
        set(gate.shape[span]) == {1} and min(maps.shape[span]) > 1 and max(gate.shape) > 1
        for span in spans
    )
