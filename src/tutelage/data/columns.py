"""The columns of a table of images by the names that people give them; their values as text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.data.issues import Issue
from tutelage.data.source import Listing, Source
from tutelage.errors import DataProblem

ALIASES: dict[str, tuple[str, ...]] = {  # in the order of preference
    "path": (
        "path", "file", "filename", "filepath", "file_name", "file_path", "image", "image_path",
        "image_file", "image_name", "img", "img_path",
    ),
    "image": ("image", "img", "jpg", "png", "jpeg", "picture", "photo", "bytes", "image_bytes"),
    "label": (
        "label", "class", "target", "labels", "classes", "category", "class_name", "label_name",
        "fine_label", "y",
    ),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "groups", "group_id"),
}  # fmt: skip

LONG_NUMBER = 1000  # digits: Python makes no number of 4,301


@dataclass(frozen=True)
class Rows:
    """Rows of a table with one text each; "": none."""

    names: Sequence[str]
    labels: Sequence[str] | None = None
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    classes: Sequence[str] = ()  # an order of its own


def broken(source: Source, why: str) -> DataProblem:
    """What is wrong with a source's content, and what is expected there."""
    return DataProblem(f"{source.address} {why}; tutelage expects {source.layout}")


def pick(meaning: str, columns: Iterable[str]) -> str | None:
    """The column that means path, image, label, split or group; None where there is none."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(str(column).strip().lower().replace(" ", "_"), column)
    return next((by_name[alias] for alias in ALIASES[meaning] if alias in by_name), None)


def needed(meaning: str, columns: Sequence[str], source: Source) -> str:
    """The column of that meaning; raises DataProblem, naming those found, where there is none."""
    found = pick(meaning, columns)
    if found is None:
        shown = ", ".join(map(repr, columns[:20])) + ", …" * (len(columns) > 20)
        names = ", ".join(ALIASES[meaning])
        raise broken(
            source, f"has the columns {shown or '(none)'}, of which none is a {meaning}: name it "
            f"one of {names}"
        )  # fmt: skip
    return found


def taken(columns: Mapping[str, str | None], part: str, source: Source) -> list[Issue]:
    """Which column was taken for what, where a name is not the plain one."""
    said = [f"{name!r} as {key}" for key, name in columns.items() if name not in (None, key)]
    if not said:
        return []
    detail = f"{source.address}: column {', '.join(said)}"
    return [Issue("note", "columns", part, source.address, detail)]


def text_of(value: Any) -> str:
    """A label, split or group as text: "" for nothing, 3 for 3.0."""
    if isinstance(value, str):
        return value.strip()
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return "" if text in ("<NA>", "NaT") else text


def listing_of(rows: Rows, part: str, issues: Sequence[Issue]) -> Listing:
    """The listing of rows whose names differ."""
    labels = None if part == "pool" or rows.labels is None else tuple(rows.labels)
    classes: tuple[str, ...] = ()
    if labels is not None:
        found = set(labels) - {""}
        classes = tuple(name for name in rows.classes if name in found) or in_order(found)
    splits, groups = _some(rows.splits), _some(rows.groups)
    return Listing(tuple(rows.names), labels, splits, groups, classes, tuple(issues))


def _some(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """The values, unless the whole column is empty."""
    return tuple(values) if values is not None and any(values) else None


def in_order(classes: Iterable[str]) -> tuple[str, ...]:
    """Class names by number where all are numbers, else by name."""
    names = sorted(set(classes))
    if all(name.isascii() and name.isdigit() and len(name) < LONG_NUMBER for name in names):
        names.sort(key=lambda name: (int(name), name))
    return tuple(names)


def unused_classes(classes: Sequence[str], rows: Rows, part: str, source: Source) -> list[Issue]:
    """Class names that the source declares and has no images of; they are no classes here."""
    used = set(rows.labels or ())
    without = [name for name in classes if name not in used]
    if part == "pool" or not without or rows.labels is None:
        return []
    shown = ", ".join(without[:5]) + ", …" * (len(without) > 5)
    detail = f"{source.address} names {len(without):,} classes that no image has: {shown}"
    return [Issue("note", "class without images", part, source.address, detail)]
