"""Small real image files for tests: bars and dots of four classes, with noise."""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

CLASSES = ("dot", "horizontal", "square", "vertical")


def picture(label: int, rng: np.random.Generator, side: int = 16) -> Image.Image:
    """One noisy picture of a class."""
    pixels = rng.integers(0, 90, (side, side, 3))
    at, width = rng.integers(side // 4, side // 2), side // 4
    if label == 0:
        pixels[at : at + 2, at : at + 2] += 150
    elif label == 1:
        pixels[at : at + 2] += 150
    elif label == 2:
        pixels[at - width // 2 : at + width, at - width // 2 : at + width] += 150
    else:
        pixels[:, at : at + 2] += 150
    return Image.fromarray(pixels.astype(np.uint8))


def write_toy(
    root: Path, *, labeled: int = 4, pool: int = 40, test: int = 6, seed: int = 0
) -> Path:
    """ROOT/{labeled,test}/<class>/ and ROOT/pool/; `labeled` and `test` count per class."""
    rng = np.random.default_rng(seed)
    for part, count in (("labeled", labeled), ("test", test)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(label, rng).save(folder / f"{i}.png")
    (root / "pool").mkdir()
    for i in range(pool):
        picture(i % 4, rng).save(root / "pool" / f"{i:03d}.png")
    return root


def train_settings(root: Path, out: Path, **more: object) -> dict[str, object]:
    """Settings of a tiny, fast training on these images."""
    return {
        "data": root / "labeled", "test": root / "test", "model": "test_resnet", "steps": 5,
        "img_size": 16, "batch": 8, "val_fraction": 0, "device": "cpu", "out": out,
    } | more  # fmt: skip


def weights_of(run: Path, name: str) -> dict[str, Tensor]:
    """What a round of a run has learned."""
    return load_file(run / "rounds" / name / "model.safetensors")


def selftrain_flags(root: Path, out: Path, **more: object) -> list[str]:
    """Flags of a tiny, fast run on these images."""
    flags = {
        "data": root / "labeled", "unlabeled": root / "pool", "test": root / "test",
        "model": "test_resnet", "method": "noisy-student", "rounds": 2, "steps": 6,
        "img-size": 16, "batch": 8, "ratio": 2,
        "val-fraction": 0, "select.threshold": 0.1, "device": "cpu", "out": out,
    } | more  # fmt: skip
    return [part for key, value in flags.items() for part in (f"--{key}", str(value))]
