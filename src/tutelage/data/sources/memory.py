"""Images that a program gives: arrays, tensors, lists, torch data sets, tables.

Their address is a digest of their content, so that a run goes on with the same ones alone.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from tutelage.data.array_files import matching, named
from tutelage.data.columns import ALIASES, Rows, broken, listing_of, text_of, unused_classes
from tutelage.data.image_arrays import as_image, as_images
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.sources.huggingface import HuggingFace
from tutelage.data.sources.table import Table
from tutelage.data.storage import IN_MEMORY
from tutelage.errors import DataProblem, UsageError

ASKED_TWICE = 8  # images of a data set that are read again, to see that they stay the same


class Memory(Source):
    """Images held by the program, or read from its data set; an image's name is its row."""

    layout = (
        "from Python, uint8 images (N, H, W), (N, H, W, 3) or (N, 3, H, W) as an array or tensor, "
        "a list of images, each also with labels as a pair (images, labels); a torch Dataset; a "
        "DataFrame or pyarrow Table with path and label"
    )

    def __init__(
        self, address: str, images: Any, *, labels: tuple[str, ...] | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Images by row, as arrays or from a data set, and their class names."""
        super().__init__(address)
        self._images, self._labels, self._classes = images, labels, classes

    @classmethod
    def claims(cls, address: str) -> bool:
        """Never: what a program gave has no address that could be opened."""
        return False

    def listing(self, part: str) -> Listing:
        """All rows; raises DataProblem where labels are wanted and there are none."""
        names = [str(row) for row in range(len(self._images))]
        if part != "pool" and self._labels is None:
            raise broken(self, "has images without labels")
        rows = Rows(names, self._labels, classes=self._classes)
        return listing_of(rows, part, unused_classes(self._classes, rows, part, self))

    def read(self, name: str) -> Raw:
        """Pixels (H, W[, 3])."""
        row = int(name)
        if not 0 <= row < len(self._images):
            raise OSError(f"{self.where(name)}: there is no such image")
        try:
            return as_image(self._images[row])
        except DataProblem as error:
            raise OSError(f"{self.where(name)} {error}") from error

    def where(self, name: str) -> str:
        """The address and the row."""
        return f"{self.address}/{name}"

    def stamp(self, name: str) -> tuple[int, int]:
        """Nothing: other content has another address."""
        return 0, 0


class _FromDataset:
    """Images of a torch data set by row, one at a time, as it need not be safe in threads."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._lock = Lock()

    def __getstate__(self) -> Any:
        return self.dataset

    def __setstate__(self, dataset: Any) -> None:
        _FromDataset.__init__(self, dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def item(self, row: int) -> tuple[NDArray[np.uint8], Any]:
        """An image and its label; None where the data set has none."""
        with self._lock:
            value = self.dataset[row]
        if isinstance(value, tuple | list):
            return as_image(value[0]), value[1] if len(value) > 1 else None
        return as_image(value), None

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.item(row)[0]


def as_source(value: Any) -> Source:
    """The source of what a program gives as images.

    Raises UsageError, with what can be given, for anything else.
    """
    if isinstance(value, Source):
        return value
    try:
        found = _table(value) or _hugging_face(value) or _images(value)
    except DataProblem as error:
        raise UsageError(
            f"what was given from Python {error}; expected is {Memory.layout}"
        ) from error
    if found is None:
        name = type(value).__name__
        raise UsageError(f"images can't be given as {name}; expected is {Memory.layout}")
    return found


def _images(value: Any) -> Memory | None:
    """Arrays, lists and data sets, alone or with labels; None for other things."""
    if isinstance(value, IterableDataset):
        raise DataProblem("is an IterableDataset: its images have no numbers to ask for them")
    if isinstance(value, Dataset):
        return _from_dataset(value)
    if isinstance(value, tuple) and len(value) == 2:
        return _memory(_stack(value[0]), value[1])
    if isinstance(value, np.ndarray | torch.Tensor):
        return _memory(_stack(value), None)
    if isinstance(value, list) and value and all(map(_is_image, value)):
        return _memory(_stack(value), None)
    return None


def _is_image(value: Any) -> bool:
    """Whether a value of a list is an image."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim in (2, 3)
    return isinstance(value, Image.Image)


def _stack(value: Any) -> Sequence[NDArray[np.uint8]] | NDArray[np.uint8]:
    """Images of one array, or of a list in any sizes."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return as_images(value)
    if isinstance(value, list | tuple):
        return [as_image(one) for one in value]
    raise DataProblem(f"has images as {type(value).__name__}")


def _memory(images: Any, labels: Any) -> Memory:
    """Images in memory with one label each, or none."""
    if not len(images):
        raise DataProblem("has no images")
    texts = None
    if labels is not None:
        values = labels.tolist() if isinstance(labels, np.ndarray | torch.Tensor) else list(labels)
        if any(isinstance(one, list | tuple) for one in values):
            raise DataProblem("has several labels an image: one number or name each is expected")
        texts = tuple(_label(one) for one in values)
        matching(len(images), texts, "")
    return Memory(_address(images, texts, ()), images, labels=texts)


def _label(value: Any) -> str:
    """A label of Python, numpy or torch as text."""
    if isinstance(value, torch.Tensor | np.generic):
        value = value.item()
    return text_of(value)


def _from_dataset(dataset: Any) -> Memory:
    """A data set that has a length; its images stay where they are and are read when wanted."""
    images = _FromDataset(dataset)
    try:
        count = len(images)
    except TypeError as error:
        raise DataProblem("is a data set without a length") from error
    if not count:
        raise DataProblem("has no images")
    labels: list[str] = []

    def read() -> Iterator[NDArray[np.uint8]]:
        for row in range(count):
            image, label = images.item(row)
            labels.append(_label(label))
            yield image

    content = _digest(read())
    some = range(min(count, ASKED_TWICE))
    if _digest(images[row] for row in some) != _digest(images[row] for row in some):
        raise DataProblem("gives other pixels each time: leave out its random transforms")
    classes = _classes_of(dataset)
    texts = named(tuple(labels), classes) if any(labels) else None
    return Memory(_address(content, texts, classes), images, labels=texts, classes=classes)


def _classes_of(dataset: Any) -> tuple[str, ...]:
    """The data set's `classes`, where it has any."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    try:
        return tuple(map(str, dataset.classes))
    except (AttributeError, TypeError):
        return ()


def _digest(images: Iterable[NDArray[np.uint8]]) -> str:
    """A hash of all pixels and sizes."""
    digest = blake2b(digest_size=16)
    for image in images:
        digest.update(f"{image.shape}".encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _address(images: Any, labels: Any, classes: Any) -> str:
    """memory:<digest of the content>."""
    content = images if isinstance(images, str) else _digest(images)
    text = repr((content, labels, classes))
    return IN_MEMORY + blake2b(text.encode(), digest_size=12).hexdigest()


def _table(value: Any) -> Table | None:
    """A pandas or pyarrow table with paths; None for other things."""
    if isinstance(value, pa.Table):
        columns = {name: value[name].to_pylist() for name in _known(value.column_names)}
        names = value.column_names
    elif "pandas" in sys.modules and isinstance(value, sys.modules["pandas"].DataFrame):
        names = [str(name) for name in value.columns]
        by_name = dict(zip(names, value.columns, strict=True))
        columns = {name: value[by_name[name]].tolist() for name in _known(names)}
    else:
        return None
    columns |= {name: [] for name in names if name not in columns}  # for what is said of them
    texts = {name: list(map(text_of, values)) for name, values in columns.items()}
    return Table(_address("table", tuple(texts.items()), ()), columns=texts)


def _known(names: Sequence[str]) -> list[str]:
    """Columns that may have a meaning."""
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    return [name for name in names if name.strip().lower().replace(" ", "_") in known]


def _hugging_face(value: Any) -> HuggingFace | None:
    """A data set of Hugging Face; None for other things."""
    if "datasets" not in sys.modules:
        return None
    datasets = sys.modules["datasets"]
    if isinstance(value, datasets.Dataset):
        marks: Any = value._fingerprint
    elif isinstance(value, datasets.DatasetDict):
        marks = [(name, rows._fingerprint) for name, rows in value.items()]
    else:
        return None
    return HuggingFace(_address("datasets", marks, ()), given=value)
