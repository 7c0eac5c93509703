"""Whether a training step fits into memory, and the batch that does, where nobody named one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tutelage.data.memory import free_bytes, said
from tutelage.data.pixels import bytes_held
from tutelage.distributed.collectives import neighbors, world
from tutelage.errors import UsageError
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.rounds import Round
from tutelage.speed.training_memory import images_learned, least_bytes
from tutelage.training_settings import Common

ROOM = 2.0  # of what shapes say: up to 1.95 was measured (docs/results.md)
FEWEST = 8  # labeled images, below which a batch is not made smaller by itself


@dataclass(frozen=True)
class Need:
    """What the largest step of a run takes at least."""

    bytes: int
    images: int
    size: int  # pixels

    @property
    def words(self) -> str:
        """Which step that is."""
        return f"a step of {self.images:,} images at {self.size} px"


def batch_that_fits(
    settings: Common, prepared: Prepared, rounds: Callable[[int], Sequence[Round]]
) -> tuple[int, str]:
    """Labeled images a step, and what to say about it, or nothing.

    `rounds(batch)` makes the rounds. Raises UsageError where a step can't fit: on a CPU the system
    would end the process there, and say nothing.
    """
    batch, free = settings.batch_size, _free(prepared)
    if free is None:
        return batch, ""
    first = need = _need(rounds(batch))
    while settings.batch == "auto" and ROOM * need.bytes > free and _can_be_halved(batch):
        batch //= 2
        need = _need(rounds(batch))
    if need.bytes > free:
        raise UsageError(
            f"--batch {batch}: {need.words} takes {said(need.bytes)} of memory or more, and "
            f"{said(free)} are free: {_advice(batch, need, free)}"
        )
    if batch < settings.batch_size:
        return batch, (
            f"batches of {batch} labeled images, as {first.words} may take "
            f"{said(ROOM * first.bytes)} of memory, and {said(free)} are free; give --batch to "
            "have it otherwise"
        )
    if ROOM * need.bytes > free:
        return batch, (
            f"{need.words} may take {said(ROOM * need.bytes)} of memory, and {said(free)} are "
            f"free: if it fails, {_advice(batch, need, free)}"
        )
    return batch, ""


def _need(rounds: Sequence[Round]) -> Need:
    """What the largest step needs."""
    recipes = {(one.recipe.net, one.recipe.method, one.recipe.stages): one.recipe for one in rounds}
    found = []
    for recipe in recipes.values():
        last = recipe.stages[-1]
        found.append(Need(least_bytes(recipe, among=world()), images_learned(recipe), last.size))
    return max(found, key=lambda need: need.bytes)


def _can_be_halved(batch: int) -> bool:
    """Whether half of it is a batch, which all processes can share."""
    return batch // 2 >= max(FEWEST, 2 * world()) and batch // 2 % world() == 0


def _advice(batch: int, need: Need, free: int) -> str:
    """What would fit."""
    fits = int(batch * free / (ROOM * need.bytes)) // world() * world()
    smaller = f"--batch {fits}, " if 2 * world() <= fits < batch else ""
    return f"give {smaller}a smaller --img-size or another network"


def _free(prepared: Prepared) -> int | None:
    """Bytes for this process, beside the images that it may still keep; None where that isn't
    known."""
    device = prepared.device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = free_bytes() if device.type == "cpu" else None
    if free is None:
        return None
    canvas, memory = canvas_for(prepared.size), prepared.memory
    images = sum(bytes_held(len(its), canvas) for its in prepared.parts.values())
    return max(0, free // neighbors() - min(images, memory.limit) + memory.used)
