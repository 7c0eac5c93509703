"""Published files of image arrays, read whole: npz, CIFAR's pickles and binaries, MNIST's idx.

CIFAR: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images; layouts as on its
page.
MNIST: LeCun, Bottou, Bengio, Haffner 1998; idx layout as on its page.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data import storage
from tutelage.data.columns import text_of
from tutelage.data.image_arrays import Stack, as_images
from tutelage.data.packed import refuse_bombs, unzipped
from tutelage.data.plain_pickles import unpickled
from tutelage.data.splits import split_name
from tutelage.errors import DataProblem

NUMBER = re.compile("-?[0-9]{1,18}")
SIDE = 32  # of CIFAR's images
IMAGE_KEYS = ("images", "image", "x", "data", "arr_0")
LABEL_KEYS = ("labels", "label", "y", "targets", "target", "arr_1")
CLASS_KEYS = ("classes", "class_names", "label_names", "names")

CIFAR_10: dict[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
CIFAR_100: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",)}
MNIST = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Block:
    """The images of one file, or of one split of it."""

    file: str  # name in the folder; "" for the address itself
    split: str  # "": the file has no splits
    images: Stack
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Published:
    """All blocks of a data set, and its class names in order, where it has any."""

    blocks: tuple[Block, ...]
    classes: tuple[str, ...] = ()


def kind_at(address: str) -> str | None:
    """npz, cifar-10, cifar-100, cifar-10-bin, cifar-100-bin or mnist; None where it is none."""
    if address.lower().endswith(".npz"):
        return "npz" if storage.is_file(address) else None
    if address.startswith(storage.HUB):
        return None
    inside = set(storage.names_in(address))
    if {"data_batch_1", "test_batch"} & inside:
        return "cifar-10"
    if {"data_batch_1.bin", "test_batch.bin"} & inside:
        return "cifar-10-bin"
    if {"train", "meta"} <= inside and storage.is_file(storage.join(address, "train")):
        return "cifar-100"
    if {"train.bin", "fine_label_names.txt"} <= inside:
        return "cifar-100-bin"
    return "mnist" if any(_idx_files(inside, split) for split in MNIST) else None


def read_published(address: str) -> Published:
    """The arrays at an address; raises DataProblem where they are not as published."""
    kind = kind_at(address)
    if kind == "npz":
        return _npz(storage.read_bytes(address))
    if kind in ("cifar-10", "cifar-100"):
        return _pickles(address, fine=kind == "cifar-100")
    if kind in ("cifar-10-bin", "cifar-100-bin"):
        return _binaries(address, fine=kind == "cifar-100-bin")
    if kind == "mnist":
        return _mnist(address)
    raise DataProblem("holds no images that can be told by their files' names")


def _labels(values: Any) -> tuple[str, ...]:
    """Labels as text; one-hot rows and a trailing axis of 1 are understood."""
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        hot = array.astype(np.float64)
        if not np.array_equal(np.sort(hot, axis=1)[:, -2:], np.tile([0, 1], (len(hot), 1))):
            raise DataProblem(f"has labels {array.shape} that are neither numbers nor one-hot")
        array = hot.argmax(1)
    if array.ndim != 1:
        raise DataProblem(f"has labels of shape {array.shape}: one value an image is expected")
    return tuple(map(text_of, array.tolist()))


def named(labels: tuple[str, ...], classes: Sequence[str]) -> tuple[str, ...]:
    """Numbers as the names of their classes; raises DataProblem where one has no name."""
    if not classes or not all(NUMBER.fullmatch(label) for label in labels if label):
        return labels
    high = max((int(label) for label in labels if label), default=0)
    if high >= len(classes):
        raise DataProblem(
            f"has label {high}, and names {len(classes)} classes, whose labels are 0 to "
            f"{len(classes) - 1}"
        )
    return tuple(classes[int(label)] if label and int(label) >= 0 else "" for label in labels)


def matching(images: int, labels: tuple[str, ...] | None, where: str) -> None:
    """Raises DataProblem where there is not one label an image."""
    if labels is not None and len(labels) != images:
        raise DataProblem(f"has {images:,} images and {len(labels):,} labels{where}")


def _npz(data: bytes) -> Published:
    """images and labels, or x and y, each also with _train, _val, _test or the like."""
    try:
        refuse_bombs(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {str(name): file[name] for name in file.files}
    except DataProblem:
        raise
    except Exception as error:  # damaged ones raise nearly anything
        raise DataProblem(f"can't be read as an .npz file of plain arrays: {error}") from error
    lower = {name.lower(): name for name in arrays}
    classes = next((_labels(arrays[lower[key]]) for key in CLASS_KEYS if key in lower), ())
    blocks = []
    for name in lower:
        key, split = _key_and_split(name)
        if key not in IMAGE_KEYS:
            continue
        pairs = {_key_and_split(other): lower[other] for other in lower}
        found = [pairs[other, split] for other in LABEL_KEYS if (other, split) in pairs]
        labels = named(_labels(arrays[found[0]]), classes) if found else None
        images = as_images(arrays[lower[name]])
        matching(len(images), labels, f" for {name}")
        blocks.append(Block("", split, images, labels))
    if not blocks or (len(blocks) > 1 and not all(block.split for block in blocks)):
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataProblem(f"has the arrays {shown}: it isn't clear which of them are the images")
    return Published(tuple(blocks), classes)


def _key_and_split(name: str) -> tuple[str, str]:
    """'x_train' and 'train_x' -> ('x', 'train'); 'x' -> ('x', '')."""
    head, _, tail = name.partition("_")
    if split_name(tail):
        return head, tail
    return (tail, head) if split_name(head) and tail else (name, "")


def _files(address: str, expected: dict[str, tuple[str, ...]], suffix: str) -> dict[str, list[str]]:
    """Files of each split that is there; raises DataProblem where one is there in part."""
    inside = storage.names_in(address)
    found: dict[str, list[str]] = {}
    for split, names in expected.items():
        there = [name + suffix for name in names if name + suffix in inside]
        missing = [name + suffix for name in names if name + suffix not in inside]
        if there and missing:
            raise DataProblem(f"lacks {', '.join(missing)} beside {', '.join(there)}")
        if there:
            found[split] = there
    return found


def _planes(values: Any, file: str) -> Stack:
    """Rows of 3,072 bytes, red before green before blue, as images (N, 32, 32, 3)."""
    array = np.asarray(values)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != 3 * SIDE * SIDE:
        raise DataProblem(
            f"has {array.dtype} of shape {array.shape} in {file}, not CIFAR's rows of 3,072 bytes"
        )
    planes = array.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return as_images(np.ascontiguousarray(planes))


def _pickles(address: str, *, fine: bool) -> Published:
    """CIFAR's "python version"."""
    meta = "meta" if fine else "batches.meta"
    classes: tuple[str, ...] = ()
    if meta in storage.names_in(address):
        content = _unpickled_at(address, meta)
        key = "fine_label_names" if fine else "label_names"
        classes = tuple(map(text_of, content.get(key, ())))
    blocks = []
    for split, files in _files(address, CIFAR_100 if fine else CIFAR_10, "").items():
        for file in files:
            content = _unpickled_at(address, file)
            key = "fine_labels" if fine else "labels"
            if "data" not in content:
                raise DataProblem(
                    f"has no entry data in {file}, but {', '.join(content) or 'none'}"
                )
            images = _planes(content["data"], file)
            labels = named(_labels(content[key]), classes) if key in content else None
            matching(len(images), labels, f" in {file}")
            blocks.append(Block(file, split, images, labels))
    return Published(tuple(blocks), classes)


