"""Sizes and times of the files that hold images: each is asked for once, those elsewhere several
at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from tutelage.data.source import Source
from tutelage.data.storage import is_local

AT_ONCE = 16  # files elsewhere that are asked for beside one another, as each answer is waited for
SOME = 4096  # images whose files are told apart at a time; neighbors share theirs

Stamp: TypeAlias = tuple[int, int]  # bytes, and time of change in ns


def stamps_of(
    source: Source, names: Sequence[str], *,
    gone: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> list[Stamp | None]:  # fmt: skip
    """The stamp of each image; None where asking for it raises one of `gone`."""

    def ask(name: str) -> Stamp | None:
        try:
            return source.stamp(name)
        except gone:
            return None

    found: list[Stamp | None] = []
    known: dict[tuple[str, ...], Stamp | None] = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for start in range(0, len(names), SOME):
            some = names[start : start + SOME]
            files = [source.holders(name) for name in some]
            first = {its: name for its, name in zip(files, some, strict=True) if its not in known}
            if all(map(_are_here, first)):
                new = dict(zip(first, map(ask, first.values()), strict=True))
            else:  # the first one alone, as some sources then learn of all
                one, *others = first.values()
                new = dict(zip(first, [ask(one), *threads.map(ask, others)], strict=True))
            known = {its: known[its] if its in known else new[its] for its in files}
            found += [known[its] for its in files]
    return found


def lie_here(source: Source, names: Sequence[str]) -> list[bool]:
    """Whether each image is read from files of this machine alone."""
    return [_are_here(source.holders(name)) for name in names]


def _are_here(files: tuple[str, ...]) -> bool:
    return all(map(is_local, files))
