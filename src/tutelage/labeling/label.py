"""A teacher over a pool -> Parquet parts; a part that is there is not made again.

Paper: Noisy Student (Xie et al. 2020, arXiv 1911.04252), algorithm 1, step 2.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.core import Advance
from tutelage.data import label_parts
from tutelage.data.label_parts import (
    Portion,
    encoded,
    part_numbers,
    part_path,
    read_about,
    read_columns,
    read_part,
    write_part,
)
from tutelage.data.pixels import Pixels
from tutelage.data.pool import PseudoLabels, from_parts
from tutelage.distributed.collectives import own_device, world
from tutelage.distributed.hand_out import Say, handed_out
from tutelage.errors import RunMismatch
from tutelage.labeling.answers import Answers, Batch, PoolTeacher, answers
from tutelage.labeling.pieces import counted, pieces, put_together, say_all
from tutelage.networks.build import device_of, weight_digest


def label_pool(
    teacher: nn.Module,
    pixels: Pixels,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    out: Path,
    *,
    size: int,
    precision: str = "fp32",
    advance: Advance = lambda done: None,
) -> PseudoLabels:
    """The clean, un-noised teacher's answers on every image, also written to part-*.parquet.

    Raises RunMismatch where `out` holds the labels of another teacher or pool.
    """
    asked = PoolTeacher(teacher, weight_digest(teacher), classes, size, precision)
    step = label_parts.PART
    wanted = [
        Portion(number, "", names[start : start + step])
        for number, start in enumerate(range(0, len(names), step))
    ]
    out.mkdir(parents=True, exist_ok=True)
    there = check_there(out, wanted, asked)
    missing = [portion for portion in wanted if portion.number not in there]
    with closing(_asked(asked, pixels, missing, advance)) as said:
        for one in said:
            write_part(out, one.portion.number, encoded(one.part(asked)))
    return from_parts([read_part(part_path(out, portion.number)) for portion in wanted])


def _asked(
    teacher: PoolTeacher, pixels: Pixels, missing: Sequence[Portion], advance: Advance
) -> Generator[Answers]:
    """The answers on each portion, by all processes of this command."""
    step = label_parts.PART
    if world() == 1 or not missing:
        yield from _of_pixels(teacher, pixels, missing, advance, step)
        return
    kind = device_of(teacher.module).type
    with closing(handed_out(_say_of_pixels, pieces(missing), teacher, pixels, kind, step)) as words:
        yield from put_together(counted(words, advance), missing)


def _of_pixels(
    teacher: PoolTeacher, pixels: Pixels, wanted: Iterable[Portion], advance: Advance, step: int
) -> Generator[Answers]:
    """The answers on portions of rows of a set, which are so many each."""
    with ThreadPoolExecutor(1) as thread:

        def fetch(portion: Portion, rows: Tensor) -> Callable[[], Batch]:
            first = portion.number * step + portion.first
            images: Future[Tensor] = thread.submit(pixels.at, rows + first)
            return lambda: (images.result(), ())

        with closing(answers(teacher, wanted, fetch, advance=advance)) as said:
            yield from said


def _say_of_pixels(
    wanted: Iterator[Portion], say: Say, teacher: PoolTeacher, pixels: Pixels, kind: str, step: int
) -> None:
    """The same, said to the leader, in each process."""
    teacher = teacher.on(own_device(torch.device(kind)))
    with closing(_of_pixels(teacher, pixels, wanted, say, step)) as said:
        say_all(said, say)


def check_there(out: Path, wanted: Sequence[Portion], teacher: PoolTeacher) -> dict[int, int]:
    """Numbers of the parts that are there, and their images.

    Raises RunMismatch for a part of another teacher or of other images, DataProblem for one that is
    damaged.
    """
    there = {}
    for number in part_numbers(out):
        path = part_path(out, number)
        if number >= len(wanted):
            raise RunMismatch(
                f"{path} is part {number + 1} of a pool, and this one has {len(wanted)}: it was "
                "written for other images; choose another --out"
            )
        portion = wanted[number]
        about, rows = read_about(path)
        if about.teacher != teacher.digest or about.classes != teacher.classes:
            raise RunMismatch(
                f"{path} was written by another teacher, {about.teacher} and not {teacher.digest}: "
                "choose another --out"
            )
        if about.shard != portion.shard:
            its, here = about.shard or "a pool without shards", portion.shard or "no shards"
            raise RunMismatch(
                f"{path} has the labels of {its}, where the pool has {here}: give the pool that "
                "was labeled, all of it, or choose another --out"
            )
        if not portion.shard and _other(path, portion):
            raise RunMismatch(f"{path} was written for other images: choose another --out")
        there[number] = rows
    return there


def _other(path: Path, portion: Portion) -> bool:
    """Whether a part has other images."""
    return tuple(read_columns(path, ["path"])["path"].to_pylist()) != portion.names
