"""The verbs that judge models: evaluate; in Python and in the shell alike.

Nothing heavy is imported until a verb is called. `evaluate` takes the fields of its settings in
judging_settings.py as keyword arguments.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.judging_settings import EvaluateSettings

if TYPE_CHECKING:
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
