"""Pickles of arrays, lists and dicts, as CIFAR's, read without calling anything that they name.

A pickle is a program. Of numpy's functions not even those that arrays are made of are called: a
dtype may be told by a pickle that it holds no pointers where it does. The names stand for small
classes of this file, which keep what they are given; arrays are made of it afterwards, of numbers
alone.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from tutelage.errors import DataProblem
from tutelage.values import num_values

DEEPEST = 50  # lists in lists
KINDS = "biufSU"  # of dtypes: numbers and text


class _Kind:
    """What a pickle says of a dtype."""

    def __init__(self, text: str | bytes, *flags: object) -> None:
        """Text such as u1, f8 or S10."""
        self.text = text.decode("ascii") if isinstance(text, bytes) else text
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """The byte order; a dtype of parts is refused."""
        order, *parts = state[1:5]
        if any(part is not None for part in parts):
            raise pickle.UnpicklingError("an array of parts")
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    def dtype(self) -> np.dtype[Any]:
        """numpy's; raises ValueError where its values are no numbers or text."""
        found = np.dtype(self.text).newbyteorder(">" if self.order == ">" else "<")
        if found.kind not in KINDS or found.fields or found.subdtype:
            raise ValueError(f"an array of {found}")
        return found


class _Array:
    """What a pickle says of an array."""

    def __init__(self, *given: object) -> None:
        """An empty one, which is told its content next."""
        self.content: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Version, shape, kind, whether columns come first, and the bytes."""
        self.content = state[-4:]


class _Buffer(_Array):
    """An array as newer pickles have it."""

    def __init__(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        """Bytes, kind, shape, and C or F."""
        self.content = shape, kind, order == "F", data


class _Scalar(_Array):
    """A single number."""

    def __init__(self, kind: Any, data: Any) -> None:
        """Kind and bytes."""
        self.content = (), kind, False, data


def _encode(text: str, encoding: str) -> bytes:
    """Bytes that Python 3 has put into a pickle for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    """Knows the names above, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """Also under the name of numpy 1."""
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return KNOWN[module, name]


def unpickled(data: bytes) -> dict[str, Any]:
    """A pickled dict of arrays and lists, with text keys; raises DataProblem for anything else."""
    try:
        _look_over(data)
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
        if num_values(content, len(data)) > len(data):
            raise ValueError("it stands for far more values than it holds")
        if isinstance(content, dict):
            content = {_text(key): _plain(value, 0) for key, value in content.items()}
    except Exception as error:  # broken pickles raise nearly anything
        raise DataProblem(f"is no pickle of arrays alone: {error}") from error
    if not isinstance(content, dict):
        raise DataProblem("is no pickle of a dict")
    return content


def _look_over(data: bytes) -> None:
    """Raises UnpicklingError for what would take memory far beyond the file's size."""
    for operation, value, _ in pickletools.genops(data):
        if operation.name.endswith("PUT") and int(value or 0) > len(data):
            raise pickle.UnpicklingError("it is damaged")
        if operation.name.startswith(("EXT", "PERSID", "BINPERSID")):
            raise pickle.UnpicklingError("it refers to what is not in it")


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _plain(value: Any, depth: int) -> Any:
    """The value with its arrays made; raises ValueError where one is of no numbers."""
    if depth > DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, _Array):
        return _made(value)
    if value is None or isinstance(value, bytes | str | int | float):
        return value
    raise ValueError(f"it holds a {type(value).__name__}")


def _made(array: _Array) -> Any:
    """numpy's array of what was kept."""
    assert array.content is not None, "a pickle that ends there is damaged"
    shape, kind, columns_first, data = array.content
    if not isinstance(kind, _Kind) or not isinstance(data, bytes | bytearray):
        raise ValueError("an array of objects")
    sides, dtype = tuple(int(side) for side in shape), kind.dtype()
    if min(sides, default=0) < 0 or math.prod(sides) * dtype.itemsize != len(data):
        raise ValueError(f"an array {sides} in {len(data):,} bytes")
    found = np.frombuffer(data, dtype) if len(data) else np.zeros(0, dtype)
    found = found.reshape(sides, order="F" if columns_first else "C")
    return found if sides else found[()]
