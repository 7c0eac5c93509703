"""What a check leaves over, as CSV files to train from; the images stay as they are."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tutelage.data import storage
from tutelage.data.facts import Part
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.table import Table
from tutelage.errors import UsageError
from tutelage.files import write_text

SPLIT_OF = {"labeled": "train", "val": "val", "test": "test"}


def write_cleaned(folder: Path, parts: Mapping[str, Part]) -> tuple[Path, Path | None]:
    """manifest.csv (path, label, where there are any split, group), pool.csv (path, group).

    Copies to learn from stand there once. Raises UsageError where images are no files of their own.
    """
    labeled = {name: part for name, part in parts.items() if name in SPLIT_OF}
    grouped = any(part.images.groups for part in labeled.values())
    header = ["path", "label", *(["split"] if len(labeled) > 1 else []), *["group"] * grouped]
    rows = []
    for name, part in labeled.items():
        images = part.images
        for row in _once(part) if name == "labeled" else range(len(images)):
            label = images.classes[images.labels[row]] if images.labels else ""
            group = [images.groups[row] if images.groups else ""] if grouped else []
            split = [SPLIT_OF[name]] if len(labeled) > 1 else []
            rows.append([_path(part, row), label, *split, *group])
    path = folder / "manifest.csv"
    _write(path, header, rows)
    if "pool" not in parts:
        return path, None
    pool = parts["pool"]
    groups = pool.images.groups
    header = ["path", *(["group"] if groups else [])]
    _write(
        folder / "pool.csv", header,
        ([_path(pool, row), *([groups[row]] if groups else [])] for row in _once(pool)),
    )  # fmt: skip
    return path, folder / "pool.csv"


def _once(part: Part) -> list[int]:
    """The first row of each content, in order."""
    return [rows[0] for rows in part.copies().values()]


def _path(part: Part, row: int) -> str:
    """The absolute path or address of an image."""
    place = part.images.where(row)
    named = isinstance(part.images.source, Folder | Table)  # others hold many images a file
    if not named or (storage.is_local(place) and not os.path.isfile(place)):
        raise UsageError(
            f"--fix manifest lists image files, and {place} lies inside a larger file: leave out "
            "--fix, and remove what issues.csv names where the data set is made"
        )
    return storage.absolute(place)


def _write(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue(), shared=True)
