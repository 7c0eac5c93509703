"""`predict --max-error`: from which confidence on a model answers, and else says "unknown"."""

from pathlib import Path

from tutelage.deploy.model_folder import Model
from tutelage.deploy.predictions import UNKNOWN, Predictions
from tutelage.errors import UsageError
from tutelage.evaluation.reject import threshold_for
from tutelage.progress import Screen


def answer_from(model: Model, path: Path, rate: float, screen: Screen) -> float:
    """The confidence from which on at most this share of the answers is wrong; it is said.

    Raises UsageError where the model at `path` has no calibration, or its images can't show it.
    """
    its = model.calibration
    if its is None:
        raise UsageError(
            f"{path} does not know how often it is wrong: `tutelage calibrate {path} --data "
            "LABELED` tells it, from images that training has not seen"
        )
    found = threshold_for(its.curve, rate)
    screen.say(
        f"answers from a confidence of {found.confidence:.4f} on: at most {100 * rate:.3g} % of "
        f"them are wrong, with 95 % confidence; {100 * found.answered:.0f} % of the images are "
        f"expected to be answered ({100 * found.low:.0f} to {100 * found.high:.0f} %), judged from "
        f"{its.images:,} images ({its.source})"
    )
    if UNKNOWN in model.classes:
        screen.say(f"a class is named {UNKNOWN}, too: the column answered tells which is meant")
    return found.confidence


def say_answered(found: Predictions, screen: Screen) -> None:
    """How many images were answered, where that was a question."""
    if found.answered is not None:
        answered, total = sum(found.answered), len(found.answered)
        screen.say(f"{answered:,} of {total:,} images answered, {total - answered:,} {UNKNOWN}")
