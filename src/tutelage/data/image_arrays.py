"""Images as people hold them in Python -> uint8 arrays: arrays, tensors, PIL images."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tutelage.data.decode import to_rgb
from tutelage.errors import DataProblem

Stack: TypeAlias = NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
GRID = 1e-3  # how far a float times 255 may be from a whole number, as rounding leaves it


def as_images(value: Any) -> Stack:
    """Images (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W) with the channels last.

    Tensors have their channels first where both could be. Raises DataProblem for other shapes, and
    for values that are no 8-bit ones.
    """
    array, first = _array(value)
    if array.ndim == 3:
        return _eight_bits(array)
    if array.ndim != 4 or not array.size:
        raise DataProblem(
            f"has an array of shape {tuple(array.shape)}: images are (N, H, W), (N, H, W, 3) or "
            "(N, 3, H, W)"
        )
    return _eight_bits(_channels_last(array, first=first))


def as_image(value: Any) -> NDArray[np.uint8]:
    """One image (H, W) or (H, W, 3), of a PIL image, an array or a tensor.

    Raises DataProblem for other things, other shapes, and values that are no 8-bit ones.
    """
    if isinstance(value, Image.Image):
        return np.asarray(to_rgb(value))
    array, first = _array(value)
    if array.ndim == 2:
        return _eight_bits(array)
    if array.ndim != 3 or not array.size:
        raise DataProblem(
            f"has an array of shape {tuple(array.shape)}: an image is (H, W), (H, W, 3) or "
            "(3, H, W)"
        )
    if array.shape[-1] == 4 and not (first and array.shape[0] in (1, 3)):
        return np.asarray(to_rgb(Image.fromarray(np.ascontiguousarray(_eight_bits(array)))))
    return _eight_bits(_channels_last(array[None], first=first))[0]


def _array(value: Any) -> tuple[NDArray[Any], bool]:
    """As a numpy array, and whether its channels more likely come first."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy(), True
    try:
        return np.asarray(value), False
    except ValueError as error:
        raise DataProblem(f"has images that are no array: {error}") from error


def _channels_last(array: NDArray[Any], *, first: bool) -> NDArray[Any]:
    """(N, C, H, W) or (N, H, W, C) as (N, H, W[, 3])."""
    last = array.shape[-1] in (1, 3)
    if array.shape[1] in (1, 3) and (first or not last):
        array = array.transpose(0, 2, 3, 1)
    elif not last:
        raise DataProblem(f"has images of shape {tuple(array.shape[1:])}: 1 or 3 channels are read")
    return array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array)


def _eight_bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The same values as uint8; raises DataProblem where they would not be the same."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= 0 and high <= 255:
        scaled = array * 255 if high <= 1 else array
        rounded = scaled.round()
        if np.abs(scaled - rounded).max() <= GRID:
            return rounded.astype(np.uint8)
    raise DataProblem(
        f"has images of {array.dtype} from {low} to {high}, which are no 8-bit values: give uint8, "
        "or floats that are multiples of 1/255"
    )
