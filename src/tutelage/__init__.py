"""tutelage: the best image classifier from a few labels, a large pool, and any timm backbone."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# No statistics of use to anybody. Libraries look at this once, when they are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")

if TYPE_CHECKING:
    from tutelage.data_verbs import check, label, select
    from tutelage.deploy.model_folder import load_model
    from tutelage.judging_verbs import calibrate, compare, evaluate
    from tutelage.settings import Noise, Optim, Select
    from tutelage.verbs import (
        demo,
        distill,
        list_methods,
        models,
        predict,
        report,
        search,
        selftrain,
        train,
    )

_HOME = {  # public name: module, loaded when the name is first used
    "load_model": "deploy.model_folder",
    **dict.fromkeys(["Noise", "Optim", "Select"], "settings"),
    **dict.fromkeys(["check", "label", "select"], "data_verbs"),
    **dict.fromkeys(["calibrate", "compare", "evaluate"], "judging_verbs"),
    **dict.fromkeys(
        [
            "demo",
            "distill",
            "list_methods",
            "models",
            "predict",
            "report",
            "search",
            "selftrain",
            "train",
        ],
        "verbs",
    ),
}

__all__ = [
    "Noise",
    "Optim",
    "Select",
    "calibrate",
    "check",
    "compare",
    "demo",
    "distill",
    "evaluate",
    "label",
    "list_methods",
    "load_model",
    "models",
    "predict",
    "report",
    "search",
    "select",
    "selftrain",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `import tutelage` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    return getattr(import_module(f"tutelage.{_HOME[name]}"), name)
