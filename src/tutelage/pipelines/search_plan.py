"""How many networks a search tries, and how long it trains them: by the settings or by the time."""

from collections.abc import Mapping
from typing import Any

from tutelage.errors import UsageError
from tutelage.pipelines.plan import RESERVE, step_time
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.trial import recipe_of_trial
from tutelage.run import Run
from tutelage.search_settings import TRIALS, SearchSettings
from tutelage.searching.reward import PARAMS_WEIGHT, TIME_WEIGHT
from tutelage.searching.rungs import Plan
from tutelage.searching.space import Space
from tutelage.searching.trials import Weights
from tutelage.training_settings import seconds

STEPS = 600  # of the last rung, where neither steps nor a budget are given
FEWEST = 20  # steps of the first rung


def planned(settings: SearchSettings, run: Run, prepared: Prepared, space: Space) -> dict[str, Any]:
    """Networks, steps of each rung, and the time for them, for run.json.

    Where there is a budget and no steps are given, the first rung's are such that about so many
    networks as are wanted go through it in its share of the time.
    """
    wanted = settings.trials if settings.trials != "auto" else TRIALS
    if settings.ready:
        wanted = min(wanted, space.size) if settings.trials != "auto" else space.size
    limit, steps = None, settings.steps
    if settings.budget is not None:
        limit = seconds(settings.budget) * (1 - RESERVE) - run.notes("check")["seconds"]
        reference = recipe_of_trial(
            settings, prepared, network=space.reference, steps=TRIALS * FEWEST
        )  # fmt: skip
        each = step_time(reference, prepared).seconds
        share = limit / settings.rungs / each  # steps of the first rung, of all networks
        if settings.trials == "auto":
            wanted = min(wanted, max(settings.keep, int(share / FEWEST)))
        first = share / wanted
        if first < FEWEST:
            raise UsageError(
                f"a budget of {settings.budget} leaves {first:.0f} steps for each of {wanted} "
                f"networks at {each:.2f} s a step: give more, fewer --trials or --rungs, a smaller "
                "--base or smaller images"
            )
        steps = round(first * settings.keep ** (settings.rungs - 1))
    elif steps == "auto":
        steps = STEPS
    rungs = [
        max(FEWEST, round(steps / settings.keep ** (settings.rungs - 1 - rung)))
        for rung in range(settings.rungs)
    ]
    open_end = settings.budget is not None and settings.trials == "auto" and not settings.ready
    return {"trials": None if open_end else wanted, "rungs": rungs, "limit_seconds": limit}


def plan_of(settings: SearchSettings, notes: Mapping[str, Any]) -> Plan:
    """The plan as it stands in run.json."""
    usual = (0.0, 0.0) if settings.ready else (TIME_WEIGHT, PARAMS_WEIGHT)
    given = (settings.time_weight, settings.params_weight)
    time_weight, params_weight = (
        value if asked == "auto" else asked for asked, value in zip(given, usual, strict=True)
    )
    return Plan(
        trials=notes["trials"], steps=tuple(notes["rungs"]), keep=settings.keep,
        seconds=notes["limit_seconds"], weights=Weights(time=time_weight, params=params_weight),
    )  # fmt: skip
