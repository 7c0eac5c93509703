"""An address -> the source that understands it: each file of data/sources/ is one kind."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from tutelage.data import sources, storage
from tutelage.data.decode import SUFFIXES
from tutelage.data.source import Source
from tutelage.data.sources.folder import Folder, is_writable_name, why_unwritable
from tutelage.data.sources.memory import Memory, as_source
from tutelage.errors import UsageError

Address = str | Path
Given = Mapping[str, Source]  # sources made in Python, by their address
PARTS = ("data", "val", "test", "unlabeled")  # settings that name images


@cache
def kinds() -> tuple[type[Source], ...]:
    """All kinds of sources; folders, which may be anything, come last."""
    found = []
    for module in pkgutil.iter_modules(sources.__path__):
        loaded = importlib.import_module(f"{sources.__name__}.{module.name}")
        for _, value in inspect.getmembers(loaded, inspect.isclass):
            own = value.__module__ == loaded.__name__
            if own and issubclass(value, Source) and value is not Folder:
                found.append(value)
    return (*found, Folder)


def open_source(address: Address, given: Given | None = None) -> Source:
    """The source at an address, or the given one of that address.

    Raises UsageError, with the nearest name or the layouts that are known, where there is none.
    """
    text = storage.plain(address)
    if not is_writable_name(text):
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise UsageError(f"{shown}: {why_unwritable(text)}")
    if given and text in given:
        return given[text]
    if storage.is_given(text):
        raise UsageError(f"{text} was given from Python: go on from there, with the same images")
    if not text.startswith(storage.HUB):
        storage.ask_anew(text)
    for kind in kinds():
        if kind.claims(text):
            return kind(text)
    raise UsageError(_nothing_at(text))


def with_addresses(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Source]]:
    """The settings with an address for all images that a program gave, and the sources of those.

    Raises UsageError for values that are no images.
    """
    plain, given = dict(settings), {}
    for name in PARTS:
        value = plain.get(name)
        if value is not None and not isinstance(value, Address):
            source = as_source(value)
            plain[name], given[source.address] = source.address, source
    return plain, given


def source_of(images: Any) -> Source:
    """The source at an address, or of images that a program gave; raises what both raise."""
    return open_source(images) if isinstance(images, Address) else as_source(images)


def _nothing_at(address: str) -> str:
    """Why an address is of no kind."""
    if storage.is_file(address):
        if PurePosixPath(address).suffix.lower() in SUFFIXES:
            return f"{address} is a single image: give the folder that it is in, or a table"
        layouts = "\n".join(f"  {kind.layout}" for kind in kinds() if kind is not Memory)
        return f"{address} is a file of no known kind; tutelage reads\n{layouts}"
    top = storage.top(address)
    if top != address and not storage.is_local(address) and not storage.is_folder(top):
        return f"there is no folder or file {address}, nor is there {top}"
    where = (
        "" if not storage.is_local(address) or Path(address).is_absolute() else f" in {Path.cwd()}"
    )
    near = storage.nearby(address) or ": write the path of a folder or file, see docs/data.md"
    return f"there is no folder or file {address}{where}{near}"
