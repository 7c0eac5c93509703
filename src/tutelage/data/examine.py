"""Read every image whole, once: what can't be read, and what is worth knowing of the others."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tutelage.core import Advance
from tutelage.data.decode import one_large, opened, quiet, to_rgb
from tutelage.data.fact_cache import FactCache
from tutelage.data.facts import Facts
from tutelage.data.memory import exhausted
from tutelage.data.near import SIDE, perceptual_hashes
from tutelage.data.pixels import THREADS
from tutelage.data.source import Images, Raw
from tutelage.data.stamps import Stamp

AT_ONCE = 64  # images that a thread takes in a row
COLORLESS = 6  # of 255: what compression leaves between the channels of a gray image
ANIMATED = frozenset({"GIF", "WEBP", "PNG", "TIFF"})  # formats with several frames

Gray = NDArray[np.uint8]  # (32, 32)


def examine(images: Images, advance: Advance = lambda done: None) -> list[Facts]:
    """Facts of every image, by a few threads; those of files that did not change are remembered."""
    cache = FactCache.of(images.source.address)
    facts: list[Facts] = []
    cache.look_up(images, range(len(images))[:1])  # alone, as some sources then learn of all
    try:
        with quiet(), _threads() as threads:
            size = max(1, min(AT_ONCE, len(images) // (4 * THREADS)))
            tasks: list[Future[list[Facts]]] = [
                threads.submit(_look, images, range(start, min(start + size, len(images))), cache)
                for start in range(0, len(images), size)
            ]
            for task in tasks:
                some = task.result()
                facts += some
                advance(len(some))
    finally:  # stopped by the user, too
        cache.save()
    return facts


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that stop at once where the user does."""
    threads = ThreadPoolExecutor(THREADS)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _look(images: Images, rows: range, cache: FactCache) -> list[Facts]:
    """Facts of some images."""
    found: dict[int, Facts] = {}
    new: list[tuple[int, Facts, Stamp | None]] = []
    grays: list[Gray] = []
    for row, (stamp, facts) in zip(rows, cache.look_up(images, rows), strict=True):
        if facts is None:
            facts, gray = _read(images, row)
            if gray is not None:
                new.append((row, facts, stamp))
                grays.append(gray)
        found[row] = facts
    if grays:
        looks = perceptual_hashes(np.stack(grays)).tolist()
        for (row, facts, stamp), look in zip(new, looks, strict=True):
            found[row] = replace(facts, look=look)
            cache.remember(images, row, stamp, found[row])
    return [found[row] for row in rows]


def _read(images: Images, row: int) -> tuple[Facts, Gray | None]:
    """Facts of one image but for its hash, which is made of the small gray image beside them.

    Raises Exhausted where memory or open files are lacking: the image may be sound.
    """
    raw: Raw = b"?"
    try:
        raw = images.read(row)
        return _examined(raw)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
        lacking = exhausted(images.where(row), error)
        if lacking is not None:
            raise lacking from error
        return Facts("", 0, 0, _why(error, raw)), None


def _examined(raw: Raw) -> tuple[Facts, Gray]:
    """Decode one image; raises whatever a decoder raises."""
    with opened(raw) as image, one_large(image):
        mode, animated = image.mode, image.format in ANIMATED and _is_animated(raw)
        return _told(to_rgb(image), raw, mode, animated=animated)


def _told(rgb: Image.Image, raw: Raw, mode: str, *, animated: bool) -> tuple[Facts, Gray]:
    """What a decoded image tells."""
    content = blake2b(rgb.tobytes(), digest_size=16)
    content.update(f"{rgb.width}x{rgb.height}".encode())
    small = rgb.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    colors = np.asarray(small).astype(np.int16)
    even = int(np.ptp(colors, axis=(0, 1)).max()) <= COLORLESS  # else the pixels are not alike
    facts = Facts(
        content.hexdigest(), rgb.width, rgb.height, mode=mode,
        bytes=len(raw) if isinstance(raw, bytes) else raw.nbytes,
        gray=_spread(colors) <= COLORLESS,
        flat=even and not np.ptp(np.asarray(rgb), axis=(0, 1)).any(),
        animated=animated,
    )  # fmt: skip
    return facts, np.asarray(small.convert("L"))


def _is_animated(raw: Raw) -> bool:
    """Whether there are several frames; damaged ones after the first, which is used, don't count.

    Asking moves to the second frame, so it is done with an image of its own.
    """
    try:
        with opened(raw) as image:
            return bool(image.is_animated)  # type: ignore[attr-defined]  # of the format's class
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, …
        return False


def _spread(colors: NDArray[np.int16]) -> int:
    """Largest difference of two channels in any pixel (H, W, 3), of 255."""
    return int(np.ptp(colors, axis=-1).max())


def _why(error: Exception, raw: Raw) -> str:
    """What is wrong with an image, in words that name nothing of this process."""
    if isinstance(raw, bytes) and not raw:
        return "0 bytes: the file is empty"
    if isinstance(error, UnidentifiedImageError) and isinstance(raw, bytes):
        begin = raw[:24]
        if all(32 <= sign < 127 or sign in b"\t\r\n" for sign in begin):
            return f"is no image but text, which begins with {begin.decode()!r}"
        return f"is of no image format, or its header is damaged; it begins with {begin[:8]!r}"
    return f"{type(error).__name__}: {error}"
