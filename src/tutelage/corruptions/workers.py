"""Who corrupts the images of a batch: threads that compute on one core each."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from os import cpu_count

import torch

from tutelage.data.threads import lone_threads


def workers() -> ThreadPoolExecutor:
    """For whole images: as many threads as PyTorch uses here."""
    return _pool("images", torch.get_num_threads())


def threads() -> ThreadPoolExecutor:
    """For single steps of images, which the workers may wait for."""
    return _pool("steps", cpu_count() or 1)


def each(work: Callable[[int], None], count: int, device: torch.device) -> None:
    """Do the work of so many images: by `threads` for images on another device than the CPU, where
    this is one of several `workers` already."""
    rows = range(count)
    for _ in map(work, rows) if device.type == "cpu" else threads().map(work, rows):
        pass


@cache
def _pool(name: str, count: int) -> ThreadPoolExecutor:
    return lone_threads(count, name)
