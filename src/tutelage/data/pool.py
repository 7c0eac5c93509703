"""The pool's labels: one Parquet table, from the teacher's answers to what the student gets."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tutelage.data.label_parts import (
    UNREADABLE,
    LabelPart,
    check_answers,
    classes_in,
    matrix,
    texts,
)
from tutelage.errors import DataProblem
from tutelage.files import write_with
from tutelage.targets import from_top, hard, temper


@dataclass(frozen=True)
class PseudoLabels:
    """A teacher's answers on N images, and after selection, how often each is used."""

    names: tuple[str, ...]
    top_classes: Tensor  # (N, k) int64, surest first
    top_probs: Tensor  # (N, k) float32
    classes: tuple[str, ...]  # names of the K classes
    teacher: str  # digest of its weights
    copies: Tensor | None = None  # (N,) int64, times an epoch; 0: left out
    reasons: tuple[str, ...] | None = None  # 'kept', or why not
    energy: Tensor | None = None  # (N,) float32, logsumexp of the logits
    surest: Tensor | None = None  # (N,) float32, where top_probs were stored in half precision

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    @property
    def labels(self) -> Tensor:
        """Each image's surest class (N,)."""
        return self.top_classes[:, 0]

    @property
    def confidence(self) -> Tensor:
        """Probability of the surest class (N,)."""
        return self.top_probs[:, 0] if self.surest is None else self.surest

    def rows(self) -> Tensor:
        """The images in use (M,)."""
        assert self.copies is not None, "select first"
        return self.copies.nonzero()[:, 0]

    def targets(self, *, soft: bool, temperature: float = 1.0) -> "StoredTargets":
        """Targets of the images in use."""
        rows = self.rows()
        top = self.top_classes[rows], self.top_probs[rows]
        return StoredTargets(*top, len(self.classes), soft=soft, temperature=temperature)


@dataclass(frozen=True)
class StoredTargets:
    """Targets of M images, kept as their top classes and made in full for a batch at a time."""

    top_classes: Tensor  # (M, k) int64
    top_probs: Tensor  # (M, k) float32
    num_classes: int
    soft: bool = True  # else the surest class alone
    temperature: float = 1.0  # of soft targets

    def at(self, entries: Tensor) -> Tensor:
        """Targets (B, K) float32 of entries (B,)."""
        full = from_top(self.top_classes[entries], self.top_probs[entries], self.num_classes)
        return temper(full, self.temperature) if self.soft else hard(full)


def from_parts(parts: list[LabelPart]) -> PseudoLabels:
    """The parts of one pool, in order, as one table."""
    return PseudoLabels(
        names=tuple(name for part in parts for name in part.names),
        top_classes=torch.cat([part.top_classes for part in parts]).long(),
        top_probs=torch.cat([part.top_probs for part in parts]).float(),
        classes=parts[0].about.classes,
        teacher=parts[0].about.teacher,
        energy=torch.cat([part.energy for part in parts]),
        surest=torch.cat([part.confidence for part in parts]),
    )


def save(path: Path, table: PseudoLabels) -> None:
    """Write the table as Parquet, whole or not at all."""
    rest = (1 - table.top_probs.sum(-1)).clamp(min=0)
    columns: dict[str, object] = {
        "path": list(table.names),
        "label": [table.classes[i] for i in table.labels.tolist()],
        "confidence": table.confidence.numpy(),
        "classes": list(table.top_classes.to(torch.int32).numpy()),
        "probs": list(table.top_probs.numpy()),
        "rest": rest.numpy(),
    }
    if table.energy is not None:
        columns["energy"] = table.energy.numpy()
    if table.copies is not None and table.reasons is not None:
        columns["copies"] = table.copies.to(torch.int32).numpy()
        columns["reason"] = list(table.reasons)
    about = {"teacher": table.teacher, "classes": json.dumps(table.classes)}
    arrow = pa.table(columns).replace_schema_metadata(about)
    write_with(path, lambda part: pq.write_table(arrow, part, compression="zstd"))


def load(path: Path) -> PseudoLabels:
    """Read a table; raises DataProblem where the file is no label table."""
    try:
        arrow = pq.read_table(path)
        arrow.validate(full=True)  # text that is no UTF-8 too
        about = {k.decode(): v.decode() for k, v in (arrow.schema.metadata or {}).items()}
        k = len(arrow["classes"][0]) if len(arrow) else 0
        chosen = "copies" in arrow.column_names
        classes = classes_in(about["classes"])
        top = matrix(arrow["classes"], k).long(), matrix(arrow["probs"], k).float()
        check_answers(*top, len(classes), least=0)
        return PseudoLabels(
            names=texts(arrow["path"]),
            top_classes=top[0],
            top_probs=top[1],
            classes=classes,
            teacher=about["teacher"],
            copies=_copies(arrow) if chosen else None,
            reasons=texts(arrow["reason"]) if chosen else None,
            energy=_numbers(arrow, "energy") if "energy" in arrow.column_names else None,
            surest=_numbers(arrow, "confidence"),
        )
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise DataProblem(
            f"{path} is no label table of tutelage ({error}): bring back a copy of it"
        ) from error


def _copies(arrow: pa.Table) -> Tensor:
    """How often each image is used (N,) int64; raises ValueError where that is no count."""
    copies = arrow["copies"].to_numpy()
    if copies.dtype.kind not in "iu" or copies.min(initial=0) < 0:
        raise ValueError("its copies are no counts")
    return torch.from_numpy(copies.astype(np.int64))


def _numbers(arrow: pa.Table, column: str) -> Tensor:
    """A column of numbers as (N,) float32."""
    return torch.from_numpy(arrow[column].to_numpy().astype(np.float32))
