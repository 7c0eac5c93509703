"""From a teacher's answers to what the student learns from: threshold, balance, copies.

Paper: Xie et al. 2020 (arXiv 1911.04252), section 3.1, data filtering and balancing. Deviation:
the reference code thins large classes at random and meets the count in expectation; here the
surest images of each class are taken exactly, and short classes are repeated in turn, surest first.
"""

from dataclasses import replace

import torch

from tutelage.data.pool import PseudoLabels
from tutelage.errors import DataProblem
from tutelage.settings import Select

KEPT, SURPLUS = "kept", "class is full"
UNSURE, TOO_SURE = "below the threshold", "above the ceiling"


def select(table: PseudoLabels, rule: Select) -> PseudoLabels:
    """The same table with `copies` and `reasons`.

    Raises DataProblem, with the surest answer, where no image is above the threshold.
    """
    confidence, labels = table.confidence, table.labels
    sure = (confidence > rule.threshold) & (confidence <= rule.ceiling)
    if not sure.any():
        raise DataProblem(
            f"no image is above the threshold of {rule.threshold:g}: the teacher's surest answer "
            f"is {confidence.max():.3f}; lower --select.threshold, or train a better teacher"
            if rule.ceiling == 1
            else f"no confidence is above {rule.threshold:g} and up to {rule.ceiling:g}: they are "
            f"{confidence.min():.3f} to {confidence.max():.3f}"
        )
    if not rule.balance:
        copies = sure.long()
        return replace(table, copies=copies, reasons=_reasons(confidence, copies, rule))
    counts = torch.bincount(labels[sure], minlength=len(table.classes))
    quota = int(sure.sum()) // int((counts > 0).sum())
    if rule.per_class != "auto":
        quota = rule.per_class
    copies = torch.zeros(len(table), dtype=torch.int64)
    for number in counts.nonzero()[:, 0].tolist():
        rows = (sure & (labels == number)).nonzero()[:, 0]
        rows = rows[confidence[rows].argsort(descending=True, stable=True)][:quota]
        copies[rows] = cyclic_copies(len(rows), quota).clamp(max=rule.max_copies)
    return replace(table, copies=copies, reasons=_reasons(confidence, copies, rule))


def cyclic_copies(images: int, quota: int) -> torch.Tensor:
    """How often each of `images`, surest first, is taken so that all together are `quota`."""
    each, more = divmod(quota, images)
    copies = torch.full((images,), each)
    copies[:more] += 1
    return copies


def _reasons(confidence: torch.Tensor, copies: torch.Tensor, rule: Select) -> tuple[str, ...]:
    """Why each image is kept or not."""
    return tuple(
        KEPT if used else _why_not(sure, rule)
        for sure, used in zip(confidence.tolist(), copies.tolist(), strict=True)
    )


def _why_not(confidence: float, rule: Select) -> str:
    """The rule that left an image out."""
    if confidence <= rule.threshold:
        return UNSURE
    return TOO_SURE if confidence > rule.ceiling else SURPLUS
