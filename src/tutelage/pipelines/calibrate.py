"""`tutelage calibrate`: a model's temperature and reject curve, from images new to it."""

from dataclasses import replace
from pathlib import Path

from tutelage.data.find import Given, open_source
from tutelage.data.source import Source
from tutelage.deploy.judge import answers, labeled_part
from tutelage.deploy.model_folder import load_model, run_of, save_calibration
from tutelage.errors import DataProblem
from tutelage.evaluation.calibrated import Calibration, calibrated
from tutelage.judging_settings import CalibrateSettings
from tutelage.learner import choose_device
from tutelage.pipelines.manifest import known_to
from tutelage.progress import Screen
from tutelage.values import digest

FEW = 30  # images, below which the temperature is hardly known


def calibrate(
    settings: CalibrateSettings, screen: Screen, *, given: Given | None = None
) -> Calibration:
    """Fit the model's calibration on labeled images and keep it in its config.json.

    Raises DataProblem where the model was trained on some of them; UsageError where there is no
    model.
    """
    path = settings.run
    model = load_model(path, choose_device(settings.device))
    source = open_source(settings.data, given)
    part = labeled_part(source, model, "val", screen)
    _check_unseen(run_of(path) or path, source, set(part.copies()), screen)
    probs = answers(model, part.images, screen, "calibrate")
    found = calibrated(probs, part.images.label_tensor(), source.address)
    found = replace(found, contents=digest(sorted(part.copies())))
    file = save_calibration(path, replace(model, calibration=found))
    screen.result(found.line())
    if len(part.images) < FEW:
        screen.result(f"  {len(part.images)} images tell little: see the interval")
    screen.say(f"kept in {file}")
    return found


def _check_unseen(run: Path, source: Source, contents: set[str], screen: Screen) -> None:
    """Raises DataProblem for images of the run's training part; says what else the run knows."""
    known = known_to(run, contents)
    if seen := known["labeled"]:
        raise DataProblem(
            f"{len(seen):,} of {len(contents):,} images of {source.address} are among those that "
            f"{run} was trained on, of which it is surer than of others: give images that training "
            "has not seen"
        )
    asides = {
        "test": "the run's test images: judged on them, calibration will look better than it is",
        "pool": "in the run's pool, which may have been learned from: other images are better",
    }
    for part, why in asides.items():
        if known[part]:
            screen.say(f"note: {len(known[part]):,} of {len(contents):,} images are {why}")
