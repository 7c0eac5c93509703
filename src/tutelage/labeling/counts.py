"""Counting what comes out of a selection, and its part of selection.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.labeling.rules import REASONS, Array, Plan, confidence_of


@dataclass(frozen=True)
class Counts:
    """What came out, of a part or of all."""

    reasons: Array  # int64, images by place in REASONS
    images: Array  # (K,) int64, images that are kept
    entries: Array  # (K,) int64, and with their copies

    def __add__(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            self.reasons + other.reasons, self.images + other.images, self.entries + other.entries
        )


def no_counts(num_classes: int) -> Counts:
    """Nothing yet."""
    none = np.zeros(num_classes, np.int64)
    return Counts(np.zeros(len(REASONS), np.int64), none, none)


def counts_of(labels: Array, copies: Array, reasons: Array, num_classes: int) -> Counts:
    """What came out of some images."""
    kept = np.flatnonzero(copies)
    labels, copies = labels[kept], copies[kept]
    return Counts(
        np.bincount(reasons, minlength=len(REASONS)),
        np.bincount(labels, minlength=num_classes),
        np.bincount(labels, weights=copies, minlength=num_classes).astype(np.int64),
    )


def contents(plan: Plan, counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """The part of selection.json that follows from the labels."""
    limits = boundaries(plan)
    columns = (classes, plan.counts, counts.images, counts.entries, limits)
    return {
        "reasons": dict(zip(REASONS, counts.reasons.tolist(), strict=True)),
        "entries": int(counts.entries.sum()),
        "quota": plan.quota or None,
        "classes": [
            {"name": name, "sure": int(sure), "images": int(images), "entries": int(entries),
             "boundary": None if np.isnan(limit) else round(float(limit), 7)}
            for name, sure, images, entries, limit in zip(*columns, strict=True)
        ],
    }  # fmt: skip


def boundaries(plan: Plan) -> Array:
    """The lowest confidence that is taken, of classes (K,) that are full; NaN of others."""
    limits = np.full(len(plan.counts), np.nan)
    full = plan.counts > (plan.quota or np.inf)
    if plan.rule.mode == "histogram":
        limits[full] = np.maximum(plan.lowest[full] / 100, plan.rule.threshold)
    else:
        limits[full] = confidence_of(plan.more.codes[full], plan.rule.ceiling)
    return limits
