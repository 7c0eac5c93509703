"""Portions cut into pieces for several processes, and the answers on them put together again.

A piece is one batch, or a whole shard, which one process lists and reads. So batches are those of
one process alone, and a part is the same to the last bit.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tutelage.core import Advance
from tutelage.data.label_parts import Portion
from tutelage.distributed.hand_out import Say
from tutelage.frozen import AT_ONCE
from tutelage.labeling.answers import Answers


def pieces(wanted: Iterable[Portion]) -> Iterator[Portion]:
    """What is handed out at a time."""
    for portion in wanted:
        if portion.shard:
            yield portion
            continue
        for first in range(0, len(portion.names), AT_ONCE):
            names = portion.names[first : first + AT_ONCE]
            yield replace(portion, names=names, first=first)


def say_all(said: Iterable[Answers], say: Say) -> None:
    """Tell the leader, each when the device has been asked for the next one."""
    behind: deque[Answers] = deque()
    for one in said:
        behind.append(one)
        if len(behind) > 1:
            say(behind.popleft().on_cpu())
    for one in behind:
        say(one.on_cpu())


def counted(words: Iterable[Any], advance: Advance) -> Iterator[Any]:
    """The words but for the numbers of images, which `advance` hears."""
    for word in words:
        if isinstance(word, int):
            advance(word)
        else:
            yield word


def put_together(said: Iterable[Answers], wanted: Sequence[Portion]) -> Iterator[Answers]:
    """The answers on whole portions, out of those on their pieces in any order."""
    whole = {portion.number: portion for portion in wanted}
    parts: dict[int, list[Answers]] = {portion.number: [] for portion in wanted}
    for one in said:
        portion = whole[one.portion.number]
        if portion.shard:
            yield one
            continue
        its = parts[portion.number]
        its.append(one)
        if sum(len(piece.portion.names) for piece in its) == len(portion.names):
            yield _joined(portion, parts.pop(portion.number))


def _joined(portion: Portion, its: list[Answers]) -> Answers:
    """The answers on a portion, of its pieces in any order."""
    its.sort(key=lambda one: one.portion.first)
    batches = tuple(batch for one in its for batch in one.batches)
    problems = tuple((one.portion.first + row, why) for one in its for row, why in one.problems)
    return Answers(portion, batches, problems)
