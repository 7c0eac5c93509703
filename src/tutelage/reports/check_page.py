"""check.html: one self-contained page with what a check has found, and pictures of the worst."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tutelage.data.check import Survey
from tutelage.data.decode import quiet
from tutelage.data.issues import Issue
from tutelage.data.source import Images
from tutelage.data.twins import Pair
from tutelage.reports import check_figures
from tutelage.reports.check_table import kinds, parts_of, ready
from tutelage.reports.html import render, write_page
from tutelage.reports.thumbnails import picture

MOST_PAIRS = 24  # of each kind, the nearest first
MOST_ROWS = 100  # of each list
UNUSED = ("unreadable", "missing file", "file name")
TITLES = {
    "may be mislabeled": "Alike, but under two labels",
    "looks like test": "Like an image of the test part",
    "looks like val": "Like an image of the validation part",
    "near duplicate": "Near duplicates of one class",
}


@dataclass(frozen=True)
class Tile:
    """An image beside the one that it looks like."""

    source: str  # data URI, empty where it can't be read now
    tiny: bool
    place: str
    part: str
    label: str  # empty for a pool image


def write_check_page(path: Path, found: Survey) -> Path:
    """Write the page, and return its path; the same findings give the same bytes."""
    return write_page(path, render("check.html.j2", _contents(found)))


def _contents(found: Survey) -> Mapping[str, Any]:
    """Everything that the template shows."""
    fatal = [issue for issue in found.issues if issue.severity == "fatal"]
    unused = [issue for issue in found.issues if issue.kind in UNUSED]
    read = {name: part for name, part in found.parts.items() if part.facts}
    labeled = found.parts["labeled"].images if "labeled" in read else None
    return {
        "headline": _headline(found.issues, fatal),
        "outcome": "hurt" if fatal else "help",
        "counts": {name: len(part.images) for name, part in found.parts.items()},
        "parts": parts_of(found.issues),
        "fatal": fatal[:MOST_ROWS],
        "kinds": kinds(found.issues),
        "unused": unused[:MOST_ROWS],
        "num_unused": len(unused),
        "pairs": [_shown(title, kind, found.pairs) for kind, title in TITLES.items()],
        "class_figure": check_figures.class_sizes(labeled.classes, labeled.counts())
        if labeled else Markup(),
        "size_figure": check_figures.image_sizes(read) if read else Markup(),
    }  # fmt: skip


def _headline(issues: list[Issue], fatal: list[Issue]) -> str:
    """The outcome in one sentence."""
    if fatal:
        return f"{len(fatal)} {'thing stands' if len(fatal) == 1 else 'things stand'} in the way"
    dropped = sum(issue.severity == "dropped" for issue in issues)
    images = "image is" if dropped == 1 else "images are"
    return f"{ready(issues)}; {dropped:,} {images} left out" if dropped else ready(issues)


def _shown(title: str, kind: str, pairs: list[Pair]) -> tuple[str, int, list[tuple[Tile, Tile]]]:
    """Title, number of all pairs of the kind, and the nearest of them with their pictures."""
    its = sorted((pair for pair in pairs if pair.kind == kind), key=lambda pair: pair.bits)
    shown = [
        (_tile(pair.part, *pair.image), _tile(pair.other_part, *pair.other))
        for pair in its[:MOST_PAIRS]
    ]
    return title, len(its), shown


def _tile(part: str, images: Images, row: int) -> Tile:
    """A small picture of an image, and what it is."""
    try:
        with quiet():
            source, tiny = picture(images.read(row))
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, …
        source, tiny = "", False
    label = "" if images.labels is None else images.classes[images.labels[row]]
    return Tile(source, tiny, images.where(row), part, label)
