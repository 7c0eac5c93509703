"""Batch t as a function of t: which rows, which views, which targets."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import torch
from torch import Tensor

from tutelage.core import (
    Batch,
    Dice,
    Labeled,
    Stage,
    Unlabeled,
    generator,
    images_before,
    stage_at,
)
from tutelage.data.crops import Cropped, cut
from tutelage.data.pixels import InMemory, Pixels, WhenAsked
from tutelage.data.pool import StoredTargets
from tutelage.data.views import VIEWS
from tutelage.errors import UsageError
from tutelage.mixing import Mix, mixup_or_cutmix
from tutelage.settings import Noise

AHEAD = 2  # batches that are made while one is used
MAKERS = 2 if (os.cpu_count() or 1) > 2 else 1  # threads that make them, beside those that decode


@dataclass(frozen=True)
class LabeledSet:
    """Images with targets."""

    pixels: Pixels
    targets: Tensor  # (N, K) float32

    def __post_init__(self) -> None:
        """Reject sets that don't match."""
        if len(self.pixels) != len(self.targets) or not len(self.targets):
            raise UsageError(f"{len(self.pixels)} images with {len(self.targets)} targets")


@dataclass(frozen=True)
class Drawn:
    """Pool images of a batch, before any view is made of them."""

    rows: Tensor  # (U,) int64
    pixels: Pixels  # what the images are decoded from,
    places: Tensor  # (U,) int64, and their rows there
    targets: Tensor | None  # (U, K) float32


class Pool(Protocol):
    """Unlabeled images in the order of a training; a draw depends on its arguments alone."""

    @property
    def in_memory(self) -> bool:
        """Whether images are at hand, so that nothing is won by drawing ahead."""

    def __len__(self) -> int:
        """Images of the whole pool, used or not."""

    def draw(self, start: int, count: int, *, seed: int) -> Drawn:
        """`count` images after `start` earlier ones."""


@dataclass(frozen=True)
class PoolSet:
    """Pool images to train on, with how often each comes in an epoch."""

    pixels: Pixels  # the whole pool
    rows: Tensor  # (M,) int64, the pool's rows in use
    copies: Tensor  # (M,) int64, at least 1
    targets: StoredTargets | None = None  # of the rows in use

    def __post_init__(self) -> None:
        """Reject an empty selection."""
        if not len(self.rows):
            raise UsageError("no pool image is in use: lower the selection's threshold")

    def __len__(self) -> int:
        """Images of the whole pool, used or not."""
        return len(self.pixels)

    @property
    def in_memory(self) -> bool:
        """Whether the images are decoded already."""
        return isinstance(self.pixels, InMemory)

    @cached_property
    def entries(self) -> Tensor:
        """Each row in use as often as its copies, by its place among them (E,)."""
        return torch.repeat_interleave(torch.arange(len(self.rows)), self.copies)

    def draw(self, start: int, count: int, *, seed: int) -> Drawn:
        """`count` images after `start` earlier ones; each epoch is a new order."""
        order = positions(start, count, len(self.entries), seed=seed, use=Dice.POOL_ORDER)
        entries = self.entries[order]
        rows = self.rows[entries]
        targets = None if self.targets is None else self.targets.at(entries)
        return Drawn(rows, self.pixels, rows, targets)


@lru_cache(maxsize=8)
def _permutation(length: int, seed: int, use: Dice, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator(seed, use, epoch))