def _unpickled_at(address: str, file: str) -> dict[str, Any]:
    """A pickle of a folder; the message of what is wrong names it."""
    try:
        return unpickled(storage.read_bytes(storage.join(address, file)))
    except DataProblem as error:
        raise DataProblem(f"has a file {file} that {error}") from error


def _binaries(address: str, *, fine: bool) -> Published:
    """CIFAR's "binary version": a byte for the label, two for CIFAR-100, before each image."""
    head = 2 if fine else 1
    meta = "fine_label_names.txt" if fine else "batches.meta.txt"
    classes: tuple[str, ...] = ()
    if meta in storage.names_in(address):
        text = storage.read_bytes(storage.join(address, meta)).decode("utf-8", "replace")
        classes = tuple(line.strip() for line in text.splitlines() if line.strip())
    blocks = []
    for split, files in _files(address, CIFAR_100 if fine else CIFAR_10, ".bin").items():
        for file in files:
            data = storage.read_bytes(storage.join(address, file))
            size = head + 3 * SIDE * SIDE
            if len(data) % size or not data:
                raise DataProblem(f"has {len(data):,} bytes in {file}, not a multiple of {size:,}")
            rows = np.frombuffer(data, np.uint8).reshape(-1, size)
            labels = named(_labels(rows[:, head - 1]), classes)
            blocks.append(Block(file, split, _planes(rows[:, head:], file), labels))
    return Published(tuple(blocks), classes)


def _idx_files(inside: set[str], split: str) -> list[str]:
    """Names of a split's images and labels, with .gz or without; empty where it has no images."""
    found = []
    for content in ("images-idx3", "labels-idx1"):
        names = (f"{MNIST[split]}-{content}{mark}ubyte{zipped}"
                 for mark in "-." for zipped in ("", ".gz"))  # fmt: skip
        found += [name for name in names if name in inside][:1]
    return found if any("images" in name for name in found) else []


def _mnist(address: str) -> Published:
    """train-images-idx3-ubyte and its kin."""
    blocks, inside = [], set(storage.names_in(address))
    for split in MNIST:
        files = _idx_files(inside, split)
        if not files:
            continue
        images = as_images(_idx(address, files[0], 3))
        labels = _labels(_idx(address, files[1], 1)) if len(files) > 1 else None
        matching(len(images), labels, f" in {files[-1]}")
        blocks.append(Block(files[0], split, images, labels))
    return Published(tuple(blocks))


def _idx(address: str, file: str, axes: int) -> NDArray[np.uint8]:
    """An idx file of bytes: 0, 0, 8, number of axes, the axes' lengths, the values."""
    data = storage.read_bytes(storage.join(address, file))
    try:
        data = unzipped(data) if file.endswith(".gz") else data
    except DataProblem as error:
        raise DataProblem(f"has a file {file} that {error}") from error
    start = 4 + 4 * axes
    if data[:4] != bytes((0, 0, 8, axes)) or len(data) < start:
        raise DataProblem(f"has a file {file} that is no idx file of bytes with {axes} axes")
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4"))
    if len(data) - start != int(np.prod(shape)):
        raise DataProblem(f"has {len(data) - start:,} values in {file}, where it says {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
