"""Disturbed training images on one core, beside timm and torchvision.

The same on all sides: a shift by up to an eighth with reflected border, a flip, RandAugment with
two operations at magnitude 9 that are always applied (beside it, with timm's own probability of
a half), and a batch of floats at the end. Ours takes uint8 rows, theirs images that Pillow has
decoded, one after another. Processor time, so that other work on the core doesn't count.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torchvision import transforms

from benchmarks.paired import Case, processor
from tutelage.core import Dice, Stage, generator
from tutelage.data.views import strong
from tutelage.settings import Noise

MAGNITUDE = 9
SIZES = ((32, 64), (32, 256), (224, 64))  # pixels, images of a batch
PEERS: dict[str, Callable[[], Any]] = {
    "timm": lambda: rand_augment_transform(f"rand-m{MAGNITUDE}-n2-p1-inc1", {}),
    "timm, half of them": lambda: rand_augment_transform(f"rand-m{MAGNITUDE}-n2-inc1", {}),
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


def own_cost(images: Tensor, size: int, steps: Iterator[int]) -> float:
    """Milliseconds an image of ours, over as many batches as make a turn long enough."""
    repeats = max(1, 1024 * 32 * 32 // (len(images) * size * size))
    spent = processor(lambda: [ours(images, size, next(steps)) for _ in range(repeats)])
    return 1e3 * spent / repeats / len(images)


def peer_cost(decoded: list[Image.Image], one: Any) -> float:
    """Milliseconds an image of a peer."""
    return 1e3 * processor(lambda: torch.stack([one(i) for i in decoded])) / len(decoded)


def cases(folder: Path) -> Iterator[Case]:
    """Each size beside each peer."""
    steps = count()  # so that each turn draws others
    for size, batch in SIZES:
        images = photos(batch, size)
        decoded = [Image.fromarray(image) for image in np.asarray(images)]
        for name, operation in PEERS.items():
            yield Case(
                what=f"strong views, {size} px, batch {batch}", peer=name, unit="ms an image",
                ours=partial(own_cost, images, size, steps),
                theirs=partial(peer_cost, decoded, pipeline(operation(), size)),
            )  # fmt: skip
