"""Batch t as a function of t: which rows, which views, which targets.

Where several processes train together, each makes its part of the batch.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

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
    sent,
    stage_at,
)
from tutelage.data.crops import Cropped, cut
from tutelage.data.draws import OfBatch, of_batch
from tutelage.data.pixels import InMemory, Pixels, WhenAsked
from tutelage.data.sets import LabeledSet, Pool, positions
from tutelage.data.threads import lone_threads
from tutelage.data.views import VIEWS
from tutelage.distributed.collectives import neighbors, part_of, world
from tutelage.errors import UsageError
from tutelage.mixing import Mix, mixup_or_cutmix
from tutelage.settings import Noise
from tutelage.training_settings import check_shared

AHEAD = 2  # batches that are made while one is used
OWN = ("threads", "ahead")  # what batches have in each process


def makers() -> int:
    """Threads that make batches, beside those that decode: of this process, where several share
    the machine, half the cores, but no more than batches are made at once."""
    return min(AHEAD + 1, max(1, (os.cpu_count() or 1) // (2 * neighbors())))


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
        """Remember the sets; nothing is drawn yet.

        Raises UsageError for a view that there isn't, and for a batch that the processes which
        train together can't share evenly.
        """
        unknown = [name for name in (views[0], *views[1]) if name not in VIEWS]
        if unknown:
            raise UsageError(f"no view is called {unknown[0]!r}: there are {', '.join(VIEWS)}")
        self.labeled, self.pool = labeled, pool
        self.labeled_view, self.unlabeled_views = views
        self.stages, self.noise, self.seed = tuple(stages), noise, seed
        self.batch, self.ratio = batch, ratio
        for size in {stage.batch or batch for stage in stages}:
            check_shared(size, world())
        self._begin()

    def _begin(self) -> None:
        """The threads, where batches are made ahead."""
        labeled, pool = self.labeled, self.pool
        in_memory = isinstance(labeled.pixels, InMemory) and (pool is None or pool.in_memory)
        self.threads = None if in_memory else lone_threads(makers(), "batch")
        self.ahead: dict[int, Future[Batch]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the threads and what they make: another process has its own."""
        return {name: value for name, value in vars(self).items() if name not in OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

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
        """Batch of a step, or this process's part of it, which all ask for in turn; meanwhile
        threads make the next where images are not in memory."""
        return self._mixed(self._made(step), step)

    def _made(self, step: int) -> Batch:
        """The batch before it is mixed."""
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
        count = self.stage(step).batch or self.batch
        return Batch(
            self._labeled(step, of_batch(self.seed, Dice.LABELED_VIEW, step, total=count)),
            self._unlabeled(step, self.stage(step)),
        )

    def labeled_at(self, step: int) -> Tensor:
        """The labeled images of a step's whole batch, also where processes share it."""
        images = self._labeled(step, generator(self.seed, Dice.LABELED_VIEW, step)).images
        stage = self.stage(step)
        mix = self._mix(step, stage, len(images), Dice.LABELED_MIX)
        return images if mix is None else mix.images(images, images.roll(1, 0))

    def _labeled(self, step: int, dice: torch.Generator) -> Labeled:
        """The labeled images that the dice are for."""
        stage = self.stage(step)
        count = stage.batch or self.batch
        rows = positions(
            self.seen(step), count, len(self.labeled.labels), seed=self.seed,
            use=Dice.LABELED_ORDER, repeats=self.noise.repeats,
        )  # fmt: skip
        if isinstance(dice, OfBatch):
            rows = rows[dice.part]
        name = self.labeled_view
        images = self._views(self.labeled.pixels, rows, (name,), dice, stage)[name]
        return Labeled(images=images, targets=sent(self.labeled.targets(rows), images.device))

    def _mixed(self, batch: Batch, step: int) -> Batch:
        """The batch's images and targets mixed with each other, where the stage says so.

        Images at the ends of parts are mixed with those of other processes, so that all of them
        come here with the same step.
        """
        stage, labeled, unlabeled = self.stage(step), batch.labeled, batch.unlabeled
        mix = self._own_mix(step, stage, len(labeled.images), Dice.LABELED_MIX)
        if mix is None:
            return batch
        labeled = Labeled(mix.images(labeled.images), mix.targets(labeled.targets))
        if unlabeled is None or unlabeled.targets is None or set(unlabeled.views) == {"plain"}:
            return replace(batch, labeled=labeled)
        mix = self._own_mix(step, stage, len(unlabeled.rows), Dice.POOL_MIX) or mix
        views = {name: mix.images(view) for name, view in unlabeled.views.items()}
        targets = mix.targets(unlabeled.targets)
        return Batch(labeled, replace(unlabeled, views=views, targets=targets))

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
        """How a batch of `count` images is mixed; None where it isn't."""
        if not stage.mixup and not stage.cutmix:
            return None
        return mixup_or_cutmix(
            stage.size, mixup_alpha=stage.mixup, cutmix_alpha=stage.cutmix,
            count=count if self.noise.mix_each else 1, generator=generator(self.seed, use, step),
        )  # fmt: skip

    def _own_mix(self, step: int, stage: Stage, count: int, use: Dice) -> Mix | None:
        """How `count` images of this process are mixed, out of the draws for the whole batch."""
        mix, part = self._mix(step, stage, count * world(), use), part_of(count * world())
        return mix.part(part) if mix is not None and self.noise.mix_each else mix

    def _unlabeled(self, step: int, stage: Stage) -> Unlabeled | None:
        """The pool's part of a batch, where the method wants one."""
        pool = self.pool
        if pool is None or not self.unlabeled_views:
            return None
        count = self.ratio * (stage.batch or self.batch)
        drawn = pool.draw(self.ratio * self.seen(step), count, seed=self.seed)
        dice = of_batch(self.seed, Dice.POOL_VIEW, step, total=count)
        views = self._views(drawn.pixels, drawn.places, self.unlabeled_views, dice, stage)
        targets = drawn.targets
        if targets is not None:
            targets = sent(targets, next(iter(views.values())).device)
        return Unlabeled(rows=drawn.rows, views=views, targets=targets)
