"""A labels folder's parts: a teacher's answers on each image of a pool, in Parquet files.

A part holds all images of a shard of the pool, or 16,384 where it has no shards, in order; an image
that can't be read keeps its row. Energy: Liu et al. 2020 (arXiv 2010.03759), equation 4, at T = 1.
Deviation: without the minus sign, so that more is more in-distribution.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.memory import exhausted
from tutelage.data.source import Source
from tutelage.errors import DataProblem, TutelageError
from tutelage.files import write_with

PART = 16_384  # images a part, where the pool has no shards
TOP = 10  # classes kept for each image; the rest mass is kept as one number
ROW_BITS = 32  # of an id; those above are the part's number
ABSENT = "label the pool to the end first, with the same command"

KINDS = {"id": np.int64, "label": np.int32, "confidence": np.float32, "energy": np.float32}
TYPES = {name: pa.from_numpy_dtype(kind) for name, kind in {**KINDS, "copies": np.int32}.items()}
UNREADABLE = (  # what damaged files raise
    LookupError, ValueError, OSError, TypeError, AttributeError, RecursionError, pa.ArrowException,
)  # fmt: skip
NAME = re.compile(r"part-(\d{5,})\.parquet")  # of a part, also of a selection


@dataclass(frozen=True)
class About:
    """What a part says of where it comes from."""

    teacher: str  # digest of its weights
    classes: tuple[str, ...]  # names of the K classes
    shard: str = ""  # the shard's name; "": the pool has no shards


@dataclass(frozen=True)
class LabelPart:
    """A teacher's answers on the N images of a part, on the CPU."""

    number: int
    names: tuple[str, ...]
    top_classes: Tensor  # (N, k) int32, surest first; -1 where the image can't be read
    top_probs: Tensor  # (N, k) float16; 0 where the image can't be read
    confidence: Tensor  # (N,) float32, of the surest class; 0 where the image can't be read
    energy: Tensor  # (N,) float32, logsumexp of the logits; NaN where the image can't be read
    about: About

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def labels(self) -> Tensor:
        """Each image's surest class (N,) int32; -1 where it can't be read."""
        return self.top_classes[:, 0]


@dataclass(frozen=True)
class Portion:
    """The images of a part, before they are labeled, or some of them in a row."""

    number: int
    shard: str  # "": the pool has no shards
    names: tuple[str, ...]  # empty until `listed`, where there is a shard
    first: int = 0  # row of the first one in the part


def portions(source: Source, names: Sequence[str]) -> Sequence[Portion]:
    """The parts of a pool: its shards, else the names in portions of 16,384."""
    shards = source.pool_shards()
    if shards:
        return [Portion(number, shard, ()) for number, shard in enumerate(shards)]
    return [
        Portion(number, "", tuple(names[start : start + PART]))
        for number, start in enumerate(range(0, len(names), PART))
    ]


def listed(portion: Portion, source: Source) -> Portion:
    """The portion with its names, which a shard is asked for; raises what the source raises."""
    return replace(portion, names=source.names_in(portion.shard)) if portion.shard else portion


def part_path(folder: Path, number: int) -> Path:
    """Where a part lies."""
    return folder / f"part-{number:05d}.parquet"


def part_numbers(folder: Path) -> list[int]:
    """Numbers of the parts that are there, ascending."""
    found = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def checksums(answers: Mapping[str, NDArray[Any]], before: Mapping[str, int]) -> dict[str, int]:
    """Of each of these columns the CRC-32, continued from that of the rows before."""
    return {
        name: zlib.crc32(np.ascontiguousarray(column, KINDS[name]).data, before.get(name, 0))
        for name, column in answers.items()
    }


def classes_in(text: str) -> tuple[str, ...]:
    """The names in a table's metadata; raises ValueError where the text is no list of names."""
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are no list of names")
    return tuple(names)


def check_answers(classes: Tensor, probs: Tensor, num_classes: int, *, least: int = -1) -> None:
    """Raises ValueError where top classes (N, k) are none of so many, or below `least`, or where
    there is not a probability for each of them."""
    if classes.shape != probs.shape or not 0 < classes.shape[1] <= num_classes:
        raise ValueError(f"{tuple(classes.shape)} classes have {tuple(probs.shape)} probabilities")
    if classes.numel() and not least <= int(classes.min()) <= int(classes.max()) < num_classes:
        raise ValueError(f"a class is none of its {num_classes:,}")
    if not bool(((probs >= 0) & (probs <= 1.01)).all()):  # half precision rounds
        raise ValueError("a probability is not between 0 and 1")


