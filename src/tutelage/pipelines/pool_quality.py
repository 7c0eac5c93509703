"""How good a teacher's pool labels are, judged from the run's validation images.

They say it only of a pool like them. A teacher that learned from the pool before, as a student
does, may be surer of its images than of others, and then the estimate is too high.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.pixels import Chosen, Pixels
from tutelage.data.pool import PseudoLabels
from tutelage.evaluation.accuracy import predict
from tutelage.evaluation.pool_accuracy import Answered, Quality, quality, stored_top, tempered_top
from tutelage.evaluation.temperature import fit_temperature
from tutelage.files import write_json
from tutelage.pipelines.manifest import contents_by_name, known_to
from tutelage.pipelines.prepare import Prepared

ASSUMPTION = "validation images and pool are alike"


def new_to(teacher: Path | None, run: Path, prepared: Prepared) -> Tensor:
    """Rows (M,) of the run's validation images that the run which trained a given teacher did not
    train on; empty where there are no validation images."""
    if "val" not in prepared.parts:
        return torch.zeros(0, dtype=torch.int64)
    images = prepared.parts["val"]
    content = contents_by_name(run, "val")
    seen = known_to(teacher, set(content.values()))["labeled"]
    return torch.tensor(
        [row for row, name in enumerate(images.names) if content[name] not in seen],
        dtype=torch.int64,
    )


def judge_labels(
    table: PseudoLabels, teacher: nn.Module, pixels: Pixels, labels: Tensor, *, size: int,
    precision: str, ceiling: float,
) -> Quality:  # fmt: skip
    """The estimated accuracy of a selected table of the teacher's labels, from labeled images
    (M,) that it has not learned from, asked in the same way."""
    assert table.copies is not None, "selected"
    probs = predict(teacher, pixels, size, precision=precision)
    temperature = fit_temperature(probs, labels).value
    classes = len(table.classes)

    def answered(top_classes: Tensor, top_probs: Tensor, surest: Tensor) -> Answered:
        tempered = tempered_top(top_probs, surest, classes, temperature)
        return Answered(top_classes[:, 0], surest, tempered)

    return quality(
        answered(table.top_classes, table.top_probs, table.confidence),
        table.copies > 0,
        answered(*stored_top(probs, table.top_classes.shape[1])),
        labels,
        classes=table.classes,
        temperature=temperature,
        ceiling=ceiling,
    )


def some_of(pixels: Pixels, rows: Tensor) -> Pixels:
    """The images of these rows (M,)."""
    return pixels if len(rows) == len(pixels) else Chosen(pixels, rows)


def write_quality(path: Path, found: Quality) -> None:
    """The JSON file beside a table of labels."""
    write_json(path, found.plain() | {"assumes": ASSUMPTION})
