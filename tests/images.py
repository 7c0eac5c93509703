"""Small image files for tests: random pixels, so that no two are alike by accident."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder


def pixels(seed: int, side: int = 8, channels: int = 3) -> np.ndarray:
    """Random uint8 pixels (side, side, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def picture(seed: int, side: int = 8) -> Image.Image:
    """A random RGB image; equal seeds give equal pixels."""
    return Image.fromarray(pixels(seed, side))


def write_picture(path: Path, seed: int, side: int = 8) -> Path:
    """A random image in a file whose suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, side).save(path)
    return path


def write_classes(root: Path, counts: Mapping[str, int], *, first: int = 0, side: int = 8) -> Path:
    """ROOT/<class>/<n>.png with that many images a class, numbered on from `first`."""
    seed = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            write_picture(root / name / f"{seed:04d}.png", seed, side)
            seed += 1
    return root


def write_pool(root: Path, count: int, *, first: int, side: int = 8) -> Path:
    """ROOT/<n>.png, numbered on from `first`."""
    for seed in range(first, first + count):
        write_picture(root / f"{seed:04d}.png", seed, side)
    return root


def listed(paths: Iterable[Path]) -> Images:
    """These files as images without labels, in this order."""
    return Images(Folder(""), tuple(map(str, paths)))


def smooth_batch(seed: int, batch: int = 4, side: int = 24) -> torch.Tensor:
    """Photo-like images (B, 3, S, S) with values on the 8-bit grid: random, but soft."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, side // 4, side // 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (fine * 255).round() / 255
