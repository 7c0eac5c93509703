"""A labels folder while it is filled, and what it comes to."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tutelage.data.issues import Issue, write_issues
from tutelage.data.label_parts import damaged, part_path, read_columns, write_part
from tutelage.data.source import Source
from tutelage.errors import DataProblem
from tutelage.labeling.make_parts import Made

FEW = 16  # images, up to which a part without a readable one is no sign of a storage that is gone


@dataclass
class Labels:
    """Takes parts as they are made, in any order."""

    out: Path
    source: Source
    listed: list[Issue]  # what listing the pool brought to light
    readable: bool  # whether any image of the pool could be read
    problems: dict[str, str] = field(default_factory=dict)  # image -> why it can't be read
    blank: list[Made] = field(default_factory=list)  # parts without a readable image

    def take(self, made: Made) -> None:
        """Write the part; it waits where none of its images can be read."""
        if made.data and (not made.images or len(made.problems) < made.images):
            write_part(self.out, made.number, made.data)
            self.problems |= dict(made.problems)
            self.readable = self.readable or made.images > 0
        elif made.data and made.images <= FEW:
            self.blank.append(made)
        else:  # one of its problems is enough to be said, and many parts would take much memory
            self.blank.append(replace(made, data=b"", problems=made.problems[:1]))

    def settle(self) -> None:
        """Write the small parts that waited.

        Raises DataProblem where a large part, or all of the pool, can't be read.
        """
        bad = [made for made in self.blank if not made.data or not self.readable]
        for made in self.blank:
            if made not in bad:
                write_part(self.out, made.number, made.data)
                self.problems |= dict(made.problems)
        if bad:
            lines = [_why(made) for made in bad[:10]]
            if len(bad) > len(lines):
                lines.append(f"  and {len(bad) - len(lines):,} more")
            count = f"{len(bad):,} part" + "s" * (len(bad) != 1)
            raise DataProblem(
                f"{count} of {self.source.address} could not be labeled\n"
                + "\n".join(lines)
                + "\nmend them and run the same command again: only what is missing is made"
            )

    def write_issues(self, unreadable: Sequence[str] | None = None) -> None:
        """issues.csv, where there are any: a row for each of these images, or those of this run."""
        path = self.out / "issues.csv"
        before, rows = _earlier(path), list(self.listed)
        for name in self.problems if unreadable is None else unreadable:
            place = self.source.where(name)
            why = self.problems.get(name) or before.get(place) or "could not be read"
            rows.append(Issue("dropped", "unreadable", "pool", place, why))
        if rows:
            write_issues(path, rows)


def _why(made: Made) -> str:
    """A line about a part that can't be read."""
    part = f"part {made.number}" + (f", shard {made.shard}" if made.shard else "")
    what = f"none of its {made.images:,} images can be read" if made.images else "has no list"
    name, why = made.problems[0]
    return f"  {part}: {what}; {name}: {why}"


def _earlier(path: Path) -> dict[str, str]:
    """Place -> why it couldn't be read, as an earlier run wrote to issues.csv; nothing of a file
    that somebody has changed beyond reading, as it only tells of images in other words."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            rows = [row for row in csv.DictReader(file) if row.get("kind") == "unreadable"]
        except csv.Error:
            return {}
    return {row["path"]: row["detail"] for row in rows if row.get("path") and row.get("detail")}


@dataclass(frozen=True)
class Totals:
    """What all parts of a folder come to."""

    images: int
    unreadable: tuple[str, ...]  # names
    counts: tuple[int, ...]  # images of each class
    mean_confidence: float | None  # None: no image could be read

    def plain(self, classes: Sequence[str]) -> dict[str, Any]:
        """As it stands in labels.json."""
        return {
            "count": self.images,
            "unreadable": len(self.unreadable),
            "classes": list(classes),
            "per_class": dict(zip(classes, self.counts, strict=True)),
            "mean_confidence": self.mean_confidence,
        }


def totals(out: Path, num_parts: int, num_classes: int) -> Totals:
    """Read the labels of every part; raises DataProblem where one is damaged."""
    images, confidence = 0, 0.0
    counts, unreadable = torch.zeros(num_classes, dtype=torch.int64), list[str]()
    for number in range(num_parts):
        path = part_path(out, number)
        table = read_columns(path, ["label", "confidence"])
        labels = torch.tensor(table["label"].to_numpy())
        if len(labels) and int(labels.max()) >= num_classes:
            raise damaged(path, ValueError(f"it has a class {int(labels.max())}"))
        images += len(labels)
        confidence += float(table["confidence"].to_numpy().sum(dtype="float64"))
        counts += torch.bincount(labels[labels >= 0], minlength=num_classes)
        lost = (labels < 0).nonzero()[:, 0].tolist()
        if lost:
            names = read_columns(path, ["path"])["path"]
            unreadable += [names[row].as_py() for row in lost]
    good = images - len(unreadable)
    mean = round(confidence / good, 6) if good else None
    return Totals(images, tuple(unreadable), tuple(counts.tolist()), mean)
