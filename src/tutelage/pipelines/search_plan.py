"""How many networks a search tries, and how long it trains them: by the settings or by the time."""

import time
from collections.abc import Mapping
from typing import Any

from tutelage.errors import UsageError
from tutelage.pipelines.plan import RESERVE, step_time
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.trial import recipe_of_trial
from tutelage.pipelines.trial_cost import check, within_memory
from tutelage.run import Run
from tutelage.search_settings import TRIALS, SearchSettings
from tutelage.searching.reward import PARAMS_WEIGHT, TIME_WEIGHT
from tutelage.searching.rungs import Plan
from tutelage.searching.samplers import Random
from tutelage.searching.space import Space
from tutelage.searching.trials import Infeasible, Seen, Weights
from tutelage.training_settings import seconds

STEPS = 600  # of the last rung, where neither steps nor a budget are given
FEWEST = 20  # steps of the first rung
DRAWN = 5  # networks whose steps are timed for a budget,
DRAWN_SHARE = 0.05  # of the budget, after which fewer are enough
LENGTH = TRIALS * FEWEST  # steps of the trainings that they are taken from


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
        begun = time.monotonic()
        each = _step_seconds(settings, prepared, space, most=limit * DRAWN_SHARE)
        limit -= time.monotonic() - begun
        share = limit / settings.rungs / each  # steps of the first rung, of all networks
        if settings.trials == "auto":
            wanted = min(wanted, max(settings.keep, int(share / FEWEST)))
        first = share / wanted
        if first < FEWEST:
            raise UsageError(
                f"--budget {settings.budget} leaves {max(0, first):.0f} steps for each of "
                f"{wanted} networks at {each:.2f} s a step: give more time, fewer --trials or "
                "--rungs, smaller networks or smaller images"
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


def _step_seconds(
    settings: SearchSettings, prepared: Prepared, space: Space, *, most: float
) -> float:  # fmt: skip
    """Mean seconds of a training step of networks drawn from the space, of which no more are timed
    after `most` seconds; of the reference where none of them can be trained."""
    drawn: list[Seen] = []
    found: list[float] = []
    begun = time.monotonic()
    while len(drawn) < min(DRAWN, space.size):
        genes = Random().suggest(space, drawn, seed=settings.seed)
        drawn.append(Seen(genes, None))
        one = _timed(settings, prepared, space.network(genes))
        found += [] if one is None else [one]
        if found and time.monotonic() - begun > most:
            break
    if found:
        return sum(found) / len(found)
    recipe = recipe_of_trial(settings, prepared, network=space.reference, steps=LENGTH)
    return step_time(recipe, prepared).seconds


def _timed(settings: SearchSettings, prepared: Prepared, network: str) -> float | None:
    """Seconds of a network's training step; None where it has none, which its trial explains."""
    try:
        recipe = recipe_of_trial(settings, prepared, network=network, steps=LENGTH)
        check(recipe, prepared.device)
        return within_memory(lambda: step_time(recipe, prepared).seconds, prepared.device)
    except (Infeasible, UsageError, RuntimeError, TypeError, ValueError):
        return None


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
