"""A CSV or TSV file as people save it -> columns of text, each row with its line."""

import csv
import io
from collections import Counter
from dataclasses import dataclass

from tutelage.data.columns import pick
from tutelage.data.packed import GZIP, unzipped
from tutelage.errors import DataProblem

MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DELIMITERS = (",", "\t", ";", "|")
LARGEST_FIELD = 1 << 20  # characters


@dataclass(frozen=True)
class Delimited:
    """The cells of a file by column, and the line that each row begins on."""

    columns: dict[str, list[str]]
    lines: list[int]


def parse(data: bytes) -> Delimited:
    """Rows under a header; short rows are filled with "", blank lines are passed over.

    Raises DataProblem, naming the line, where the bytes are no UTF-8 (or marked UTF-16), a row has
    more fields than the header, or a column is named twice.
    """
    text = _text(unzipped(data) if data.startswith(GZIP) else data)
    if not text.strip():
        raise DataProblem("is empty")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True,
                        skipinitialspace=True)  # fmt: skip
    csv.field_size_limit(LARGEST_FIELD)
    header: list[str] = []
    cells: list[list[str]] = []
    lines: list[int] = []
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataProblem(f"can't be read at line {first}: {error}") from error
        if not any(cell.strip() for cell in row):
            continue
        if not header:
            header = _header(row)
            cells = [[] for _ in header]
            continue
        _append(row, cells, first)
        lines.append(first)
    return Delimited(dict(zip(header, cells, strict=True)), lines)


def _text(data: bytes) -> str:
    """The bytes as text, without the mark that some editors put first."""
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = "Latin-1" if encoding == "utf-8" else "damaged"
        raise DataProblem(
            f"is no {encoding.upper()} at line {line} (byte 0x{data[error.start]:02x}; it may be "
            f"{guess}): save it as UTF-8, for instance by iconv -f latin1 -t utf-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataProblem(f"has a zero byte at line {line}: it is no text file")
    return text.lstrip("\ufeff")


def _delimiter(text: str) -> str:
    """Of the usual ones that under which the header names a path, else the most frequent."""
    header = next(line for line in text.splitlines() if line.strip())
    for mark in DELIMITERS:
        fields = next(csv.reader([header], delimiter=mark, skipinitialspace=True), [])
        if len(fields) > 1 and pick("path", [field.strip() for field in fields]):
            return mark
    return max(DELIMITERS, key=header.count)


def _header(row: list[str]) -> list[str]:
    """Column names; one that is empty is passed over as pandas' index is."""
    names = [name.strip() or f"(column {i + 1})" for i, name in enumerate(row)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataProblem(f"names the column {twice[0]!r} twice: rename one")
    return names


def _append(row: list[str], cells: list[list[str]], line: int) -> None:
    """One row's cells at the end of their columns."""
    if len(row) > len(cells):
        if any(cell.strip() for cell in row[len(cells) :]):
            raise DataProblem(
                f"has {len(row)} fields at line {line}, where the header names {len(cells)}: put "
                "values that hold the delimiter in quotes"
            )
        row = row[: len(cells)]
    for i, column in enumerate(cells):
        column.append(row[i] if i < len(row) else "")
