"""Images as uint8 tensors by row: held in memory where they fit, else decoded when asked."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Advance, sent
from tutelage.data import decode as decoding
from tutelage.data.buffers import empty
from tutelage.data.crops import Cut
from tutelage.data.memory import Memory, exhausted, fits_on, said
from tutelage.data.source import Images, Raw
from tutelage.distributed.collectives import neighbors, own_device
from tutelage.errors import DataProblem, TutelageError
from tutelage.settings import SMALL_IMAGE

THREADS = max(4, os.cpu_count() or 1)  # decoding leaves Python's lock, so threads share the work

Decoder = Callable[[Raw, int], NDArray[np.uint8]]
Instead = Callable[[int, Exception], NDArray[np.uint8]]


def own_threads() -> int:
    """Of THREADS, those of this process, where several share the machine."""
    return max(2, THREADS // neighbors())


class Pixels(Protocol):
    """Square uint8 images by row."""

    def __len__(self) -> int:
        """Number of images."""

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,)."""


class InMemory:
    """All images decoded, as one tensor."""

    def __init__(self, images: Tensor, device: torch.device | None = None) -> None:
        """Take uint8 images (N, C, C, 3), on any device; they are wanted on that one or another."""
        self.images = images
        self.device = device or images.device

    def __reduce__(self) -> Any:
        """All pixels: another process has its own copy, on its own device."""
        return _held, (self.images.cpu(), self.device)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,); channels last in memory."""
        return sent(self.images[sent(rows, self.images.device)], self.device).permute(0, 3, 1, 2)


class WhenAsked(ABC):
    """Images decoded when they are asked for, by a few threads."""

    def __init__(self, canvas: int, device: torch.device, threads: ThreadPoolExecutor) -> None:
        """Remember the side to decode them to."""
        self.canvas, self.device, self.threads = canvas, device, threads

    @property
    def of_photos(self) -> bool:
        """Whether resized crops are cut from the whole images, and not from squares of them."""
        return self.canvas > SMALL_IMAGE

    @abstractmethod
    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,)."""

    @abstractmethod
    def whole(self, row: int, least: int) -> NDArray[np.uint8]:
        """One image (H, W, 3), its shorter side at least that; raises DataProblem, naming it."""

    def crops(self, rows: Tensor, cuts: Sequence[Cut], *, share: float = 1.0) -> list[Tensor]:
        """For each cut (B, 3, S, S) uint8 of rows (B,), out of one decoding of the whole images,
        which are no smaller than that share of the canvas."""
        least = math.ceil(share * self.canvas)
        shapes = [(len(rows), 3, one.size, one.size) for one in cuts]
        made = [byte_buffer(shape, self.device) for shape in shapes]

        def fill(place: int, row: int) -> None:
            image = self.whole(row, least)
            for one, crops in zip(cuts, made, strict=True):
                crops[place] = one.of(place, image)

        for _ in self.threads.map(fill, range(len(rows)), rows.tolist()):
            pass
        return [crops.to(self.device, non_blocking=True) for crops in made]


