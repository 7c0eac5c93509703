"""Pool images for the report, from the one that the teacher was surest of to the least sure."""

import base64
import io
from dataclasses import dataclass

from tutelage.data.decode import opened, quiet, to_rgb
from tutelage.data.pool import PseudoLabels
from tutelage.data.source import Raw, Source

SIDE = 96  # pixels of the long side at most
TINY = 48  # pixels: up to here an image is stored without loss and shown with visible pixels
STRIPS, COLUMNS = 6, 6


@dataclass(frozen=True)
class Tile:
    """One pool image and what became of it."""

    path: str
    label: str
    confidence: float
    copies: int  # 0: left out
    reason: str
    source: str  # data URI, empty where there is no picture
    tiny: bool
    trouble: str  # why there is no picture


@dataclass(frozen=True)
class Strip:
    """Images of about the same confidence."""

    title: str
    tiles: tuple[Tile, ...]


def strips(table: PseudoLabels, pool: Source | None) -> tuple[Strip, ...]:
    """Some of a pool's images in strips of falling confidence; without the pool, words alone."""
    order = table.confidence.argsort(descending=True, stable=True)
    count = min(STRIPS, -(-len(order) // COLUMNS))
    found = []
    for number in range(count):
        first = number * COLUMNS
        if count == STRIPS:
            first = max(0, len(order) - COLUMNS) * number // (STRIPS - 1)
        rows = order[first : first + COLUMNS].tolist()
        tiles = tuple(_tile(table, row, pool) for row in rows)
        found.append(Strip(_title(number, count), tiles))
    return tuple(found)


def _title(number: int, count: int) -> str:
    """What the images of a strip have in common."""
    if number == 0:
        return "the surest"
    if number == count - 1:
        return "the least sure"
    return f"surer than {100 - 100 * number // (count - 1)} % of the pool"


def _tile(table: PseudoLabels, row: int, pool: Source | None) -> Tile:
    """One image of the pool."""
    assert table.copies is not None, "only selected tables are shown"
    assert table.reasons is not None, "they come with the copies"
    source, tiny, trouble = "", False, ""
    try:
        with quiet():
            source, tiny = ("", False) if pool is None else picture(pool.read(table.names[row]))
        trouble = "the pool is not there now" if pool is None else ""
    except (FileNotFoundError, NotADirectoryError):
        trouble = "the file is missing now"
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, …
        trouble = "the file can't be read now"
    return Tile(
        table.names[row], table.classes[int(table.labels[row])], float(table.confidence[row]),
        int(table.copies[row]), table.reasons[row], source, tiny, trouble,
    )  # fmt: skip


def picture(raw: Raw) -> tuple[str, bool]:
    """A small image as a data URI, and whether it is so tiny that its pixels should show.

    Raises OSError and its kin where it can't be read.
    """
    with opened(raw) as image:
        image.draft("RGB", (SIDE, SIDE))  # JPEG: decode at the smallest size that suffices
        small = to_rgb(image)
    small.thumbnail((SIDE, SIDE))
    tiny = max(small.size) <= TINY
    file, kind = io.BytesIO(), "png" if tiny else "jpeg"
    small.info.clear()  # no color profile, no comment: they would outweigh the picture
    if tiny:
        small.save(file, "PNG", optimize=True)
    else:
        small.save(file, "JPEG", quality=82)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}", tiny
