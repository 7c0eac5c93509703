"""A table of labels for image files, and how it is shown and written."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.errors import UsageError
from tutelage.files import whole
from tutelage.values import visible

UNKNOWN = "unknown"  # the label of an image that is not answered


@dataclass(frozen=True)
class Predictions:
    """What the model says of each image, surest class first."""

    paths: tuple[str, ...]
    top_classes: tuple[tuple[str, ...], ...]  # k names an image
    top_probs: tuple[tuple[float, ...], ...]  # k probabilities an image
    unreadable: tuple[tuple[str, str], ...] = ()  # path and problem of what was left out
    answered: tuple[bool, ...] | None = None  # whether it is sure enough; None: not asked for

    def columns(self) -> dict[str, list[object]]:
        """path, label, confidence, then label_2, probability_2, …

        Where the surest class is not always answered, the label is "unknown" for the others, and
        `answered` and `surest` stand after the confidence, which is that of the surest class.
        """
        surest = [names[0] for names in self.top_classes]
        answered = self.answered or (True,) * len(surest)
        pairs = zip(surest, answered, strict=True)
        table: dict[str, list[object]] = {
            "path": list(self.paths),
            "label": [name if sure else UNKNOWN for name, sure in pairs],
            "confidence": [probs[0] for probs in self.top_probs],
        }
        if self.answered is not None:
            table |= {"answered": list(self.answered), "surest": list(surest)}
        for k in range(1, len(self.top_classes[0])):
            table[f"label_{k + 1}"] = [names[k] for names in self.top_classes]
            table[f"probability_{k + 1}"] = [probs[k] for probs in self.top_probs]
        return table


def table_path(path: Path) -> Path:
    """The path; raises UsageError, before anything is computed, for another kind of table."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {path}: the name has to end in .csv or .parquet")
    return path


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write the table as CSV or Parquet, by the suffix that `table_path` has checked."""
    columns = predictions.columns()
    with whole(path) as part:
        if path.suffix == ".parquet":
            pq.write_table(pa.table(columns), part)
            return
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


def show(predictions: Predictions) -> None:
    """The table on standard output: a tab-separated line an image, with a header."""
    columns = predictions.columns()
    print("\t".join(columns))
    for row in zip(*columns.values(), strict=True):
        print("\t".join(f"{v:.4f}" if isinstance(v, float) else _cell(v) for v in row))


def _cell(value: object) -> str:
    """One cell of a line, whatever signs a file's name has."""
    return visible(str(value)).replace("\t", "\\t").replace("\n", "\\n")
