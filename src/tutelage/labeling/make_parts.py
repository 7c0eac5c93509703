"""Portions of a source's pool -> parts as bytes, on this machine, one after another."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from tutelage.data.label_parts import Portion, encoded, listed
from tutelage.data.pixels import THREADS
from tutelage.data.source import Source
from tutelage.labeling.fetch import Fetcher
from tutelage.labeling.label import Answers, PoolTeacher, answers
from tutelage.networks.build import device_of

WAITING = 2  # parts being packed while the next is computed

Hear: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class Made:
    """A part as it is to be written, and which of its images can't be read."""

    number: int
    shard: str
    images: int
    data: bytes | pa.Buffer  # the Parquet file; empty where the shard itself can't be listed
    problems: tuple[tuple[str, str], ...]  # name, and why


Make: TypeAlias = Callable[[Sequence[Portion], Hear, Hear], Generator[Made]]


def make_parts(
    teacher: PoolTeacher,
    source: Source,
    wanted: Sequence[Portion],
    advance: Hear,
    opened: Hear,
    *,
    canvas: int,
    threads: int = THREADS,
) -> Generator[Made]:
    """Every wanted part, in order; shards that can't be listed come last.

    `advance` hears how many more images are labeled, `opened` how many a part has.
    """
    broken: list[Made] = []
    pinned = device_of(teacher.module).type == "cuda"
    with (
        ThreadPoolExecutor(1) as packer,
        ThreadPoolExecutor(1) as lister,
        Fetcher(source, canvas, threads=threads, pinned=pinned) as fetch,
        closing(_listed_ahead(wanted, source, lister, broken, opened)) as its,
        closing(answers(teacher, its, fetch, advance=advance)) as said,
    ):
        packing: deque[Future[Made]] = deque()
        for one in said:
            packing.append(packer.submit(_packed, one, teacher))
            if len(packing) > WAITING:
                yield packing.popleft().result()
        for last in packing:
            yield last.result()
    yield from broken


def _listed_ahead(
    wanted: Sequence[Portion],
    source: Source,
    lister: ThreadPoolExecutor,
    broken: list[Made],
    opened: Hear,
) -> Generator[Portion]:
    """The portions with their names, the next being listed; those that can't be are put aside."""
    begun = deque(lister.submit(listed, portion, source) for portion in wanted[:1])
    for here, portion in enumerate(wanted):
        waiting = begun.popleft()
        if here + 1 < len(wanted):
            begun.append(lister.submit(listed, wanted[here + 1], source))
        try:
            known = waiting.result()
        except Exception as error:  # tar files, Parquet and storage each have errors of their own
            why = ((portion.shard, f"{type(error).__name__}: {error}"),)
            broken.append(Made(portion.number, portion.shard, 0, b"", why))
            continue
        opened(len(known.names))
        yield known


def _packed(said: Answers, teacher: PoolTeacher) -> Made:
    """The part's file."""
    portion = said.portion
    problems = tuple((portion.names[row], why) for row, why in said.problems)
    data = encoded(said.part(teacher))
    return Made(portion.number, portion.shard, len(portion.names), data, problems)
