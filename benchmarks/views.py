"""How many training images a second one core disturbs, beside timm and torchvision.

python -m benchmarks.views [--turns 15] [--batch 64 256] [--size 32 224]

The same on all sides: a shift by up to an eighth with reflected border, a flip, RandAugment with
two operations at magnitude 9 that are always applied (beside it, with timm's own probability of
a half), and a batch of floats at the end. Ours takes uint8 rows, theirs images that Pillow has
decoded, one after another. One thread; processor time, so that other work on the core doesn't
count; sides in turn, medians, and quartiles of the ratio of each turn.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision import transforms

from benchmarks.journal import machine
from tutelage.core import Dice, Stage, generator
from tutelage.data.views import strong
from tutelage.settings import Noise

MAGNITUDE = 9
PEERS: dict[str, Callable[[], Any]] = {
    "timm": lambda: rand_augment_transform(f"rand-m{MAGNITUDE}-n2-p1-inc1", {}),
    "timm, p = 0.5": lambda: rand_augment_transform(f"rand-m{MAGNITUDE}-n2-inc1", {}),
    "torchvision": lambda: transforms.RandAugment(2, MAGNITUDE, num_magnitude_bins=11),
}


def photos(count: int, size: int) -> Tensor:
    """Soft random images (N, H, W, 3) uint8, whose histograms are not all flat."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (fine * 255).byte().permute(0, 2, 3, 1).contiguous()


def ours(images: Tensor, size: int, step: int) -> Tensor:
    """One batch of strong views."""
    stage = Stage(steps=1, size=size, magnitude=MAGNITUDE)
    dice = generator(0, Dice.POOL_VIEW, step)
    return strong(images.permute(0, 3, 1, 2), dice, stage, Noise(crop="pad"))


def pipeline(operation: Any, size: int) -> Any:
    """The same for one image after another."""
    return transforms.Compose(
        [
            transforms.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            operation,
            transforms.ToTensor(),
        ]
    )


def seconds(work: Callable[[], Any]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(size: int, batch: int, turns: int) -> None:
    """Print the rates and the ratios of one size of images and batches."""
    images = photos(batch, size)
    decoded = [Image.fromarray(image) for image in np.asarray(images)]
    made = {name: pipeline(operation(), size) for name, operation in PEERS.items()}
    times: dict[str, list[float]] = {name: [] for name in ("ours", *PEERS)}
    repeats = max(1, 1024 * 32 * 32 // (batch * size * size))  # so that a turn takes long enough
    for turn in range(turns + 1):
        for name, seen in times.items():
            if name == "ours":
                steps = range(turn * repeats, (turn + 1) * repeats)
                seen.append(seconds(lambda s=steps: [ours(images, size, i) for i in s]) / repeats)
            else:
                one = made[name]
                seen.append(seconds(lambda o=one: torch.stack([o(i) for i in decoded])))
    times = {name: seen[1:] for name, seen in times.items()}  # the first turn warms up
    print(f"\n{size} px, batches of {batch}:")
    for name, seen in times.items():
        rate = batch / statistics.median(seen)
        line = f"  {name:<14} {rate:9,.0f} images/s"
        if name != "ours":
            ratios = [other / own for own, other in zip(times["ours"], seen, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            line += f"   ours is {middle:5.2f} times as fast ({low:.2f} to {high:.2f})"
        print(line)


def main() -> None:
    """Print medians, and quartiles of the ratios of each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--size", type=int, nargs="+", default=[32, 224])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for size in given.size:
        for batch in given.batch if size <= 64 else given.batch[:1]:
            compare(size, batch, given.turns)
    print(f"\n{given.turns} turns; {machine()}")


if __name__ == "__main__":
    main()
