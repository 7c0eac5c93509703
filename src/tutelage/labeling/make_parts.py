"""Portions of a source's pool -> parts as bytes, by this process or all of this command."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import torch

from tutelage.core import Advance
from tutelage.data.decode import quiet
from tutelage.data.label_parts import Portion, encoded, listed
from tutelage.data.pixels import own_threads
from tutelage.data.source import Source
from tutelage.distributed.collectives import own_device
from tutelage.distributed.hand_out import Say, handed_out
from tutelage.labeling.answers import Answers, PoolTeacher, answers
from tutelage.labeling.fetch import Fetcher
from tutelage.labeling.pieces import counted, pieces, put_together, say_all
from tutelage.networks.build import device_of

WAITING = 2  # parts being packed while the next is computed


@dataclass(frozen=True)
class Made:
    """A part as it is to be written, and which of its images can't be read."""

    number: int
    shard: str
    images: int
    data: bytes | pa.Buffer  # the Parquet file; empty where the shard itself can't be listed
    problems: tuple[tuple[str, str], ...]  # name, and why


Make: TypeAlias = Callable[[Sequence[Portion], Advance, Advance], Generator[Made]]


@dataclass(frozen=True)
class Opened:
    """A process has begun with a piece."""

    images: int


def make_parts(
    teacher: PoolTeacher,
    source: Source,
    wanted: Sequence[Portion],
    advance: Advance,
    opened: Advance,
    *,
    canvas: int,
    threads: int | None = None,
) -> Generator[Made]:
    """Every wanted part, in order, by this process; shards that can't be listed come last.

    `advance` hears how many more images are labeled, `opened` how many a part has.
    """
    broken: list[Made] = []
    asked = _asked(teacher, source, wanted, broken, advance, opened, canvas=canvas, threads=threads)
    with closing(asked) as said:
        yield from _made(said, teacher)
    yield from broken


def make_parts_together(
    teacher: PoolTeacher,
    source: Source,
    wanted: Sequence[Portion],
    advance: Advance,
    opened: Advance,
    *,
    canvas: int,
) -> Generator[Made]:
    """Every wanted part, by all processes of this command, as they are done.

    A shard is one process's; a pool without shards is shared batch by batch.
    """
    kind, broken = device_of(teacher.module).type, list[Made]()
    with closing(handed_out(_share, pieces(wanted), teacher, source, kind, canvas)) as words:

        def said() -> Iterator[Answers]:
            for word in counted(words, advance):
                if isinstance(word, Opened):
                    opened(word.images)
                elif isinstance(word, Made):
                    broken.append(word)
                else:
                    yield word

        for one in put_together(said(), wanted):
            yield _packed(one, teacher)
    yield from broken


def _share(
    wanted: Iterator[Portion],
    say: Say,
    teacher: PoolTeacher,
    source: Source,
    kind: str,
    canvas: int,
) -> None:
    """The part of the work that is this process's."""
    broken: list[Made] = []
    asked = _asked(
        teacher.on(own_device(torch.device(kind))), source, wanted, broken, say,
        lambda images: say(Opened(images)), canvas=canvas,
    )  # fmt: skip
    with quiet(), closing(asked) as said:
        say_all(said, say)
    for made in broken:
        say(made)


def _asked(
    teacher: PoolTeacher,
    source: Source,
    wanted: Iterable[Portion],
    broken: list[Made],
    advance: Advance,
    opened: Advance,
    *,
    canvas: int,
    threads: int | None = None,
) -> Generator[Answers]:
    """The teacher's answers on portion after portion, as they come; those that can't be listed are
    put aside."""
    pinned = device_of(teacher.module).type == "cuda"
    with (
        ThreadPoolExecutor(1) as lister,
        Fetcher(source, canvas, threads=threads or own_threads(), pinned=pinned) as fetch,
        closing(_listed_ahead(wanted, source, lister, broken, opened)) as its,
        closing(answers(teacher, its, fetch, advance=advance)) as said,
    ):
        yield from said


def _listed_ahead(
    wanted: Iterable[Portion],
    source: Source,
    lister: ThreadPoolExecutor,
    broken: list[Made],
    opened: Advance,
) -> Generator[Portion]:
    """The portions with their names, the next being listed; those that can't be are put aside."""
    coming = iter(wanted)

    def begun() -> tuple[Portion, Future[Portion]] | None:
        portion = next(coming, None)
        return None if portion is None else (portion, lister.submit(listed, portion, source))

    following = begun()
    while following is not None:
        (portion, waiting), following = following, begun()
        try:
            known = waiting.result()
        except Exception as error:  # tar files, Parquet and storage each have errors of their own
            why = ((portion.shard, f"{type(error).__name__}: {error}"),)
            broken.append(Made(portion.number, portion.shard, 0, b"", why))
            continue
        opened(len(known.names))
        yield known


def _made(said: Iterable[Answers], teacher: PoolTeacher) -> Iterator[Made]:
    """The parts, packed by a thread beside."""
    packing: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1) as packer:
        for one in said:
            packing.append(packer.submit(_packed, one, teacher))
            if len(packing) > WAITING:
                yield packing.popleft().result()
        for last in packing:
            yield last.result()


def _packed(said: Answers, teacher: PoolTeacher) -> Made:
    """The part's file."""
    portion = said.portion
    problems = tuple((portion.names[row], why) for row, why in said.problems)
    data = encoded(said.part(teacher))
    return Made(portion.number, portion.shard, len(portion.names), data, problems)
