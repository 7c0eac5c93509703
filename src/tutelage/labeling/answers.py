"""What a teacher says on the images of a pool, in batches that end with their portion.

Paper: Noisy Student (Xie et al. 2020, arXiv 1911.04252), algorithm 1, step 2.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tutelage.core import Advance
from tutelage.data.label_parts import TOP, About, LabelPart, Portion
from tutelage.data.views import center
from tutelage.errors import TutelageError
from tutelage.frozen import AT_ONCE, answer, in_turns
from tutelage.learner import modes
from tutelage.networks.build import device_of

AHEAD = 3  # batches being decoded, across parts, while one is computed

Problem: TypeAlias = tuple[int, str]  # row of an image that can't be read, and why
Batch: TypeAlias = tuple[Tensor, Sequence[Problem]]  # uint8 images (B, 3, C, C)
Fetch: TypeAlias = Callable[[Portion, Tensor], Callable[[], Batch]]  # begins, and then waits


@dataclass(frozen=True)
class PoolTeacher:
    """A network with what labeling needs of it."""

    module: nn.Module
    digest: str  # of its weights
    classes: tuple[str, ...]
    size: int  # pixels
    precision: str = "fp32"

    def on(self, device: torch.device) -> "PoolTeacher":
        """With its network there."""
        return replace(self, module=self.module.to(device))

    def about(self, shard: str) -> About:
        """What its parts say of themselves."""
        return About(self.digest, self.classes, shard)


@dataclass(frozen=True)
class Answers:
    """What a teacher said on a portion, on whatever device it was computed."""

    portion: Portion
    batches: tuple[tuple[Tensor, Tensor, Tensor], ...]  # top classes, top probs, energy
    problems: tuple[Problem, ...]

    def on_cpu(self) -> "Answers":
        """For another process; waits for the device."""
        batches = ((top.cpu(), probs.cpu(), energy.cpu()) for top, probs, energy in self.batches)
        return replace(self, batches=tuple(batches))

    def part(self, teacher: PoolTeacher) -> LabelPart:
        """As a part; waits for the device.

        Raises TutelageError where an answer is not finite.
        """
        columns = zip(*self.batches, strict=True)
        classes, probs, energy = (torch.cat(column).cpu() for column in columns)
        confidence = probs[:, 0].clone()
        unreadable = torch.tensor([row for row, _ in self.problems], dtype=torch.int64)
        classes[unreadable], probs[unreadable] = -1, 0
        confidence[unreadable], energy[unreadable] = 0, torch.nan
        lost = (~energy.isfinite() & (classes[:, 0] >= 0)).nonzero()[:, 0]
        if len(lost):
            raise TutelageError(
                f"the model's answer on {self.portion.names[int(lost[0])]} is not finite: set "
                "--precision fp32, or train the model again"
            )
        about = teacher.about(self.portion.shard)
        return LabelPart(
            self.portion.number, self.portion.names, classes, probs.half(), confidence, energy,
            about,
        )  # fmt: skip


def answers(
    teacher: PoolTeacher,
    wanted: Iterable[Portion],
    fetch: Fetch,
    *,
    advance: Advance = lambda done: None,
) -> Generator[Answers]:
    """The clean, un-noised teacher's answers on portion after portion.

    Batches end with their portion, so that each part is the same whichever others are made.
    """
    said: list[tuple[Tensor, Tensor, Tensor]] = []
    problems: list[Problem] = []
    with modes(teacher.module, noise=False, statistics=False):
        for portion, rows, wait in _ahead(wanted, fetch):
            images, found = wait()
            said.append(_ask(teacher, images))
            problems += found
            advance(len(rows))
            if not len(rows) or int(rows[-1]) + 1 == len(portion.names):
                yield Answers(portion, tuple(said), tuple(problems))
                said, problems = [], []


def _ahead(
    wanted: Iterable[Portion], fetch: Fetch
) -> Iterator[tuple[Portion, Tensor, Callable[[], Batch]]]:
    """Every batch of every portion in turn, the next few already being fetched."""
    begun: deque[tuple[Portion, Tensor, Callable[[], Batch]]] = deque()
    for portion in wanted:
        for rows in torch.arange(len(portion.names)).split(AT_ONCE):
            begun.append((portion, rows, fetch(portion, rows)))
            if len(begun) > AHEAD:
                yield begun.popleft()
    yield from begun


@torch.inference_mode()
def _ask(teacher: PoolTeacher, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Top classes (B, k) int32 and probs (B, k), surest first, and energy (B,), of uint8 images."""
    k = min(TOP, len(teacher.classes))
    if not len(images):  # an empty shard, which not every network can be asked about
        return torch.zeros(0, k, dtype=torch.int32), torch.zeros(0, k), torch.zeros(0)
    images = images.to(device_of(teacher.module), non_blocking=True)

    def ask(some: Tensor) -> Tensor:
        return answer(teacher.module, center(some, teacher.size), teacher.precision)

    logits = in_turns(ask, images, teacher.size)
    top = logits.softmax(-1).topk(k)
    return top.indices.int(), top.values, logits.logsumexp(-1)
