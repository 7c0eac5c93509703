"""Which column of a Parquet file holds the images, which the labels, splits and groups."""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.data.columns import pick


@dataclass(frozen=True)
class Layout:
    """Which columns of a file mean what."""

    image: str
    nested: bool  # struct{bytes, path}
    label: str | None
    split: str | None
    group: str | None
    classes: tuple[str, ...]  # names of integer labels, as Hugging Face writes them


def layout_of(schema: pa.Schema) -> Layout | None:
    """The columns by meaning; None where none holds images."""
    image = image_column(schema)
    if image is None:
        return None
    others = [name for name in schema.names if name != image]
    label = pick("label", others)
    nested = pa.types.is_struct(schema.field(image).type)
    split, group = pick("split", others), pick("group", others)
    return Layout(image, nested, label, split, group, _class_names(schema, label))


def image_column(schema: pa.Schema) -> str | None:
    """The column of image bytes: one that Hugging Face calls so, of an image's name, or the only
    one of that type."""
    binary = [
        field.name for field in schema
        if _is_binary(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
            and _is_binary(field.type.field("bytes").type))
    ]  # fmt: skip
    features = _features(schema)
    declared = [name for name in binary if features.get(name, {}).get("_type") == "Image"]
    return pick("image", declared or binary) or next(iter(declared or binary), None)


def statistics_of(about: pq.FileMetaData, group: int, column: int) -> pq.Statistics | None:
    """What the footer tells of the values of a row group's column; None where it doesn't.

    Raises ValueError where the group says another type than the schema: Arrow ends the process at
    such statistics.
    """
    its, said = about.row_group(group).column(column), about.schema.column(column)
    if its.physical_type != said.physical_type:
        raise ValueError(f"{said.path} is {said.physical_type}, and {its.physical_type} in a group")
    return its.statistics


def lacks_bytes(about: pq.FileMetaData) -> bool:
    """Whether images of struct{bytes, path} may have a path alone, as the footer tells."""
    nested = [i for i in range(about.num_columns) if about.schema.column(i).path.endswith(".bytes")]
    for group in range(about.num_row_groups):
        for column in nested:
            told = statistics_of(about, group, column)
            if told is None or told.null_count:
                return True
    return False


def _is_binary(kind: pa.DataType) -> bool:
    """Whether values are bytes."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's `datasets` notes of the columns; empty where the file is not of it."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"].items()
        return {name: one for name, one in features if isinstance(one, dict)}  # lists: sequences
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """Names of integer labels, where the file has them."""
    names = _features(schema).get(label or "", {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()
