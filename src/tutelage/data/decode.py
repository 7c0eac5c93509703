"""An image file's bytes -> uint8 pixels, right side up, in RGB, whatever the file's mode.

Files are not trusted: formats that are programs (EPS) or that nobody uses for data are not opened,
images of too many pixels are refused by their header, and large ones are decoded one at a time.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor

from tutelage.data.source import Raw
from tutelage.settings import SMALL_IMAGE

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif", ".ico"}
)

FORMATS = (  # of these suffixes; Pillow knows dozens more, and would run Ghostscript for EPS
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA",
)  # fmt: skip
LARGE = 2**24  # pixels; such images are decoded one at a time, as each takes up to a gigabyte
MOST_PIXELS = 2000  # for each byte of a large file; more is no photo, whatever the format
ROWS_AT_ONCE = 2**22  # pixels that are converted at once, where that takes room
ONE_LARGE = RLock()

ABOVE_ONE = 1.1  # what the largest of gray floats is at most, where they are of 0-1
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {  # what brings an image upright, by the tag's value
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}  # fmt: skip
RGB = 3  # torchvision's ImageReadMode


@contextmanager
def quiet() -> Iterator[None]:
    """Decoders warn of what is no trouble. To be used around threads: the filters are for all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(raw: Raw, canvas: int) -> NDArray[np.uint8]:
    """The image's center square as (canvas, canvas, 3): shorter side resized, then cropped.

    Raises whatever the decoder raises: OSError, SyntaxError, ValueError and their kin.
    """
    if isinstance(raw, np.ndarray) and raw.shape == (canvas, canvas, 3):
        return raw
    pixels = whole(raw, canvas) if canvas > SMALL_IMAGE else _decoded(raw, canvas)
    return square(pixels, canvas)


def square(pixels: NDArray[np.uint8], canvas: int) -> NDArray[np.uint8]:
    """The center square of a whole image (H, W, 3) at side `canvas`."""
    if pixels.shape[:2] == (canvas, canvas):
        return pixels
    return np.asarray(fit(Image.fromarray(pixels), canvas))


def whole(raw: Raw, least: int) -> NDArray[np.uint8]:
    """The whole image (H, W, 3), halved as often as its shorter side stays at `least` or above.

    Raises whatever the decoder raises.
    """
    pixels = _decoded(raw, least)
    times = min(pixels.shape[:2]) // least
    if times < 2:
        return pixels
    return np.array(Image.fromarray(pixels).reduce(1 << (times.bit_length() - 1)))


def _decoded(raw: Raw, least: int) -> NDArray[np.uint8]:
    """All of an image in RGB; a JPEG at the smallest scale whose sides reach `least`."""
    with opened(raw) as image, one_large(image):
        size, jpeg = image.size, image.format == "JPEG" and image.mode == "RGB"
        image.draft("RGB", (least, least))
        if jpeg and image.size == size and _turn(image) is None:
            assert isinstance(raw, bytes), "a file"
            pixels = _jpeg(raw)
            if pixels is not None:
                return pixels
        return np.array(to_rgb(image))


@cache
def _fast_jpeg() -> Callable[[Tensor, int, bool], Tensor] | None:
    """torchvision's operator: Pillow's pixels 1.3 to 1.6 times as fast (November 2026).

    The operator itself, as its Python function warns that it will go; then Pillow does it all.
    """
    import torchvision.io  # noqa: F401  (which registers it)

    try:
        return torch.ops.image.decode_jpeg
    except AttributeError:  # torchvision was built without it
        return None


def _jpeg(raw: bytes) -> NDArray[np.uint8] | None:
    """A color JPEG (H, W, 3); None where that is left to Pillow, as it is for damaged ones."""
    fast = _fast_jpeg()
    if fast is None:
        return None
    data = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    try:
        return fast(data, RGB, False).permute(1, 2, 0).numpy()
    except RuntimeError:
        return None


def read(raw: Raw) -> Image.Image:
    """The whole image in RGB; raises what the decoder raises."""
    with opened(raw) as image, one_large(image):
        return to_rgb(image)


@cache
def _formats() -> list[str]:
    """Those that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def opened(raw: Raw) -> Image.Image:
    """An image file's bytes, or pixels, as an image that isn't decoded yet.

    Raises OSError where its header declares more pixels than are decoded.
    """
    if not isinstance(raw, bytes):
        return Image.fromarray(raw)
    try:
        image = Image.open(BytesIO(raw), formats=_formats())
    except UnidentifiedImageError:  # whose words name a place in memory, another each time
        raise UnidentifiedImageError("cannot identify image: of no known format") from None
    (width, height), limit = image.size, Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise OSError(
            f"{width} x {height} pixels are more than the limit of {limit:,}: make it smaller"
        )
    if width * height > max(LARGE, MOST_PIXELS * len(raw)):
        raise OSError(f"{len(raw):,} bytes can't hold {width} x {height} pixels of a photo")
    return image


@contextmanager
def one_large(image: Image.Image) -> Iterator[None]:
    """To be held while an image is decoded: no two large ones at a time."""
    if image.width * image.height <= LARGE:
        yield
        return
    with ONE_LARGE:
        yield


def fit(image: Image.Image, canvas: int) -> Image.Image:
    """Center square of an RGB image at side `canvas`, bicubic and antialiased."""
    if image.size == (canvas, canvas):
        return image
    return ImageOps.fit(image, (canvas, canvas), Image.Resampling.BICUBIC)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, turned as EXIF says: 16 bits are scaled, transparency lies on white."""
    image.load()
    turn = _turn(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        values = _to_8_bits(np.asarray(image), sixteen="16" in image.mode)
        return Image.fromarray(values).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn(image: Image.Image) -> Transpose | None:
    """What brings it upright; None where it is, or where its EXIF can't be read, which says nothing
    of the pixels."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # SyntaxError, OSError, ValueError, TypeError, …
        return None


def _bands(width: int, height: int) -> Iterator[tuple[int, int]]:
    """First and last row of stretches that take little room."""
    step = max(1, ROWS_AT_ONCE // max(1, width))
    return ((top, min(top + step, height)) for top in range(0, height, step))


def _on_white(image: Image.Image) -> Image.Image:
    """An image with transparency in RGB, over white."""
    done = Image.new("RGB", image.size)
    for top, bottom in _bands(*image.size):
        band = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        done.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return done


def _to_8_bits(values: NDArray[Any], *, sixteen: bool) -> NDArray[np.uint8]:
    """Gray values of 16 bits (0-65535), of 8 bits, or floats of 0-1, as 0-255.

    Resizing and filters leave floats a little above 1, which are cut off there.
    """
    least, top = float(values.min(initial=0)), float(values.max(initial=0))
    if not (least >= 0 and top <= 65535):  # which is also so for NaN
        raise OSError(f"gray values from {least:g} to {top:g} fit no known range")
    factor, divisor = 1.0, 1.0
    if sixteen or top > 255:
        divisor = 257.0
    elif top <= ABOVE_ONE and values.dtype.kind == "f" and (values != values.round()).any():
        factor = 255.0
    done = np.empty(values.shape, np.uint8)
    for first, last in _bands(*values.shape[::-1]):
        band = values[first:last].astype(np.float64)
        done[first:last] = (band * factor / divisor).round().clip(max=255)
    return done
