"""The names that people give to the splits of a data set, and the parts that they mean."""

from typing import Literal

SplitName = Literal["", "train", "val", "test"]

SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip


def split_name(name: str) -> SplitName:
    """train, val or test for any of their usual names; "" for what is no split."""
    return SPLITS.get(name.strip().lower(), "")
