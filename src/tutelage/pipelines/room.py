"""Whether a training step fits into memory, and the batch that does, where nobody named one.

A smaller batch learns as the usual one does: the gradients of as many steps as make it up are
averaged for an update, and there are as many times the steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tutelage.data.memory import free_bytes, said
from tutelage.data.pixels import bytes_held
from tutelage.distributed.collectives import neighbors, world
from tutelage.errors import UsageError
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.rounds import Round
from tutelage.speed.training_memory import images_learned, largest_stage, least_bytes
from tutelage.training_settings import Common

ROOM = 2.0  # of what shapes say: up to 1.95 was measured (docs/performance.md)
FEWEST = 8  # labeled images, below which a batch is not made smaller by itself


@dataclass(frozen=True)
class Fit:
    """A batch that fits."""

    batch: int  # labeled images a step
    gathered: int = 1  # steps whose gradients make an update, for each that was asked
    words: str = ""  # what to say about it


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
) -> Fit:
    """The usual batch or the named one; where nobody named one, and memory is short, half of it
    again and again.

    `rounds(batch)` makes the rounds. Raises UsageError where a step can't fit: on a CPU the system
    would end the process there, and say nothing.
    """
    usual, free = settings.batch_size, _free(prepared)
    if free is None:
        return Fit(usual)
    batch, need = usual, _need(rounds(usual))
    first, unnamed = need, settings.batch == "auto" and not settings.progressive.batches
    while unnamed and ROOM * need.bytes > free and _can_be_halved(batch):
        batch //= 2
        need = _need(rounds(batch))
    here = f"{said(free)} were free beside images that are kept"
    if need.bytes > free:
        raise UsageError(
            f"{need.words} takes {said(need.bytes)} of memory or more, and {here}: "
            f"{_advice(batch, need, rounds, free)}"
        )
    if batch < usual:
        gathered = usual // batch if _may_gather(rounds(batch)) else 1
        each = f", and {gathered} of them an update" if gathered > 1 else ""
        return Fit(batch, gathered, (
            f"{batch} labeled images a step{each}, as {first.words} may take "
            f"{said(ROOM * first.bytes)} of memory, and {here}; give --batch to have it otherwise"
        ))  # fmt: skip
    if ROOM * need.bytes > free:
        return Fit(batch, words=(
            f"{need.words} may take {said(ROOM * need.bytes)} of memory, and {here}: if it fails, "
            f"{_advice(batch, need, rounds, free)}"
        ))  # fmt: skip
    return Fit(batch)


def _need(rounds: Sequence[Round]) -> Need:
    """What the largest step needs."""
    recipes = {(one.recipe.net, one.recipe.method, one.recipe.stages): one.recipe for one in rounds}
    found = [
        Need(least_bytes(one, among=world()), images_learned(one), largest_stage(one).size)
        for one in recipes.values()
    ]
    return max(found, key=lambda need: need.bytes)


def _can_be_halved(batch: int) -> bool:
    """Whether half of it is a batch, which all processes can share."""
    return batch // 2 >= max(FEWEST, 2 * world()) and batch // 2 % world() == 0


def _may_gather(rounds: Sequence[Round]) -> bool:
    """Whether an update may take several steps; a teacher that learns asks one each step."""
    return all(one.recipe.method.teacher != "trained" for one in rounds)


def _advice(batch: int, need: Need, rounds: Callable[[int], Sequence[Round]], free: int) -> str:
    """What would fit: the need grows evenly with the batch, but for the weights."""
    least, fits = 2 * world(), 0
    half = max(least, batch // 2 // world() * world())
    if half < batch:
        each = (need.bytes - _need(rounds(half)).bytes) / (batch - half)
        fits = int((free / ROOM - need.bytes) / each + batch) // world() * world() if each else 0
    smaller = f"--batch {fits}, " if least <= fits < batch else ""
    return f"give {smaller}a smaller --img-size or another network"


def _free(prepared: Prepared) -> int | None:
    """Bytes for this process, beside the images that it may still keep; None where that isn't
    known."""
    device, canvas, memory = prepared.device, canvas_for(prepared.size), prepared.memory
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        there = torch.cuda.mem_get_info(device)[0] + cached
        return max(0, there - _to_come(prepared, canvas))
    free = free_bytes() if device.type == "cpu" else None
    if free is None:
        return None
    images = sum(bytes_held(len(its), canvas) for its in prepared.parts.values())
    return max(0, free // neighbors() - min(images, memory.limit) + memory.used)


def _to_come(prepared: Prepared, canvas: int) -> int:
    """Bytes of small images that are yet to be decoded, and will be held on the device."""
    sizes = {name: len(images) for name, images in prepared.parts.items()}
    return sum(
        bytes_held(size, canvas) for name, size in sizes.items()
        if (name, canvas) not in prepared.opened and prepared.is_to_be_held(name, canvas)
    )  # fmt: skip