class OnDisk(WhenAsked):
    """Images of a list; photos are kept while the memory lasts."""

    def __init__(
        self, images: Images, canvas: int, device: torch.device, memory: Memory | None = None
    ) -> None:
        """Remember where the images are and the side to decode them to."""
        super().__init__(canvas, device, ThreadPoolExecutor(own_threads()))
        self.images = images
        self.memory = memory or Memory(0)
        self.kept: dict[tuple[int, int], NDArray[np.uint8]] = {}  # by row and least side
        self.least = canvas

    def __reduce__(self) -> Any:
        """What it is made of: another process decodes and keeps images for itself."""
        return _on_disk, (self.images, self.canvas, self.device, self.memory)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def at(self, rows: Tensor, *, instead: Instead | None = None) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,).

        An unreadable one raises DataProblem, naming it, or what `instead` makes of the row and the
        decoder's error stands for it.
        """

        def one(row: int) -> NDArray[np.uint8]:
            try:
                return self._square(row)
            except DataProblem as error:
                if instead is None:
                    raise
                cause = error.__cause__
                return instead(row, cause if isinstance(cause, Exception) else error)

        squares = np.stack(list(self.threads.map(one, rows.tolist())))
        return sent(torch.from_numpy(squares), self.device).permute(0, 3, 1, 2)

    def crops(self, rows: Tensor, cuts: Sequence[Cut], *, share: float = 1.0) -> list[Tensor]:
        """As of all images that are decoded when asked for; those of another share are let go."""
        least = math.ceil(share * self.canvas)
        if least != self.least:
            self.least = least
            self.forget(unless=least)
        return super().crops(rows, cuts, share=share)

    def forget(self, *, unless: int | None = None) -> None:
        """Let go of what is kept, but for images of that least side."""
        for key in [key for key in list(self.kept) if key[1] != unless]:
            gone = self.kept.pop(key, None)
            self.memory.give(0 if gone is None else gone.nbytes)

    def _square(self, row: int) -> NDArray[np.uint8]:
        """One image at the canvas; a photo is cut out of the whole one, as `decode` does."""
        if not self.of_photos:
            return decoded(self.images, row, self.canvas)
        return decoding.square(self.whole(row, self.canvas), self.canvas)

    def whole(self, row: int, least: int) -> NDArray[np.uint8]:
        """One whole image, which is kept where there is room."""
        found = self.kept.get((row, least))
        if found is not None:
            return found
        made = decoded(self.images, row, least, by=decoding.whole)
        if self.memory.take(made.nbytes) and self.kept.setdefault((row, least), made) is not made:
            self.memory.give(made.nbytes)  # another thread was faster
        return made


class Chosen:
    """Some images of a set, in a given order."""

    def __init__(self, pixels: Pixels, rows: Tensor) -> None:
        """The images of `rows` (M,) int64."""
        self.pixels, self.rows = pixels, rows

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,), counted within the choice."""
        return self.pixels.at(self.rows[rows])


def open_pixels(
    images: Images,
    canvas: int,
    device: torch.device,
    *,
    in_memory: bool,
    memory: Memory | None = None,
    advance: Advance = lambda done: None,
) -> Pixels:
    """The images at a square canvas; `advance` hears how many more are decoded."""
    if not in_memory:
        return OnDisk(images, canvas, device, memory)
    pixels = np.empty((len(images), canvas, canvas, 3), np.uint8)

    def fill(row: int) -> None:
        pixels[row] = decoded(images, row, canvas)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(fill, range(len(images))):
            advance(1)
    return _held(torch.from_numpy(pixels), device)


def ahead(
    rows: Tensor, load: Callable[[Tensor], Tensor], batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (B,) and their images, batch by batch, the next one loaded while one is worked on."""
    chunks = rows.split(batch)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(load, chunks[0])
        for some, following in zip_longest(chunks, chunks[1:]):
            images = coming.result()
            if following is not None:
                coming = thread.submit(load, following)
            yield some, images


def _held(images: Tensor, device: torch.device) -> InMemory:
    """Decoded images, on this process's device where that has room."""
    device = own_device(device)
    return InMemory(images.to(device) if fits_on(device, images.nbytes) else images, device)


def _on_disk(images: Images, canvas: int, device: torch.device, memory: Memory) -> OnDisk:
    """Images that are decoded in this process, for its device."""
    return OnDisk(images, canvas, own_device(device), memory)


def byte_buffer(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Room for uint8 pixels on their way to a device."""
    if device.type == "cuda":
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    return empty(shape, torch.uint8)


def decoded(
    images: Images, row: int, side: int, *, by: Decoder = decoding.decode
) -> NDArray[np.uint8]:
    """One image by a decoder; raises DataProblem, naming it, where it can't be read, and Exhausted
    where memory or open files are lacking."""
    try:
        return by(images.read(row), side)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
        raise unreadable(images.where(row), error) from error


def unreadable(where: str, error: Exception) -> TutelageError:
    """What to say and do where an image that was there can't be read any more."""
    lacking = exhausted(where, error)
    if lacking is not None:
        return lacking
    gone = isinstance(error, FileNotFoundError)
    why = "is gone" if gone else f"can't be read: {error}"
    return DataProblem(f"{where} {why}; put it back as it was, and run the same command again")


def bytes_held(num_images: int, canvas: int) -> int:
    """What so many decoded images take."""
    return num_images * canvas * canvas * 3


def how_held(pixels: Pixels, memory: Memory) -> str:
    """Where decoded images are, for a person."""
    if isinstance(pixels, InMemory):
        where = "memory" if pixels.images.device.type == "cpu" else f"memory of {pixels.device}"
        return f"held in {where}, {said(pixels.images.nbytes)}"
    line = f"decoded when needed, by {own_threads()} threads"
    if isinstance(pixels, OnDisk) and pixels.of_photos and memory.limit:
        line += f", and kept up to {said(memory.limit)} of all sets"
    return line
