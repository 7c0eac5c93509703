"""How good the labels of a folder are, as the model's calibration tells."""

from pathlib import Path
from typing import Any

from tutelage.data.label_parts import part_path, read_part
from tutelage.evaluation.calibrated import Calibration
from tutelage.evaluation.pool_accuracy import Estimate, share_right_from_bins, tempered_top


def labels_quality(
    out: Path, num_parts: int, num_classes: int, calibration: Calibration
) -> Estimate:
    """The estimated share of right labels among a folder's readable images, a part in memory at a
    time; raises DataProblem where one is damaged."""
    images, total = 0, 0.0
    for number in range(num_parts):
        part = read_part(part_path(out, number))
        good = part.labels >= 0
        confidence = tempered_top(
            part.top_probs[good].float(), part.confidence[good], num_classes,
            calibration.temperature.value,
        )  # fmt: skip
        images += len(confidence)
        total += float(confidence.sum())
    return share_right_from_bins(total / max(1, images), images, calibration.bins)


def quality_notes(found: Estimate, calibration: Calibration) -> dict[str, Any]:
    """As it stands in labels.json."""
    return vars(found) | {
        "temperature": calibration.temperature.value,
        "judged_on": calibration.source,
        "assumes": "the pool is like the images that the model was calibrated on",
    }


def quality_line(found: Estimate) -> str:
    """For the terminal."""
    return (
        f"about {100 * found.value:.0f} % of the {found.images:,} labels are right "
        f"({100 * found.low:.0f} to {100 * found.high:.0f} %), judged from {found.judged:,} images "
        "by which the model was calibrated, if the pool is like them"
    )
