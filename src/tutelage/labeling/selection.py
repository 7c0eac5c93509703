"""What a finished selection says of itself."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tutelage.progress import Screen


@dataclass(frozen=True)
class Selection:
    """A finished selection."""

    folder: Path
    content: dict[str, Any]  # of selection.json

    def say(self, screen: Screen) -> None:
        """A table of reasons, how full the classes are, and where the boundary lies."""
        content = self.content
        for reason, images in content["reasons"].items():
            if images:
                screen.result(f"  {reason:<22}{images:>16,} images")
        screen.result(f"  {'entries, with copies':<22}{content['entries']:>16,}")
        for line in _of_classes(content):
            screen.result(line)
        screen.result(f"selection: {self.folder}")


def _of_classes(content: dict[str, Any]) -> list[str]:
    """How many classes are full or short, and the boundaries of the full ones."""
    quota, classes = content["quota"], content["classes"]
    if quota is None:
        return []
    full = [one["boundary"] for one in classes if one["boundary"] is not None]
    short = [one for one in classes if one["images"] and one["boundary"] is None]
    below = sum(one["entries"] < quota for one in short)
    empty = sum(not one["images"] for one in classes)
    most = content["rule"]["max_copies"]
    lines = [
        f"  of {len(classes):,} classes, {quota:,} images wanted of each: {len(full):,} have more, "
        f"{len(short):,} repeat theirs, {empty:,} have none"
    ]
    if below and content["rule"]["mode"] == "exact":
        lines.append(f"  {below:,} stay below, as an image has at most {most:,} copies")
    if full:
        middle = median(full)
        lines.append(
            f"  full classes take confidences from {middle:.3f} on in the median, from "
            f"{min(full):.3f} to {max(full):.3f}"
        )
    return lines
