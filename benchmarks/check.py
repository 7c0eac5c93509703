"""What `tutelage check` looks at in an image, beside decoding it and nothing else.

Smooth random JPEGs with a little noise, quality 88, as many threads on both sides as the check has;
wall time. The first time nothing is remembered (the files are in the system's page cache, as
decoding alone has them); again: from what the last run left. And the search for near pairs among a
million random hashes, beside sorting them.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.paired import Case, wall
from tutelage.data.decode import read
from tutelage.data.examine import examine
from tutelage.data.fact_cache import cache_folder
from tutelage.data.near import near_pairs
from tutelage.data.pixels import THREADS
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder

COUNT, SIDE, HASHES = 1500, 256, 1_000_000
AN_HOUR = 3600 * 10**9  # ns


def write_images(folder: Path, count: int, side: int) -> None:
    """JPEGs that look like photos to a decoder; an hour old, so that they are remembered."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape, np.int16)).clip(0, 255)
        path = folder / f"{i:06d}.jpg"
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=88)
        os.utime(path, ns=(0, time.time_ns() - AN_HOUR))


def decode_all(images: Images) -> None:
    """What a check can't do without: whole images in RGB."""
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lambda row: read(images.read(row)).size, range(len(images))):
            pass


def forget() -> None:
    """What is remembered of images."""
    folder = cache_folder()
    assert folder is not None, "the benchmark has set it"
    for path in folder.glob("facts-*"):
        path.unlink()


def cold(images: Images) -> None:
    """A check's examination with nothing remembered."""
    forget()
    examine(images)


def cases(folder: Path) -> Iterator[Case]:
    """An examination, another one of the same images, and the search for near pairs."""
    place = folder / "images"
    place.mkdir()
    write_images(place, COUNT, SIDE)
    source = Folder(str(place))
    images = Images(source, source.listing("pool").names)
    for what, work in (("the first time", cold), ("again", examine)):
        yield Case(
            what=f"check, JPEGs of {SIDE} px, {what}", peer="decoding alone", unit="ms an image",
            ours=lambda work=work: 1e3 * wall(lambda: work(images)) / COUNT,  # type: ignore[misc]
            theirs=lambda: 1e3 * wall(lambda: decode_all(images)) / COUNT,
            turns=5,
        )  # fmt: skip
    hashes = np.random.default_rng(0).integers(0, 2**64, HASHES, np.uint64)
    yield Case(
        what=f"near pairs among {HASHES:,} hashes", peer="sorting them", unit="s", turns=5,
        ours=lambda: wall(lambda: sum(len(first) for first, _, _ in near_pairs(hashes))),
        theirs=lambda: wall(lambda: np.sort(hashes)),
    )  # fmt: skip
