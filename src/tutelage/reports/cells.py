"""Numbers and names as tables show them, and tables of aligned text."""

from collections.abc import Mapping, Sequence
from typing import Any


def short(name: str, limit: int = 18) -> str:
    """A name that fits into a column or beside an axis, both ends of it, without signs that can't
    be drawn."""
    name = "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
    half = limit // 2
    return name if len(name) <= limit else f"{name[:half]}…{name[1 - half :]}"


def milliseconds(seconds: float) -> str:
    """With three digits that count."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def amount(number: int | None) -> str:
    """A large number as in 12.3 M."""
    if number is None:
        return "?"
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {sign}"
    return f"{number} "


def fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each fact, such as those about a machine."""
    return [
        (name, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict)
         else str(value))
        for name, value in facts.items()
    ]  # fmt: skip


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; the first one begins left, the others end right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
