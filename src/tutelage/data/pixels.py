"""Images as uint8 tensors by row: held in memory where they fit, else decoded when asked."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.decode import decode
from tutelage.data.source import Images

MEMORY_BUDGET = 4 * 2**30  # bytes of decoded images held at once, for all sets together
THREADS = max(4, os.cpu_count() or 1)  # decoding leaves Python's lock, so threads share the work


class Pixels(Protocol):
    """Square uint8 images by row."""

    def __len__(self) -> int:
        """Number of images."""

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,)."""


class InMemory:
    """All images decoded, as one tensor."""

    def __init__(self, images: Tensor) -> None:
        """Take uint8 images (N, C, C, 3), on any device."""
        self.images = images

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,); channels last in memory."""
        return self.images[rows.to(self.images.device)].permute(0, 3, 1, 2)


class OnDisk:
    """Images decoded when they are asked for, by a few threads."""

    def __init__(self, images: Images, canvas: int, device: torch.device) -> None:
        """Remember where the images are and the side to decode them to."""
        self.images = images
        self.canvas = canvas
        self.device = device
        self.threads = ThreadPoolExecutor(THREADS)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,)."""
        images = list(self.threads.map(self._decoded, rows.tolist()))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.device)

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        return decoded(self.images, row, self.canvas)


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
    advance: Callable[[int], None] = lambda done: None,
) -> Pixels:
    """The images at a square canvas; `advance` hears how many more are decoded."""
    if not in_memory:
        return OnDisk(images, canvas, device)
    pixels = np.empty((len(images), canvas, canvas, 3), np.uint8)

    def fill(row: int) -> None:
        pixels[row] = decoded(images, row, canvas)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(fill, range(len(images))):
            advance(1)
    return InMemory(torch.from_numpy(pixels).to(device))


def decoded(images: Images, row: int, canvas: int) -> NDArray[np.uint8]:
    """One image at a square canvas (C, C, 3); raises OSError, naming it, where it can't be read."""
    try:
        return decode(images.read(row), canvas)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
        raise OSError(f"{images.where(row)} can't be read: {error}") from error


def fits_in_memory(num_images: int, canvas: int) -> bool:
    """Whether that many decoded images stay within the memory budget."""
    return num_images * canvas * canvas * 3 <= MEMORY_BUDGET
