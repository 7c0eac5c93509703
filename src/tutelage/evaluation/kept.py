"""An evaluation as a folder beside the model: the answers, and each robustness case as it comes.

RUN/evaluations/<data>-<digest>/ holds evaluation.json, answers.parquet, and robust/ with one file a
case. The digest is that of weights, image size and test images, so that an evaluation of the same
goes on in the same folder, and one of anything else does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tutelage.files import as_written, read_json, read_parquet, write_json, write_with
from tutelage.values import digest

FOLDER = "evaluations"


@dataclass(frozen=True)
class Kept:
    """The folder of one evaluation, which several processes may write to at a time."""

    path: Path

    def write(self, about: dict[str, Any]) -> None:
        """Write evaluation.json."""
        write_json(self.path / "evaluation.json", about, shared=True)

    def read(self) -> dict[str, Any]:
        """What evaluation.json says; empty where there is none yet."""
        file = self.path / "evaluation.json"
        found = read_json(file) if file.exists() else {}
        with as_written(file):
            return {**found}

    def write_answers(
        self, places: Sequence[str], contents: Sequence[str], labels: Tensor, probs: Tensor,
        classes: Sequence[str],
    ) -> None:  # fmt: skip
        """One row an image: path, hash of its content, true class, answer, its probability, and of
        the true class (labels (N,)) its probability and its rank, 1 for the surest."""
        confidence, predicted = probs.max(-1)
        true = probs.gather(1, labels[:, None])
        table = {
            "path": list(places),
            "content": list(contents),
            "label": [classes[k] for k in labels.tolist()],
            "predicted": [classes[k] for k in predicted.tolist()],
            "confidence": confidence.numpy(),
            "p_label": true[:, 0].numpy(),
            "rank": (1 + (probs > true).sum(-1)).to(torch.int32).numpy(),
        }
        file = self.path / "answers.parquet"
        write_with(file, lambda part: pq.write_table(pa.table(table), part), shared=True)

    def case(self, suite: str, key: str) -> dict[str, Tensor] | None:
        """A case's columns (N,), where it is done."""
        file = self._case(suite, key)
        if not file.exists():
            return None
        table = read_parquet(file)
        with as_written(file):
            return {
                name: torch.from_numpy(np.array(table[name].to_numpy()))
                for name in table.column_names
            }

    def write_case(self, suite: str, key: str, columns: dict[str, Tensor]) -> None:
        """Keep a finished case; `suite` is its name and the digest of its settings."""
        table = pa.table({name: values.numpy() for name, values in columns.items()})
        write_with(
            self._case(suite, key),
            lambda part: pq.write_table(table, part, compression="zstd"),
            shared=True,
        )

    def _case(self, suite: str, key: str) -> Path:
        return self.path / "robust" / suite / f"{key}.parquet"


def kept_for(
    model: Path, data: str, *, weights: str, size: int, contents: Sequence[str], labels: Tensor
) -> Kept:
    """The folder for a model (a run or a model folder) on these test images."""
    images = sorted(zip(contents, labels.tolist(), strict=True))
    key = digest({"weights": weights, "size": size, "images": images})[:8]
    return Kept(model / FOLDER / f"{short_name(data)}-{key}")


def all_kept(model: Path) -> list[Kept]:
    """All finished evaluations of a run or model folder, by name."""
    return [Kept(file.parent) for file in sorted(model.glob(f"{FOLDER}/*/evaluation.json"))]


def short_name(address: str) -> str:
    """A file name from the last part of an address."""
    last = address.rstrip("/").rpartition("/")[2] or "data"
    return "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in last)[:40]
