"""Sizes and times of the files that hold images: each is asked for once, those elsewhere several
at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from tutelage.data.source import Source
from tutelage.data.storage import is_local

AT_ONCE = 16  # files elsewhere that are asked for beside one another, as each answer is waited for
SOME = 4096  # images whose files are told apart at a time; neighbors share theirs

Stamp: TypeAlias = tuple[int, int]  # bytes, and time of change in ns


@dataclass(frozen=True)
class Asked:
    """What is known of images' files."""

    stamps: list[Stamp | None] = field(default_factory=list)  # None: a file is gone
    here: list[bool] = field(default_factory=list)  # whether all of its files are this machine's


def stamps_of(
    source: Source, names: Sequence[str], *,
    gone: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> Asked:  # fmt: skip
    """The stamp of each image, None where asking for it raises one of `gone`, and whether it lies
    on this machine."""

    def ask(name: str) -> Stamp | None:
        try:
            return source.stamp(name)
        except gone:
            return None

    def holders(name: str) -> tuple[str, ...]:
        try:
            return source.holders(name)
        except gone:
            return (name,)  # of which asking says the same

    found = Asked()
    known: dict[tuple[str, ...], Stamp | None] = {}
    for start in range(0, len(names), SOME):
        some = names[start : start + SOME]
        files = [holders(name) for name in some]
        first = {its: name for its, name in zip(files, some, strict=True) if its not in known}
        here = {its: all(map(is_local, its)) for its in files}
        if all(here[its] for its in first):
            new = dict(zip(first, map(ask, first.values()), strict=True))
        else:  # the first one alone, as some sources then learn of all
            one, *others = first.values()
            new = dict(zip(first, [ask(one), *_threads().map(ask, others)], strict=True))
        known = {its: known[its] if its in known else new[its] for its in files}
        found.stamps.extend(known[its] for its in files)
        found.here.extend(here[its] for its in files)
    return found


def sizes_of(source: Source, names: Sequence[str]) -> list[int]:
    """Bytes of each image's file; raises FileNotFoundError where one is gone."""
    stamps = stamps_of(source, names, gone=()).stamps
    return [stamp[0] for stamp in stamps if stamp is not None]  # all


@cache
def _threads() -> ThreadPoolExecutor:
    """One set for all who ask, as a check asks from many threads."""
    return ThreadPoolExecutor(AT_ONCE, "stamp")
