"""The n-th row of each group in an order, out of core: all groups at once, digit by digit.

Radix selection from the most significant digit: a pass counts the rows of each group by the next
digit of their code, and the digit in which the n-th row lies is known. Once few enough rows share
all known digits they are collected and sorted. Equal codes are told apart by their ids in the same
way, so that memory is bounded whatever the ties.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from tutelage.labeling.rules import NOWHERE, Answers, Array, Key, Pool

COUNTERS = 1 << 22  # of a pass: 32 MiB
COLLECT = 1 << 22  # rows that are sorted in memory


@dataclass(frozen=True)
class Order:
    """Which rows are ranked, within which group, and by what: smaller codes, then smaller ids."""

    rank: Callable[[Answers], tuple[Array, Array, Array]]  # rows, their groups, their codes
    columns: tuple[str, ...]  # that `rank` reads
    groups: int
    code_bits: int


@dataclass(frozen=True)
class Known:
    """The digits that are known of each group's boundary."""

    wanted: Array  # (G,) int64, rows to take of those that share them; 0: the group is settled
    codes: Array  # (G,) int64, the known upper bits of the code
    ids: Array  # (G,) int64, and of the id
    code_bits: int  # that are not known yet
    id_bits: int

    def among(self, order: Order, answers: Answers) -> tuple[Array, Array, Array, Array]:
        """Rows that share all known digits, with groups, codes and ids (empty while not needed)."""
        rows, groups, codes = order.rank(answers)
        match = (self.wanted[groups] > 0) & (codes >> self.code_bits == self.codes[groups])
        rows, groups, codes = rows[match], groups[match], codes[match]
        if "id" not in answers:
            return rows, groups, codes, rows[:0]
        ids = answers["id"][rows]
        match = ids >> self.id_bits == self.ids[groups]
        return rows[match], groups[match], codes[match], ids[match]


def find(
    pool: Pool,
    order: Order,
    wanted: Callable[[Array], Array],
    *,
    counters: int = COUNTERS,
    collect: int = COLLECT,
) -> tuple[Array, Key]:
    """Rows of each group (G,), and the last of the first `wanted(counts)` (G,) of them.

    A group of which none is wanted gets a key before all rows; never all are.
    """
    counters = min(counters, max(pool.num_rows, order.groups))  # more than rows would be idle
    most = max(1, (counters // order.groups).bit_length() - 1)  # bits of a digit
    known = Known(
        np.ones(order.groups, np.int64), np.zeros(order.groups, np.int64),
        np.zeros(order.groups, np.int64), order.code_bits, pool.id_bits,
    )  # fmt: skip
    table = _count(pool, order, known, most)
    counts = table.sum(1)
    known = replace(known, wanted=wanted(counts))
    assert (known.wanted <= counts).all(), "no more are wanted than there are"
    while known.wanted.any():
        known, left = _next_digit(known, table, most)
        if left <= collect or known.id_bits == 0:
            return counts, _collected(pool, order, known)
        table = _count(pool, order, known, most)
    return counts, Key(np.full(order.groups, NOWHERE), np.full(order.groups, NOWHERE))


def _count(pool: Pool, order: Order, known: Known, most: int) -> Array:
    """Rows of each group by the next digit (G, 2**bits), among those that share the known ones."""
    by_id = known.code_bits == 0
    unknown = known.id_bits if by_id else known.code_bits
    bits = min(most, unknown)
    columns = (*order.columns, *(("id",) if by_id and "id" not in order.columns else ()))

    def places(answers: Answers) -> Array:
        _, groups, codes, ids = known.among(order, answers)
        digits = ((ids if by_id else codes) >> (unknown - bits)) & ((1 << bits) - 1)
        return (groups.astype(np.int64) << bits) + digits

    return count_places(pool.scan(columns, places), order.groups << bits).reshape(-1, 1 << bits)


def count_places(places: Iterator[Array], size: int) -> Array:
    """How often each number below `size` comes; counted once there are as many as counters."""
    total = np.zeros(size, np.int64)
    waiting: list[Array] = []
    for some in places:
        waiting.append(some)
        if sum(map(len, waiting)) >= size:
            total += np.bincount(np.concatenate(waiting), minlength=size)
            waiting = []
    if waiting:
        total += np.bincount(np.concatenate(waiting), minlength=size)
    return total


def _next_digit(known: Known, table: Array, most: int) -> tuple[Known, int]:
    """With one digit more, and how many rows still share all of them."""
    reached = table.cumsum(1)
    digits = (reached >= known.wanted[:, None]).argmax(1)
    groups = np.arange(len(table))
    inside = table[groups, digits]
    open_ = known.wanted > 0
    wanted = np.where(open_, known.wanted - (reached[groups, digits] - inside), 0)
    left = int(inside[open_].sum())
    if known.code_bits:
        bits = min(most, known.code_bits)
        codes = (known.codes << bits) + digits
        return replace(known, wanted=wanted, codes=codes, code_bits=known.code_bits - bits), left
    bits = min(most, known.id_bits)
    ids = (known.ids << bits) + digits
    return replace(known, wanted=wanted, ids=ids, id_bits=known.id_bits - bits), left


def _collected(pool: Pool, order: Order, known: Known) -> Key:
    """The key of each group, out of all rows that share the known digits."""
    columns = (*order.columns, *(() if "id" in order.columns else ("id",)))
    found = list(pool.scan(columns, lambda answers: known.among(order, answers)[1:]))
    groups, codes, ids = (np.concatenate(column) for column in zip(*found, strict=True))
    del found
    sort = np.lexsort((ids, codes, groups))
    first = np.searchsorted(groups[sort], np.arange(order.groups))
    settled = known.wanted == 0
    at = sort[np.where(settled, 0, first + known.wanted - 1)]
    return Key(np.where(settled, NOWHERE, codes[at]), np.where(settled, NOWHERE, ids[at]))
