"""Training images from files on one core, beside timm's and torchvision's loaders.

The same on all sides: files on disk, random resized crop of 8 to 100 % of the area (of 32 px
files: none, but a shift), flip, RandAugment with two operations at magnitude 9, float batches,
normalized. timm's loader has its own defaults, which apply an operation with a probability of a
half, and so does ours beside it; torchvision's are always applied, and so are ours beside them.
timm's posterize is mended, as today's Pillow refuses to keep no bits. No loader has workers;
processor time, so that other work on the core doesn't count. Images of 32 px are decoded anew in
each pass by the peers, and once by us, who keep what fits into memory.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, auto_augment, create_loader
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.paired import Case, processor, wall
from tutelage.core import Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory, OnDisk
from tutelage.data.sets import LabeledSet
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.settings import Noise
from tutelage.speed.machine import available_cores

SIZE, CANVAS, SMALL, BATCH = 224, 256, 32, 64
POLICY = {"half": "rand-m9-n2-mstd0.5-inc1", "always": "rand-m9-n2-p1-mstd0.5-inc1"}  # timm's
NOISE = {
    often: Noise(
        min_area=0.08, magnitude=9, scale="timm", op_prob=share, magnitude_std=0.5, cutout=0
    )
    for often, share in (("half", 0.5), ("always", 1.0))
}
MEAN = torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1)
STD = torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1)
SOURCES = ((256, 256, 256), (500, 375, 192), (1600, 1200, 64))  # width, height, images

Side = Callable[[], Iterable[Any]]


def write_photos(folder: Path, width: int, height: int, count: int) -> Path:
    """Random JPEGs with structure of all sizes, at quality 90, as one class."""
    dice = np.random.default_rng(0)
    (folder / "a").mkdir(parents=True)
    for number in range(count):
        photo = np.zeros((height, width, 3), np.float32)
        for side, strength in ((4, 60), (16, 35), (64, 20), (128, 10)):
            coarse = dice.normal(128, strength, (side, side, 3)).clip(0, 255).astype(np.uint8)
            photo += np.asarray(Image.fromarray(coarse).resize((width, height))) - 128.0
        made = Image.fromarray((photo + 128).clip(0, 255).astype(np.uint8))
        made.save(folder / "a" / f"{number:04d}.jpg", quality=90)
    return folder


def posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """timm's, where no bit is kept too."""
    return ImageOps.posterize(image, bits) if bits >= 1 else Image.new(image.mode, image.size)


def timm_side(folder: Path, size: int, policy: str, workers: int = 0) -> Side:
    """timm's loader as its training script makes it, for a CPU."""
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = posterize
    return create_loader(
        ImageFolder(str(folder)), (3, size, size), BATCH, is_training=True, auto_augment=policy,
        num_workers=workers, device=torch.device("cpu"), persistent_workers=workers > 0,
        scale=(1.0, 1.0) if size == SMALL else None,
    ).__iter__  # fmt: skip


def torchvision_side(folder: Path, size: int, workers: int = 0) -> Side:
    """torchvision's transforms on uint8 tensors, as its reference recommends."""
    crop = (
        v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")
        if size == SMALL
        else v2.RandomResizedCrop(size, antialias=True)
    )
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            crop,
            v2.RandomHorizontalFlip(),
            v2.RandAugment(2, 9),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), transform), BATCH, shuffle=True, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0,
    ).__iter__  # fmt: skip


def our_side(folder: Path, size: int, noise: Noise) -> Side:
    """Our batches; small images are decoded now, and others again each time."""
    names = tuple(sorted(str(path) for path in folder.rglob("*.*g")))
    images, labels = Images(Folder(""), names), torch.zeros(len(names), dtype=torch.int64)
    pixels: Any = OnDisk(images, size if size == SMALL else CANVAS, torch.device("cpu"))
    if size == SMALL:
        pixels = InMemory(pixels.at(torch.arange(len(names))).permute(0, 2, 3, 1).contiguous())
    labeled, steps = LabeledSet(pixels, labels, 2), len(names) // BATCH
    stage = Stage(steps=steps, size=size, magnitude=noise.magnitude)

    def run() -> Iterable[Tensor]:
        made = Batches(
            labeled, None, stages=[stage], views=("strong", ()), batch=BATCH, ratio=0, noise=noise,
            seed=0,
        )  # fmt: skip
        for step in range(steps):
            images = made.at(step).labeled.images
            yield images.sub_(MEAN).div_(STD)  # as a network does it first

    return run


def passed(side: Side, count: int, clock: Callable[[Callable[[], object]], float]) -> float:
    """Milliseconds an image in one pass."""
    return 1e3 * clock(lambda: sum(1 for _ in side())) / (count // BATCH * BATCH)


def compared(folder: Path, what: str, size: int, *, every_core: bool = False) -> Iterator[Case]:
    """One folder of files beside both peers."""
    count = len(list(folder.rglob("*.*g")))
    cores = len(available_cores())
    workers, clock = (cores, wall) if every_core else (0, processor)
    peers = {
        "timm's loader": ("half", timm_side(folder, size, POLICY["half"], workers)),
        "timm's loader, always": ("always", timm_side(folder, size, POLICY["always"], workers)),
        "torchvision's loader": ("always", torchvision_side(folder, size, workers)),
    }
    for peer, (often, side) in peers.items():
        mine = our_side(folder, size, NOISE[often])
        yield Case(
            what=what, peer=peer, unit="ms an image",
            ours=lambda mine=mine: passed(mine, count, clock),  # type: ignore[misc]
            theirs=lambda side=side: passed(side, count, clock),  # type: ignore[misc]
        )  # fmt: skip


def cases(folder: Path) -> Iterator[Case]:
    """Files of 32 px, three sizes of photos, and one with all cores at work."""
    small = write_photos(folder / "small", SMALL, SMALL, 1024)
    yield from compared(small, "32 px, JPEG files", SMALL)
    for width, height, count in SOURCES:
        photos = write_photos(folder / f"{width}", width, height, count)
        yield from compared(photos, f"224 px, JPEGs of {width} x {height}", SIZE)
    torch.set_num_threads(len(available_cores()))
    what = "224 px, JPEGs of 500 x 375, all cores, wall time"
    yield from compared(folder / "500", what, SIZE, every_core=True)
