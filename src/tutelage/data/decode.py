"""An image file's bytes -> uint8 pixels, right side up, in RGB, whatever the file's mode."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tutelage.data.source import Raw

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif", ".ico"}
)


def decode(raw: Raw, canvas: int) -> NDArray[np.uint8]:
    """The image's center square as (canvas, canvas, 3): shorter side resized, then cropped.

    Raises whatever the decoder raises: OSError, SyntaxError, ValueError and their kin.
    """
    if isinstance(raw, np.ndarray) and raw.shape == (canvas, canvas, 3):
        return raw
    with opened(raw) as image:
        image.draft("RGB", (canvas, canvas))  # JPEG: decode at the smallest size that suffices
        return np.asarray(fit(to_rgb(image), canvas))


def read(raw: Raw) -> Image.Image:
    """The whole image in RGB; raises what the decoder raises."""
    with opened(raw) as image:
        return to_rgb(image)


def opened(raw: Raw) -> Image.Image:
    """An image file's bytes, or pixels, as an image that isn't decoded yet."""
    return Image.open(BytesIO(raw)) if isinstance(raw, bytes) else Image.fromarray(raw)


def fit(image: Image.Image, canvas: int) -> Image.Image:
    """Center square of an RGB image at side `canvas`, bicubic and antialiased."""
    if image.size == (canvas, canvas):
        return image
    return ImageOps.fit(image, (canvas, canvas), Image.Resampling.BICUBIC)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, turned as EXIF says: 16 bits are scaled, transparency lies on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = _to_8_bits(np.asarray(image, np.float64), sixteen="16" in image.mode)
        return Image.fromarray(values).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[np.float64], *, sixteen: bool) -> NDArray[np.uint8]:
    """Gray values of 16 bits (0-65535), of 8 bits, or floats of 0-1, as 0-255."""
    top = values.max(initial=0)
    if not (values.min(initial=0) >= 0 and top <= 65535):  # which is also so for NaN
        raise OSError(f"gray values from {values.min():g} to {top:g} fit no known range")
    if sixteen or top > 255:
        values = values / 257
    elif top <= 1 and not np.all(values == values.round()):
        values = values * 255
    return values.round().astype(np.uint8)
