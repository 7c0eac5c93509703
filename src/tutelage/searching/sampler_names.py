"""The samplers' names. No torch here."""

from tutelage.errors import UsageError
from tutelage.values import nearest

OPTUNA = "optuna:"
SAMPLERS = ("random", "evolution", "optuna:tpe", "optuna:gp", "optuna:nsga2")


def check_sampler_name(name: str) -> None:
    """Raises UsageError, with the nearest names, where there is no sampler of that name."""
    if name not in SAMPLERS:
        raise UsageError(
            f"there is no sampler {name!r}{nearest(name, SAMPLERS)}: take one of "
            f"{', '.join(SAMPLERS)}"
        )