def positions(
    start: int, count: int, length: int, *, seed: int, use: Dice, repeats: int = 1
) -> Tensor:
    """Indices (count,) into a set of `length`, after `start` earlier ones: each epoch is a new
    permutation of all of it.

    With repeated augmentation (Hoffer et al. 2020, arXiv 1901.09335) each index comes `repeats`
    times. The copies stand apart, as neighbors are mixed with each other.
    """
    index = torch.arange(start, start + count)
    apart = torch.argsort(index % repeats, stable=True)
    index = index // repeats
    epochs = index // length
    parts = [
        _permutation(length, seed, use, epoch)[index[epochs == epoch] % length]
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return torch.cat(parts)[apart]


class Batches:
    """All batches of a training run: `at(step)` needs no state but the step."""

    def __init__(
        self,
        labeled: LabeledSet,
        pool: Pool | None,
        *,
        stages: Sequence[Stage],
        views: tuple[str, tuple[str, ...]],  # of the labeled images, of the pool
        batch: int,
        ratio: int,
        noise: Noise,
        seed: int,
    ) -> None:
        """Remember the sets; nothing is drawn yet."""
        unknown = [name for name in (views[0], *views[1]) if name not in VIEWS]
        if unknown:
            raise UsageError(f"no view is called {unknown[0]!r}: there are {', '.join(VIEWS)}")
        self.labeled, self.pool = labeled, pool
        self.labeled_view, self.unlabeled_views = views
        self.stages, self.noise, self.seed = tuple(stages), noise, seed
        self.batch, self.ratio = batch, ratio
        in_memory = isinstance(labeled.pixels, InMemory) and (pool is None or pool.in_memory)
        self.threads = None if in_memory else ThreadPoolExecutor(MAKERS)
        self.ahead: dict[int, Future[Batch]] = {}

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return stage_at(step, self.stages)

    def seen(self, step: int) -> int:
        """Labeled images of all batches before this step."""
        return images_before(step, self.stages, self.batch)

    def at(self, step: int) -> Batch:
        """Batch of a step; meanwhile threads make the next where images are not in memory."""
        if self.threads is None:
            return self._make(step)
        following = range(step, min(step + 1 + AHEAD, self.total))
        for passed in set(self.ahead) - set(following):
            self.ahead.pop(passed).cancel()
        for wanted in following:
            if wanted not in self.ahead:
                self.ahead[wanted] = self.threads.submit(self._make, wanted)
        return self.ahead.pop(step).result()

    def _make(self, step: int) -> Batch:
        """The batch from nothing but the step."""
        return Batch(self.labeled_at(step), self._unlabeled(step, self.stage(step)))

    def labeled_at(self, step: int) -> Labeled:
        """The labeled part of a step's batch alone."""
        stage = self.stage(step)
        rows = positions(
            self.seen(step), stage.batch or self.batch, len(self.labeled.targets), seed=self.seed,
            use=Dice.LABELED_ORDER, repeats=self.noise.repeats,
        )  # fmt: skip
        dice = generator(self.seed, Dice.LABELED_VIEW, step)
        name = self.labeled_view
        images = self._views(self.labeled.pixels, rows, (name,), dice, stage)[name]
        targets = self.labeled.targets[rows.to(self.labeled.targets.device)]
        mix = self._mix(step, stage, len(rows), Dice.LABELED_MIX)
        if mix is not None:
            images, targets = mix.images(images), mix.targets(targets)
        return Labeled(images=images, targets=targets)

    def _views(
        self, pixels: Pixels, rows: Tensor, names: Sequence[str], dice: torch.Generator,
        stage: Stage,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The views of some images, all of them from one decoding."""
        resized = self.noise.crop_for(stage.crop or stage.size) == "resized"
        if not (isinstance(pixels, WhenAsked) and pixels.of_photos and resized):
            squares = pixels.at(rows)
            return {name: VIEWS[name](squares, dice, stage, self.noise) for name in names}
        cropped = [name for name in names if name != "plain"]
        cuts = [
            cut(
                len(rows), dice, size=stage.size, min_area=self.noise.min_area, flip=self.noise.flip
            )
            for _ in cropped
        ]
        share = stage.size / (stage.crop or stage.size)
        crops = pixels.crops(rows, cuts, share=share) if cuts else []
        shown: dict[str, Tensor | Cropped] = dict(zip(cropped, map(Cropped, crops), strict=True))
        if len(cropped) < len(names):
            shown["plain"] = pixels.at(rows)
        return {name: VIEWS[name](shown[name], dice, stage, self.noise) for name in names}

    def _mix(self, step: int, stage: Stage, count: int, use: Dice) -> Mix | None:
        """How the images of a batch are mixed; None where they aren't."""
        if not stage.mixup and not stage.cutmix:
            return None
        return mixup_or_cutmix(
            stage.size, mixup_alpha=stage.mixup, cutmix_alpha=stage.cutmix,
            count=count if self.noise.mix_each else 1, generator=generator(self.seed, use, step),
        )  # fmt: skip

    def _unlabeled(self, step: int, stage: Stage) -> Unlabeled | None:
        """The pool's part of a batch, where the method wants one."""
        pool = self.pool
        if pool is None or not self.unlabeled_views:
            return None
        count = self.ratio * (stage.batch or self.batch)
        drawn = pool.draw(self.ratio * self.seen(step), count, seed=self.seed)
        dice = generator(self.seed, Dice.POOL_VIEW, step)
        views = self._views(drawn.pixels, drawn.places, self.unlabeled_views, dice, stage)
        targets = drawn.targets
        if targets is not None:
            targets = targets.to(next(iter(views.values())).device)
            mix = self._mix(step, stage, count, Dice.POOL_MIX)
            if mix is not None and set(views) != {"plain"}:
                views = {name: mix.images(view) for name, view in views.items()}
                targets = mix.targets(targets)
        return Unlabeled(rows=drawn.rows, views=views, targets=targets)
