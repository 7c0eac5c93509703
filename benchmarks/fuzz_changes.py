"""Changes of a whole JSON value or Parquet table, which changes of bytes hardly ever come to."""

import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 1e308, 2**63, 10**400, float("nan"), float("inf"), "", "x", "../x",
    "a\0b", "\ud800", "done", [], {}, [[]], [None], ["x", 1], {"x": None},
)  # fmt: skip


def vary_json(dice: random.Random, data: bytes) -> bytes:
    """JSON, or lines of it, with one to three values changed, taken away, or put elsewhere."""
    lines = data.splitlines() if data.count(b"\n{") else [data]
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at = dice.randrange(len(lines))
        try:
            lines[at] = json.dumps(_varied(dice, json.loads(lines[at]))).encode()
        except (ValueError, RecursionError):  # it is none, or has surrogates
            return data
    return b"\n".join(lines) + b"\n"


def _varied(dice: random.Random, value: Any) -> Any:
    """A JSON value with one change somewhere."""
    places = [(holder, key) for holder in _holders(value) for key in _keys(holder)]
    if not places or dice.random() < 0.03:
        return dice.choice(VALUES)
    holder, key = dice.choice(places)
    how = dice.randrange(4)
    if how == 0:
        del holder[key]
    elif how == 1:
        other, name = dice.choice(places)
        holder[key] = json.loads(json.dumps(other[name]))
    else:
        holder[key] = dice.choice(VALUES)
    return value


def _holders(value: Any) -> list[Any]:
    """All lists and objects in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) else []
    return own + [holder for one in inner for holder in _holders(one)]


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def vary_parquet(dice: random.Random, data: bytes) -> bytes:
    """A table with one to three changes: of columns, types, values, or metadata."""
    if not data.startswith(b"PAR1"):
        return vary_json(dice, data)
    table = pq.ParquetFile(io.BytesIO(data)).read()  # which keeps what writers added at the end
    for _ in range(dice.choice((1, 1, 2, 3))):
        how = dice.randrange(6)
        if how == 0:
            table = _said_otherwise(dice, table)
        elif table.num_columns:
            table = _other_column(dice, table, how)
    out = pa.BufferOutputStream()
    try:
        pq.write_table(table, out, compression=dice.choice(("none", "zstd")))
    except (pa.ArrowException, OSError):  # not every type can be written
        return data
    return bytes(out.getvalue().to_pybytes())


def _said_otherwise(dice: random.Random, table: pa.Table) -> pa.Table:
    """With other metadata."""
    about = dict(table.schema.metadata or {})
    if not about:
        return table.replace_schema_metadata({b"classes": b"[[1]]", b"huggingface": b'{"info": 3}'})
    key = dice.choice(sorted(about))
    how = dice.randrange(3)
    if how == 0:
        del about[key]
    elif how == 1:
        about[key] = vary_json(dice, about[key])
    else:
        about[key] = dice.choice((b"", b"\xff", b"[" * 3000, b"9" * 5000, b"null", b"{}", b'["x"]'))
    return table.replace_schema_metadata(about)


def _other_column(dice: random.Random, table: pa.Table, how: int) -> pa.Table:
    """With one column less, of another type, with holes, or with other rows."""
    at = dice.randrange(table.num_columns)
    field, column = table.schema.field(at), table.column(at)
    if how == 1:
        return table.remove_column(at)
    if how == 2:
        return table.slice(0, dice.randrange(len(table) + 1))
    if how == 3:
        rows = [None if dice.random() < 0.5 else dice.randrange(len(table)) for _ in column]
        return table.set_column(at, field.name, column.take(pa.array(rows, pa.int64())))
    if how == 4:
        wide = dice.choice((-(2**31), -1, 3, 2**31 - 1, 2**62, float("nan"), 1e300, "", "x"))
        kind = dice.choice((field.type, None))
        try:
            made = pa.array([wide] * len(table), kind)
        except (pa.ArrowException, OverflowError):
            made = pa.array([wide] * len(table))
        return table.set_column(at, field.name, made)
    kind = dice.choice((pa.string(), pa.float64(), pa.int8(), pa.bool_(), pa.binary(), pa.null()))
    return table.set_column(at, field.name, pa.array([None] * len(table), kind))
