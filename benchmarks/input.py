"""How many training images a second come from JPEG files, beside timm's and torchvision's loaders.

python -m benchmarks.input [--photos FOLDER] [--turns 7] [--workers 0 1] [--batch 64]

The same on all sides: files on disk, random resized crop of 8 to 100 % of the area, flip,
RandAugment with two operations at magnitude 9 as timm draws them (each with a probability of a
half, spread 0.5; and once always applied), float batches, normalized. FOLDER holds class folders;
without it soft random images are written. timm is `create_loader` with its own defaults; its
posterize is mended, as today's Pillow refuses to keep no bits. Sides in turn, wall time, medians,
and quartiles of the ratio of each turn; the first turn warms up. Then where our time goes, and
images of 32 px held in memory.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
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

from benchmarks.journal import machine
from tutelage.core import Dice, Stage, generator
from tutelage.data import pixels as ours
from tutelage.data.crops import cut
from tutelage.data.decode import whole
from tutelage.data.loader import Batches
from tutelage.data.operations import as_float
from tutelage.data.randaugment import randaugment
from tutelage.data.sets import LabeledSet
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.data.views import strong
from tutelage.settings import Noise

SIZE, CANVAS = 224, 256
NOISE = Noise(
    min_area=0.08, magnitude=9, scale="timm", op_prob=0.5, magnitude_std=0.5, cutout=0
)  # fmt: skip
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


def timm_side(folder: Path, batch: int, workers: int, policy: str) -> Side:
    """timm's loader as its training script makes it, for a CPU."""
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = posterize
    return create_loader(
        ImageFolder(str(folder)), (3, SIZE, SIZE), batch, is_training=True, auto_augment=policy,
        num_workers=workers, device=torch.device("cpu"), persistent_workers=workers > 0,
    ).__iter__  # fmt: skip


def torchvision_side(folder: Path, batch: int, workers: int) -> Side:
    """torchvision's transforms on uint8 tensors, as its reference recommends."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(2, 9),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )
    return DataLoader(
        ImageFolder(str(folder), transform), batch, shuffle=True, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0,
    ).__iter__  # fmt: skip


def opencv_floor(images: Images, batch: int) -> Side:
    """Scaled decoding, a resized crop and floats by OpenCV: no policy, a floor."""
    import cv2

    cv2.setNumThreads(1)
    with Image.open(io.BytesIO(images.read(0))) as first:
        times = min(first.size) // CANVAS
    reduced = {0: cv2.IMREAD_COLOR, 1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2}
    scale = reduced.get(times, cv2.IMREAD_REDUCED_COLOR_4)

    def one(row: int) -> Any:
        data = np.frombuffer(images.read(row), np.uint8)
        image = cv2.imdecode(data, scale)
        h, w = image.shape[:2]
        part = image[h // 8 : h - h // 8, w // 8 : w - w // 8]
        return cv2.resize(part, (SIZE, SIZE))[..., ::-1]

    def run() -> Iterable[Tensor]:
        for start in range(0, len(images), batch):
            rows = range(start, min(start + batch, len(images)))
            made = torch.from_numpy(np.stack([one(row) for row in rows]).transpose(0, 3, 1, 2))
            yield normalized(made.contiguous().float().div_(255))

    return run


def normalized(images: Tensor) -> Tensor:
    """As a network does it first."""
    return images.sub_(MEAN).div_(STD)


def our_side(images: Images, batch: int, noise: Noise) -> Side:
    """Our batches, whose images are decoded again each time."""

    def run() -> Iterable[Tensor]:
        steps = len(images) // batch
        labeled = LabeledSet(
            ours.OnDisk(images, CANVAS, torch.device("cpu")), torch.eye(2)[[0] * len(images)]
        )
        stage = Stage(steps=steps, size=SIZE, magnitude=noise.magnitude)
        made = Batches(
            labeled, None, stages=[stage], views=("strong", ()), batch=batch, ratio=0, noise=noise,
            seed=0,
        )  # fmt: skip
        for step in range(steps):
            yield normalized(made.at(step).labeled.images)

    return run


def decoding(images: Images) -> Side:
    """Pillow's decoding alone."""
    return lambda: (
        Image.open(io.BytesIO(images.read(row))).load()
        for row in range(len(images))  # type: ignore[arg-type]
    )


def seconds(side: Side) -> float:
    """Wall time of one pass."""
    start = time.perf_counter()
    for _ in side():
        pass
    return time.perf_counter() - start


