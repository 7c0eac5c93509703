"""Stages in which image size and noise grow together.

Paper: Tan & Le 2021, EfficientNetV2 (arXiv 2104.00298), section 4.2, algorithm 1: in stage i of M,
the image size is S_0 + (S_e - S_0) i / (M - 1), and so with each kind of noise; each stage takes
an M-th of the training and goes on with the weights of the one before. Rule "paper" is that. Rule
"release" is what the published code does: sizes are S_0 + (S_e - S_0) (i + 1) / M, so that the
first is never S_0, while RandAugment, MixUp and CutMix begin at their start; dropout is constant.
Sizes are cut to whole pixels, or a multiple, and the last stage is exactly what was asked for.
Where batches differ, each stage sees as many images, and so takes fewer steps with a larger batch.
"""

from collections.abc import Sequence

from tutelage.core import Stage
from tutelage.errors import UsageError
from tutelage.settings import Progressive

START_SIZE = 128 / 300  # of the last size, as for EfficientNetV2-S


def stages_of(last: Stage, how: Progressive, *, batch: int) -> tuple[Stage, ...]:
    """The stages that lead up to `last`, which has the steps of all together.

    `batch` is what those steps are counted in. Raises UsageError for sizes and steps that are no
    stages.
    """
    count = how.stages
    if count == 1:
        return (last,)
    first = round(START_SIZE * last.size) if how.start_size == "auto" else how.start_size
    if first > last.size:
        raise UsageError(
            f"--progressive.start-size {first} is above the last image size, {last.size}"
        )
    made = []
    for i, steps in enumerate(_steps(last.steps, how, batch)):
        at = i / (count - 1)
        size_at = (i + 1) / count if how.rule == "release" else at
        final = i == count - 1
        made.append(
            Stage(
                steps=steps,
                size=last.size
                if final
                else _cut(first + (last.size - first) * size_at, how, last.size),
                crop=None if final else last.size,
                magnitude=_between(last.magnitude, how.start_noise, at),
                cutout=last.cutout,
                mixup=_between(last.mixup, how.start_mixing, at),
                cutmix=_between(last.cutmix, how.start_mixing, at),
                dropout=_rate(last.dropout, 1.0 if how.rule == "release" else how.start_noise, at),
                drop_path=_rate(last.drop_path, how.start_drop, at),
                drop_block=_rate(last.drop_block, how.start_drop, at),
                batch=how.batches[i] if how.batches else last.batch,
            )
        )
    return tuple(made)


def _between(end: float, share: float, at: float) -> float:
    """From that share of the end value to all of it, along a straight line; `at` in [0, 1]."""
    return end * (share + (1 - share) * at)


def _cut(size: float, how: Progressive, last: int) -> int:
    """Whole pixels, and of them a whole multiple, which may not be above the last size."""
    cut = max(1, int(size) // how.multiple) * how.multiple
    if cut > last:
        raise UsageError(
            f"--progressive.multiple {how.multiple} is above the image size, {last}: give a "
            "smaller one"
        )
    return cut


def _rate(end: float | None, share: float, at: float) -> float | None:
    """The same for a rate of the network, which may stay as built."""
    return None if end is None else _between(end, share, at)


def _steps(total: int, how: Progressive, batch: int) -> list[int]:
    """Steps of each stage: all see as many images; they sum to `total` where batches are alike."""
    count = how.stages
    if total < count:
        raise UsageError(
            f"{total} steps are too few for {count} stages: give more --steps or fewer "
            "--progressive.stages"
        )
    if not how.batches:
        return [total * (i + 1) // count - total * i // count for i in range(count)]
    images = total * batch / count
    return [max(1, round(images / own)) for own in how.batches]


def table(stages: Sequence[Stage], batch: int) -> list[str]:
    """One line a stage, under a heading, for the screen and the log."""
    lines = ["stage   steps  size  batch  RandAugment  mixup  cutmix  dropout"]
    for number, stage in enumerate(stages, 1):
        dropout = "as built" if stage.dropout is None else f"{stage.dropout:.3g}"
        lines.append(
            f"{number:>5} {stage.steps:>7,} {stage.size:>5} {stage.batch or batch:>6} "
            f"{stage.magnitude:>12.3g} {stage.mixup:>6.3g} {stage.cutmix:>7.3g} {dropout:>8}"
        )
    return lines
