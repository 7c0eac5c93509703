"""Threads that compute on one core each: the images of a batch beside each other.

Images one by one stay in a core's caches and need no waiting for other cores within an operation.
With two cores of which another program used one, 41 sums of moved images took 345 ms an image by
threads within the operations, and 1.2 ms on one core (November 2026).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from os import cpu_count
from threading import Barrier

import torch


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
    """All threads are started at once, as their own setting is also that of later threads."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, _alone)
    together = Barrier(count)
    for _ in pool.map(lambda _: together.wait(), range(count)):
        pass
    torch.set_num_threads(before)
    return pool


def _alone() -> None:
    """This thread's operations run on its core."""
    torch.get_num_threads()  # or the first operation would set the program's number again
    torch.set_num_threads(1)
