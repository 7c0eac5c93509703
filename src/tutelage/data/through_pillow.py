"""Augmentations of timm and torchvision as they are: through Pillow, image by image, and slow.

Both draw from random states of the whole process. Here each image has a seed from the generator, so
that they are functions of it like the other views, and those states are put back afterwards.
Different from timm: keeping no bits is black, as in the Pillow of timm's time; today's refuses it.
"""

import random
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision import transforms

from tutelage.data.draws import randint
from tutelage.data.operations import as_bytes, as_float

Transform = Callable[[Image.Image], Image.Image]

TORCHVISION: dict[str, Callable[[], Transform]] = {
    "randaugment": transforms.RandAugment,
    "autoaugment": transforms.AutoAugment,
    "trivialaugment": transforms.TrivialAugmentWide,
    "augmix": transforms.AugMix,
}
DRAWS = (torch.rand, torch.randint, torch.randperm, torch._sample_dirichlet)
ONE_AT_A_TIME = Lock()  # Python's and numpy's random states belong to all threads


class Seeded(TorchFunctionMode):
    """Draws of this thread come from a generator of their own, and torch's state is not touched.

    Forking torch's state would not do: a training in another thread draws its dropout from it.
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Remember the generator."""
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call as it is, or with the generator where it draws."""
        given = dict(kwargs or {})
        if func in DRAWS:
            given["generator"] = self.generator
        return func(*args, **given)


def _posterize(image: Image.Image, bits_to_keep: int, **unused: Any) -> Image.Image:
    """timm's, also where no bit is kept."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return timm.posterize(image, bits_to_keep)


def _timm(config: str, side: int) -> Transform:
    """The transform of timm's configuration string for images of that shorter side."""
    options: dict[str, Any] = {"translate_const": int(side * 0.45), "img_mean": (128, 128, 128)}
    if config.startswith("rand"):
        made = timm.rand_augment_transform(config, options)
        found = made.ops
    elif config.startswith("augmix"):
        made = timm.augment_and_mix_transform(config, options | {"translate_pct": 0.3})
        found = made.ops
    else:
        made = timm.auto_augment_transform(config, options)
        found = [operation for row in made.policy for operation in row]
    for operation in found:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return made


@cache
def transform_of(name: str, side: int) -> Transform:
    """timm:CONFIG or torchvision:NAME, which settings.py has checked."""
    library, _, rest = name.partition(":")
    return _timm(rest, side) if library == "timm" else TORCHVISION[rest]()


def through_pillow(images: Tensor, generator: torch.Generator, *, name: str) -> Tensor:
    """Each image by itself: (B, 3, H, W), float in [0, 1] or uint8, rounded to 8 bits."""
    if images.dtype != torch.uint8:
        return as_float(through_pillow(as_bytes(images), generator, name=name)).to(images.dtype)
    transform = transform_of(name, min(images.shape[-2:]))
    seeds = randint(0, 2**32, (len(images),), generator=generator).tolist()
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    with ONE_AT_A_TIME:
        before = random.getstate(), np.random.get_state()
        try:
            done = [_one(transform, image, seed) for image, seed in zip(pixels, seeds, strict=True)]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
    if not done:
        return images.clone()
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).to(images.device)


def _one(transform: Transform, pixels: Any, seed: int) -> Any:
    """One image (H, W, 3) uint8, with all randomness from the seed."""
    random.seed(seed)
    np.random.seed(seed)
    with Seeded(torch.Generator().manual_seed(seed)):
        return np.asarray(transform(Image.fromarray(pixels)))