def ids_of(number: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ids (N,) of rows of a part."""
    return (number << ROW_BITS) + rows


def encoded(part: LabelPart) -> pa.Buffer:
    """The part as a Parquet file's bytes, always the same for the same part."""
    k = part.top_classes.shape[1]
    rest = (1 - part.top_probs.float().sum(-1)).clamp(min=0).half()
    columns = {
        "id": ids_of(part.number, np.arange(len(part), dtype=np.int64)),
        "path": pa.array(part.names, pa.string()),
        "label": part.labels.numpy(),
        "confidence": part.confidence.numpy(),
        "energy": part.energy.numpy(),
        "classes": _lists(part.top_classes, k),
        "probs": _lists(part.top_probs, k),
        "rest": rest.numpy(),
    }
    about = {
        "teacher": part.about.teacher,
        "classes": json.dumps(part.about.classes),
        "shard": part.about.shard,
    }
    table = pa.table(columns).replace_schema_metadata(about)
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def _lists(values: Tensor, width: int) -> pa.FixedSizeListArray:
    """A matrix (N, width) as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.flatten().numpy()), width)


def write_part(folder: Path, number: int, data: bytes | pa.Buffer) -> None:
    """Put a part's bytes into its place, whole or not at all."""
    write_with(part_path(folder, number), lambda path: path.write_bytes(data))


def read_about(path: Path) -> tuple[About, int]:
    """What a part says of itself, and how many images it has; its rows are not read.

    Raises DataProblem where the file is damaged or no part.
    """
    try:
        file = pq.read_metadata(path)
        return _about(file.schema.to_arrow_schema()), file.num_rows
    except UNREADABLE as error:
        raise damaged(path, error) from error


def read_part(path: Path) -> LabelPart:
    """A part with all its rows; raises DataProblem where the file is damaged or no part."""
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # text that is no UTF-8 too
        about = _about(table.schema)
        k = table.schema.field("classes").type.list_size
        ids = table["id"].to_numpy()
        number = int(NAME.fullmatch(path.name)[1])  # type: ignore[index]  # else a TypeError
        if len(ids) and int(ids[0]) != number << ROW_BITS:
            raise ValueError(f"its ids begin at {ids[0]}, as those of another part")
        top = matrix(table["classes"], k), matrix(table["probs"], k)
        check_answers(*top, len(about.classes))
        return LabelPart(
            number, texts(table["path"]), *top,
            _vector(table["confidence"]), _vector(table["energy"]), about,
        )  # fmt: skip
    except UNREADABLE as error:
        raise damaged(path, error) from error


def read_columns(path: Path, columns: Sequence[str], *, verb: str = "label") -> pa.Table:
    """Some columns of a part, or of one of a selection, that `verb` made.

    Raises DataProblem where the file is gone, damaged, or lacks one.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(columns), use_threads=False).select(list(columns))
        table.validate(full=True)  # text that is no UTF-8 too
        for name in columns:
            if table[name].null_count:
                raise ValueError(f"{table[name].null_count:,} values of {name} are missing")
            if name in TYPES and table[name].type != TYPES[name]:
                raise TypeError(f"{name} has values of {table[name].type}")
        return table
    except FileNotFoundError as error:
        raise DataProblem(f"{path} is gone: {ABSENT}") from error
    except UNREADABLE as error:
        raise damaged(path, error, verb=verb) from error


def _about(schema: pa.Schema) -> About:
    """The metadata; raises KeyError where the schema is another one."""
    missing = {"id", "path", "label", "energy", "classes", "probs"} - set(schema.names)
    if missing:
        raise KeyError(f"it has no column {min(missing)}")
    text = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    return About(text["teacher"], classes_in(text["classes"]), text["shard"])


def damaged(path: Path, error: Exception, *, verb: str = "label") -> TutelageError:
    """What to do about a part, or one of a selection, that can't be read."""
    lacking = exhausted(str(path), error)
    if lacking is not None:  # the file is not to be deleted
        return lacking
    what = "labels" if verb == "label" else "a selection"
    if isinstance(error, KeyError):  # the file is whole, and of something else: not to be deleted
        lack = str(error).strip("'\"")
        return DataProblem(
            f"{path} is no part of {what} ({lack}): give the --out of `tutelage {verb}`"
        )
    return DataProblem(
        f"{path} is damaged ({error}): delete it and run the same `tutelage {verb}` again, which "
        "makes it anew"
    )


def matrix(column: pa.ChunkedArray, width: int) -> Tensor:
    """A column of lists as (N, width)."""
    flat = np.array(column.combine_chunks().flatten().to_numpy(zero_copy_only=False))
    if len(flat) != len(column) * width:
        raise ValueError(f"{len(column):,} lists of {width} have {len(flat):,} values")
    return torch.from_numpy(flat).reshape(len(column), width)


def texts(column: pa.ChunkedArray) -> tuple[str, ...]:
    """A column of text; raises TypeError where a value is missing or something else."""
    if column.null_count or not pa.types.is_string(column.type):
        raise TypeError(f"{column.null_count:,} of {len(column):,} values are no text")
    return tuple(column.to_pylist())


def _vector(column: pa.ChunkedArray) -> Tensor:
    """A column of numbers as (N,)."""
    return torch.from_numpy(np.array(column.to_numpy()))
