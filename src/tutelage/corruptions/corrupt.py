"""The 19 corruptions of ImageNet-C on batches of uint8 images, on whatever device they are.

Paper: Hendrycks and Dietterich 2019, Benchmarking neural network robustness to common corruptions
and perturbations (arXiv 1903.12261), section 4.1. What each file of this folder deviates in, it
says. The published images were also saved as JPEG of quality 85, which these are not; so they are
called generated, and results on the published images are not the same.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from math import ceil

import torch
from torch import Tensor

from tutelage.corruptions.blur import defocus_blur, gaussian_blur
from tutelage.corruptions.color import brightness, contrast, saturate
from tutelage.corruptions.compression import jpeg_compression, pixelate
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.elastic import elastic_transform
from tutelage.corruptions.fog import fog
from tutelage.corruptions.frost import frost
from tutelage.corruptions.glass import glass_blur
from tutelage.corruptions.levels import EXTRA, SEVERITIES, SLACK, TEST, Level, level
from tutelage.corruptions.motion import motion_blur
from tutelage.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from tutelage.corruptions.snow import snow
from tutelage.corruptions.spatter import spatter
from tutelage.corruptions.workers import workers
from tutelage.corruptions.zoom import zoom_blur
from tutelage.data.buffers import empty
from tutelage.data.operations import as_float, cut_off
from tutelage.errors import UsageError
from tutelage.values import nearest

# images (B, 3, H, W) float32 in [0, 1], its numbers, randomness -> the same shape, to be clipped
Corruption = Callable[[Tensor, Level, Draws], Tensor]
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise, "shot_noise": shot_noise, "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur, "glass_blur": glass_blur, "motion_blur": motion_blur,
    "zoom_blur": zoom_blur, "snow": snow, "frost": frost, "fog": fog, "brightness": brightness,
    "contrast": contrast, "elastic_transform": elastic_transform, "pixelate": pixelate,
    "jpeg_compression": jpeg_compression, "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur, "spatter": spatter, "saturate": saturate,
}  # fmt: skip
assert tuple(CORRUPTIONS) == TEST + EXTRA
# Pixels that a worker takes at least. Python's lock changes hands at each operation, so that short
# ones wait for each other: with 4 images of 224 px and not 1, two threads laid frost over 5,600
# images a second and not 2,700 (November 2026).
AT_ONCE = 4 * 224 * 224
OF_BYTES = ("frost", "pixelate", "jpeg_compression")  # take bytes, too, and then give bytes


def corrupt(
    images: Tensor, name: str, severity: int, *, keys: Sequence[str], seed: int = 0
) -> Tensor:
    """Images (B, 3, H, W) uint8 under a corruption at a severity of 1 to 5; 0 leaves them as is.

    `keys` tell the images apart, such as their names: an image's randomness follows from the seed,
    its key, the corruption and the severity. On a CPU threads take single images, or a few that
    are small; they come out the same to the last bit in any batch.

    Raises UsageError for names and severities that there are not, or not one key an image.
    """
    _check(name, severity, len(images), len(keys))
    if severity == 0:
        return images
    numbers = level(name, severity, min(images.shape[-2:]))

    on_cpu = images.device.type == "cpu"
    made = empty(tuple(images.shape), torch.uint8) if on_cpu else torch.empty_like(images)

    @torch.no_grad()
    def some(rows: slice) -> None:
        draws = Draws([f"{seed}/{key}/{name}/{severity}" for key in keys[rows]], images.device)
        if name in OF_BYTES:
            made[rows] = CORRUPTIONS[name](images[rows], numbers, draws)
        else:
            made[rows] = truncated(CORRUPTIONS[name](as_float(images[rows]), numbers, draws))

    if not on_cpu:
        some(slice(None))
        return made
    pool = workers()
    few = ceil(AT_ONCE / max(1, images.shape[-2] * images.shape[-1]))
    few = max(1, min(few, ceil(len(images) / torch.get_num_threads())))
    parts = [slice(start, start + few) for start in range(0, len(images), few)]
    done, _ = wait([pool.submit(some, part) for part in parts])
    for one in done:
        one.result()  # raises what was raised there
    return made


def _check(name: str, severity: int, images: int, keys: int) -> None:
    if name not in CORRUPTIONS:
        known = ", ".join(CORRUPTIONS)
        raise UsageError(
            f"no corruption {name!r}{nearest(name, CORRUPTIONS) or '.'} There are {known}"
        )
    if severity not in (0, *SEVERITIES):
        raise UsageError(f"severity {severity} of {name}: give 1 to 5, or 0 for the images as is")
    if keys != images:
        raise UsageError(f"{keys} keys for {images} images: give one an image, such as its name")


def truncated(images: Tensor) -> Tensor:
    """Floats (B, 3, H, W) clipped to [0, 1] -> uint8, cut off and not rounded, as the authors do.

    Changes what it is given.
    """
    return cut_off(images.clamp_(0, 1).mul_(255).add_(SLACK))