def compare(sides: dict[str, Side], count: int, turns: int) -> None:
    """Print rates, and how many times as fast ours is in each turn."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns + 1):
        for name, side in sides.items():
            times[name].append(seconds(side))
    mine = {True: times["ours, always"][1:], False: times["ours"][1:]}
    for name, seen in times.items():
        seen = seen[1:]
        line = f"  {name:<28} {count / statistics.median(seen):8,.0f} images/s"
        if not name.startswith("ours"):
            own = mine["always" in name or "torchvision" in name]
            ratios = [other / one for one, other in zip(own, seen, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            line += f"   ours is {middle:5.2f} times as fast ({low:.2f} to {high:.2f})"
        print(line, flush=True)


def breakdown(images: Images, batch: int, turns: int) -> None:
    """Print the milliseconds an image of each part of our work, one after another."""
    rows = range(min(batch, len(images)))
    dice = partial(generator, 0, Dice.LABELED_VIEW)
    raws = [images.read(row) for row in rows]
    photos = [whole(raw, CANVAS) for raw in raws]
    crops = torch.empty(len(rows), 3, SIZE, SIZE, dtype=torch.uint8)

    def crop() -> None:
        plan = cut(len(rows), dice(0), size=SIZE, min_area=0.08, flip=True)
        for row, photo in enumerate(photos):
            crops[row] = plan.of(row, photo)

    crop()
    policy = partial(
        randaugment, crops, magnitude=9, scale="timm", op_prob=0.5, magnitude_std=0.5
    )  # fmt: skip
    floats = as_float(crops)
    parts: dict[str, Callable[[], Any]] = {
        "read": lambda: [images.read(row) for row in rows],
        "decode": lambda: [len(whole(raw, CANVAS)) for raw in raws],
        "crop, resize, flip": crop,
        "RandAugment": lambda: policy(dice(1)),
        "to float": lambda: as_float(crops),
        "normalize": lambda: normalized(floats),
    }
    print("  ours, milliseconds an image:")
    for name, work in parts.items():
        seen = [seconds(lambda w=work: (w() for _ in range(1))) for _ in range(turns + 1)]
        print(f"    {name:<20} {statistics.median(seen[1:]) / len(rows) * 1000:7.3f}", flush=True)


def photos_case(folder: Path, given: argparse.Namespace) -> None:
    """One folder of JPEGs through all loaders."""
    names = tuple(sorted(str(path) for path in folder.rglob("*.jpg")))
    images, batch = Images(Folder(""), names), given.batch
    always = Noise(min_area=0.08, magnitude=9, scale="timm", magnitude_std=0.5, cutout=0)
    sides = {
        "ours": our_side(images, batch, NOISE),
        "ours, always": our_side(images, batch, always),
    }
    for workers in given.workers:
        half, whole_ = "rand-m9-n2-mstd0.5-inc1", "rand-m9-n2-p1-mstd0.5-inc1"
        sides[f"timm, {workers} workers"] = timm_side(folder, batch, workers, half)
        sides[f"timm, {workers} workers, always"] = timm_side(folder, batch, workers, whole_)
        sides[f"torchvision, {workers} workers"] = torchvision_side(folder, batch, workers)
    try:
        sides["OpenCV, no RandAugment"] = opencv_floor(images, batch)
    except ImportError:
        print("  without OpenCV, which is not installed")
    sides["decoding by Pillow alone"] = decoding(images)
    with Image.open(names[0]) as first:
        print(f"\n{first.width} x {first.height}, {len(names)} files, batches of {batch}:")
    compare(sides, len(names) // batch * batch, given.turns)
    breakdown(images, batch, given.turns)


def small_case(given: argparse.Namespace) -> None:
    """Images of 32 px held in memory: our views alone."""
    pixels = torch.randint(256, (given.batch, 3, 32, 32), dtype=torch.uint8)
    stage = Stage(steps=1, size=32, magnitude=9)
    seen = []
    for turn in range(5 * given.turns):
        dice = generator(0, Dice.LABELED_VIEW, turn)
        seen.append(seconds(lambda d=dice: (strong(pixels, d, stage, Noise()) for _ in range(1))))
    print(f"\n32 px in memory: {given.batch / statistics.median(seen):,.0f} images/s")


def main() -> None:
    """Print medians, and quartiles of the ratios of each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folders = given.photos or [
            write_photos(Path(scratch) / str(width), width, height, count)
            for width, height, count in SOURCES
        ]
        for folder in folders:
            photos_case(folder, given)
    small_case(given)
    cores = len(os.sched_getaffinity(0))
    print(
        f"\n{given.turns} turns on {cores} of the cores, {ours.THREADS} decode threads; {machine()}"
    )


if __name__ == "__main__":
    main()
