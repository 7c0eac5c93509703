"""The verbs that judge models: evaluate, compare, calibrate; in Python and in the shell alike.

Nothing heavy is imported until a verb is called. Each takes the fields of its settings in
judging_settings.py as keyword arguments.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.judging_settings import CalibrateSettings, CompareSettings, EvaluateSettings

if TYPE_CHECKING:
    from tutelage.evaluation.calibrated import Calibration
    from tutelage.pipelines.compare import Comparison
    from tutelage.pipelines.evaluate import Evaluation


def evaluate(run: Path | str, **settings: Any) -> "Evaluation":
    """A trained model on labeled images; keyword arguments are the fields of `EvaluateSettings`."""
    from tutelage.data.find import with_addresses
    from tutelage.values import from_plain

    plain, given = with_addresses({"run": str(run)} | settings)
    return run_evaluate(from_plain(EvaluateSettings, plain), given)


def run_evaluate(settings: EvaluateSettings, given: Any = None) -> "Evaluation":
    """`evaluate` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.evaluate import evaluate as pipeline
    from tutelage.progress import Screen

    return pipeline(settings, Screen(), given=given)


def compare(*runs: Path | str, **settings: Any) -> "Comparison":
    """Trained models on the same images; keyword arguments are the fields of `CompareSettings`."""
    from tutelage.data.find import with_addresses
    from tutelage.values import from_plain

    plain, given = with_addresses({"runs": [str(run) for run in runs]} | settings)
    return run_compare(from_plain(CompareSettings, plain), given)


def run_compare(settings: CompareSettings, given: Any = None) -> "Comparison":
    """`compare` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.compare import compare as pipeline
    from tutelage.progress import Screen

    return pipeline(settings, Screen(), given=given)


def calibrate(run: Path | str, **settings: Any) -> "Calibration":
    """Make a model's confidences true; keyword arguments are the fields of `CalibrateSettings`."""
    from tutelage.data.find import with_addresses
    from tutelage.values import from_plain

    plain, given = with_addresses({"run": str(run)} | settings)
    return run_calibrate(from_plain(CalibrateSettings, plain), given)


def run_calibrate(settings: CalibrateSettings, given: Any = None) -> "Calibration":
    """`calibrate` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.calibrate import calibrate as pipeline
    from tutelage.progress import Screen

    return pipeline(settings, Screen(), given=given)
