"""Images that look alike: a hash that survives resizing and compression, and its near pairs.

The hash is pHash (Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions):
gray at 32 x 32, the 8 x 8 lowest frequencies of its DCT, one bit each for being above their median.
Different: the color image is made small before it is made gray, which is faster, nearly the same.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels of the gray image that is hashed
BITS = 64
NEAR = 4  # bits of 64 that may differ; two photos of different things differ in about 32
PAIRS_AT_ONCE = 1 << 18  # compared together: they fit in a processor's cache

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]


def perceptual_hashes(gray: NDArray[np.uint8]) -> Hashes:
    """Hashes (N,) of gray images (N, 32, 32)."""
    frequency, place = np.arange(8)[:, None], np.arange(SIDE)[None]
    dct = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)).astype(np.float32)
    low = (dct @ gray.astype(np.float32) @ dct.T).reshape(len(gray), BITS)
    above = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(">u8").astype(np.uint64).reshape(len(gray))


def near_pairs(
    hashes: Hashes, others: Hashes | None = None, *, most: int = NEAR
) -> Iterator[tuple[Rows, Rows, NDArray[np.uint8]]]:
    """All pairs that differ in at most that many bits, each once: rows, rows, bits that differ.

    Without `others`, pairs within `hashes`, the lower row first. Cut into one band more than bits
    may differ, two near hashes agree in a whole band, so only those that do are compared.
    """
    within = others is None
    right = hashes if others is None else others
    edges = np.linspace(0, BITS, most + 2).astype(int)
    bands = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    masks = [np.uint64((1 << high) - (1 << low)) for low, high in bands]
    for number, mask in enumerate(masks):
        order = np.argsort(right & mask, kind="stable")
        keys = (right & mask)[order]
        left = order if within else np.argsort(hashes & mask, kind="stable")
        wanted = (hashes & mask)[left]
        stop = np.searchsorted(keys, wanted, "right")
        start = np.arange(1, len(left) + 1) if within else np.searchsorted(keys, wanted, "left")
        sorted_left, sorted_right = hashes[left], right[order]
        for at, to in _candidates(start, stop):
            differing = sorted_left[at] ^ sorted_right[to]
            bits = np.bitwise_count(differing)
            near = np.flatnonzero(bits <= most)
            for earlier in masks[:number]:  # the pair was there before
                near = near[(differing[near] & earlier) != 0]
            first, second = left[at[near]], order[to[near]]
            if within:
                first, second = np.minimum(first, second), np.maximum(first, second)
            if len(near):
                yield first, second, bits[near]


def _candidates(start: Rows, stop: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(row, place) for each place from start to stop of each row, some rows at once."""
    counts = np.maximum(0, stop - start)
    ends = np.cumsum(counts)
    row, done = 0, 0
    while row < len(counts):
        until = max(row + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")))
        some = counts[row:until]
        total = int(ends[until - 1]) - done
        shift = start[row:until] - (ends[row:until] - some - done)
        yield np.repeat(np.arange(row, until), some), np.arange(total) + np.repeat(shift, some)
        row, done = until, int(ends[until - 1])
