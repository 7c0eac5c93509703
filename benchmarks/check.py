"""Images a second that `tutelage check` looks at, beside decoding them and nothing else.

python -m benchmarks.check [--images 4000] [--side 256] [--turns 3] [--hashes 1000000]

Smooth random JPEGs with a little noise, quality 88, as many threads as the check has; wall time and
processor time of one process; sides in turn, medians. Cold: nothing is remembered (the files are in
the system's page cache, as decoding alone has them); again: from what the last run left. `--hashes`
also times the search for near pairs among that many random hashes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.journal import machine
from tutelage.data.decode import read
from tutelage.data.examine import examine
from tutelage.data.fact_cache import cache_folder
from tutelage.data.near import near_pairs
from tutelage.data.pixels import THREADS
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder

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


def cold(images: Images) -> None:
    """A check's examination with nothing remembered."""
    folder = cache_folder()
    assert folder is not None, "the benchmark has set it"
    for path in folder.glob("facts-*"):
        path.unlink()
    examine(images)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(images: Images, turns: int) -> None:
    """Print rates, and how much of the cold time is decoding."""
    sides: dict[str, Callable[[], object]] = {
        "decoding alone": lambda: decode_all(images),
        "check, cold": lambda: cold(images),
        "check, again": lambda: examine(images),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, work in sides.items():
            times[name].append(timed(work))
    alone = statistics.median(wall for wall, _ in times["decoding alone"])
    for name, seen in times.items():
        wall = statistics.median(wall for wall, _ in seen)
        processor = statistics.median(processor for _, processor in seen)
        print(
            f"  {name:<16} {len(images) / wall:9,.0f} images/s   "
            f"{1000 * processor / len(images):.3f} ms of processor an image   "
            f"{wall / alone:5.2f} of decoding   100,000 images in {1e5 * wall / len(images):.0f} s"
        )


def search(count: int) -> None:
    """Print the time of the search for near pairs."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    wall, _ = timed(lambda: sum(len(first) for first, _, _ in near_pairs(hashes)))
    print(f"  near pairs among {count:,} hashes: {wall:.1f} s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["TUTELAGE_CACHE"] = str(Path(place) / "facts")
        folder = Path(place) / "images"
        folder.mkdir()
        write_images(folder, given.images, given.side)
        source = Folder(str(folder))
        print(f"{given.images:,} JPEGs of {given.side} px, {THREADS} threads")
        compare(Images(source, source.listing("pool").names), given.turns)
        search(given.hashes)
    print(f"\n{len(os.sched_getaffinity(0))} cores allowed; {machine()}")


if __name__ == "__main__":
    main()
