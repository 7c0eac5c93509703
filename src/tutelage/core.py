"""What every part shares: batches, time, randomness as a function of the step, and the way to a
device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import TypeAlias

import torch
from torch import Tensor

from tutelage.errors import UsageError

Metrics: TypeAlias = dict[str, Tensor]  # detached scalars
Advance: TypeAlias = Callable[[int], None]  # hears how many more images are done


@dataclass(frozen=True, slots=True)
class Labeled:
    """Images with targets."""

    images: Tensor  # (B, 3, H, W) float32 in [0, 1]
    targets: Tensor  # (B, K) float32, rows sum to 1


@dataclass(frozen=True, slots=True)
class Unlabeled:
    """Pool images in the views that the method asked for."""

    rows: Tensor  # (U,) int64, rows of the pool
    views: Mapping[str, Tensor]  # name -> (U, 3, H, W) float32 in [0, 1]
    targets: Tensor | None  # (U, K) float32 from the pool's label table


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees."""

    labeled: Labeled
    unlabeled: Unlabeled | None = None

    def pool(self) -> Unlabeled:
        """The unlabeled part; raises UsageError where the recipe has no pool."""
        if self.unlabeled is None:
            raise UsageError("this method needs unlabeled images: give the recipe a pool")
        return self.unlabeled


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with constant image size, batch, and strength of noise."""

    steps: int
    size: int  # pixels, side of the square network input
    magnitude: float  # RandAugment, 0 to 10; to 30 with the scale of its TensorFlow code
    crop: int | None = None  # pixels, side of the crop that is resized to `size`; None: size
    cutout: float = 0.0  # side of the gray square over the image's side, 0 to 1
    mixup: float = 0.0  # alpha of MixUp's share; 0: none
    cutmix: float = 0.0  # alpha of CutMix's share; 0: none
    dropout: float | None = None  # before the classifier; None: as the network was built
    drop_path: float | None = None  # stochastic depth at the last block; None: as built
    drop_block: float | None = None  # DropBlock's share of the last maps; None: as built
    batch: int | None = None  # labeled images a step; None: the recipe's

    def __post_init__(self) -> None:
        """Reject values that no training could mean."""
        if self.steps < 1 or self.size < 1:
            raise UsageError(f"a stage needs at least 1 step and 1 pixel, got {self}")
        if not 0 <= self.magnitude <= 30 or not 0 <= self.cutout <= 1:
            raise UsageError(f"magnitude is 0 to 30 and cutout 0 to 1, got {self}")
        if self.mixup < 0 or self.cutmix < 0:
            raise UsageError(f"mixup and cutmix are at least 0, got {self}")
        if not all(0 <= (rate or 0) <= 1 for rate in self.network_noise().values()):
            raise UsageError(f"dropout, drop_path and drop_block are 0 to 1, got {self}")
        if self.batch is not None and self.batch < 2:
            raise UsageError(f"a batch has at least 2 images, got {self}")

    def network_noise(self) -> dict[str, float | None]:
        """Rates by name, as `set_noise` takes them."""
        return {
            "dropout": self.dropout, "drop_path": self.drop_path, "drop_block": self.drop_block
        }  # fmt: skip


def stage_at(step: int, stages: Sequence[Stage]) -> Stage:
    """The stage that a step belongs to."""
    for stage in stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    raise IndexError(f"there is no stage {step} steps after the last")


def images_before(step: int, stages: Sequence[Stage], batch: int) -> int:
    """Labeled images of all steps before this one; `batch` is that of stages without their own."""
    images = 0
    for stage in stages:
        images += min(step, stage.steps) * (stage.batch or batch)
        step -= min(step, stage.steps)
    return images


@dataclass(frozen=True, slots=True)
class Clock:
    """Where training stands; schedules are functions of `fraction`."""

    step: int
    total: int
    images: tuple[int, int] | None = None  # labeled ones seen and to see, where batches change
    rate: float = 1.0  # multiplies the learning rate, where batches change

    @property
    def fraction(self) -> float:
        """Share of the training that lies behind, in [0, 1): of images where batches change."""
        done, total = self.images or (self.step, self.total)
        return done / total


class Dice(IntEnum):
    """What a random draw is for. A new use gets a new number at the end."""

    SPLIT = 0
    LABELED_ORDER = 1
    POOL_ORDER = 2
    LABELED_VIEW = 3
    POOL_VIEW = 4
    STEP = 5
    INIT = 6
    SELECT = 7
    BOOTSTRAP = 8
    ROUND = 9
    TEACHER = 10
    POOL_SHARE = 11
    WATCH = 12
    LABEL_NOISE = 13
    LABELED_MIX = 14
    POOL_MIX = 15
    POOL_WINDOW = 16
    ROBUST = 17
    CALIBRATION = 18
    SEARCH = 19
    RANK = 20


def fold(seed: int, use: Dice, step: int) -> int:
    """A 63-bit seed that depends on all three numbers and on nothing else."""
    digest = blake2b(f"{seed}/{int(use)}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, use: Dice, step: int) -> torch.Generator:
    """A CPU generator for one use at one step: nothing to save, nothing to drift."""
    return torch.Generator().manual_seed(fold(seed, use, step))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to CUDA by way of pinned memory, as any other copy to it waits
    until all that was asked of the device before is done."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
