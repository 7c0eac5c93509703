"""What storing an image costs it: JPEG, and too few pixels.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. The authors use Pillow, whose
bytes these are. Both take bytes, too, and then give bytes.
"""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level
from tutelage.corruptions.workers import each
from tutelage.data.buffers import empty
from tutelage.data.decode import RGB
from tutelage.data.operations import as_bytes, as_float, cut_off

# an image (H, W, 3) and a quality -> the image out of a JPEG file
JPEG: TypeAlias = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
HALF = 0.5 + 1e-3  # rounds halves up, whatever the error of float32 below a 255th


def jpeg_compression(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) as they come back from a JPEG file of that quality.

    On the CPU wherever the images are, as the encoder of a GPU gives other bytes.
    """
    if images.is_floating_point():
        return as_float(jpeg_compression(as_bytes(images), level, draws))
    there_and_back = _fast() or _through_pillow
    given = images.cpu().numpy()
    found = empty(tuple(images.shape), torch.uint8)
    room = found.numpy()

    def one(row: int) -> None:
        pixels = there_and_back(np.stack(given[row], -1), int(level[0]))
        room[row] = pixels.transpose(2, 0, 1)

    each(one, len(found), images.device)
    return found.to(images.device)


@cache
def _fast() -> JPEG | None:
    """By torchvision's operators, which give Pillow's pixels in three quarters of its time.

    The operators themselves, as their Python functions warn that they will go.
    """
    import torchvision.io  # noqa: F401  (which registers them)

    try:
        encode, decode = torch.ops.image.encode_jpeg, torch.ops.image.decode_jpeg
    except AttributeError:  # torchvision was built without them, or no longer has them
        return None

    def there_and_back(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
        data = encode(torch.from_numpy(image).permute(2, 0, 1), quality)
        return decode(data, RGB, False).permute(1, 2, 0).numpy()

    return there_and_back


def _through_pillow(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def pixelate(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) at a fraction of their size, and enlarged again in squares."""
    if images.is_floating_point():
        return as_float(pixelate(as_bytes(images), level, draws))

    # columns as rows, which are copied faster; in bytes, as Pillow has between its two passes
    columns = _squares(images.mT.contiguous(), level[0])
    return _squares(columns.mT.contiguous(), level[0])


def _squares(images: Tensor, share: float) -> Tensor:
    """Bytes (B, 3, H, W) at fewer rows, and at H again.

    Pillow's BOX: a row is the mean of those whose centers fall into its cell, and then fills it.
    """
    side = images.shape[2]
    first, weights, back = _cells(side, max(1, int(side * share)), images.device)
    total = images.index_select(2, first).float().mul_(weights[0]).add_(HALF)
    for place, weight in enumerate(weights[1:], 1):
        rows = images.index_select(2, (first + place).clamp_(max=side - 1))
        total.addcmul_(rows.float(), weight)
    return cut_off(total).index_select(2, back)


@cache
def _cells(side: int, less: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The first row of each cell (less,), the weights (most, less, 1) of it and those that follow,
    and the cell (side,) at each row."""
    scale = side / less
    row, cell = torch.arange(side).double()[:, None], torch.arange(less).double()
    center, half = (cell + 0.5) * scale, 0.5 * scale
    from_center = (row - center + 0.5) * (1 / scale)  # as Pillow computes it, to break ties alike
    near = (row >= (center - half + 0.5).floor()) & (row < (center + half + 0.5).floor())
    inside = near & (from_center > -0.5) & (from_center <= 0.5)
    counts = inside.sum(0)[:, None]
    weights = (torch.arange(int(counts.max()))[:, None, None] < counts).float() / counts
    found = inside.int().argmax(0), weights, ((row[:, 0] + 0.5) * (less / side)).long()
    first, weights, back = (one.to(device) for one in found)
    return first, weights, back
