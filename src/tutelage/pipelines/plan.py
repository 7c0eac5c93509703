"""How many steps fit into a budget: measured once, then fixed in the run's config."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from tutelage.core import Clock
from tutelage.errors import UsageError
from tutelage.loop import EXAMS, begin
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.rounds import Round, batches_of, example_pool
from tutelage.recipe import Recipe
from tutelage.run import Run
from tutelage.settings import Common, seconds

DEFAULT_STEPS = 2000  # of a round, where neither steps nor a budget are given
LONG = 10**6  # steps of a whole round that is only measured
WARM_UP = 3  # steps that are not counted: first calls choose kernels and fill caches
TIMED = 24  # steps at most
TIMED_SECONDS = 6.0  # at most, for each kind of round
FEWEST = 20  # steps a round, below which a budget is no budget
RESERVE = 0.05  # of the budget, for evaluation, report, and a machine that gets slower


@dataclass(frozen=True)
class Plan:
    """Steps of a whole round, and what they were planned from."""

    steps: int
    step_seconds: dict[str, float]  # of each round by name


def planned_steps(
    settings: Common, run: Run, prepared: Prepared, rounds: Callable[[int], Sequence[Round]],
    *, teacher: nn.Module | None = None,
) -> int:  # fmt: skip
    """Steps of a whole round, as given or as the budget allows; the first start fixes them.

    `rounds(steps)` makes the rounds to be measured; `teacher` is the frozen one, where methods
    ask for it.
    """
    if not run.is_done("plan"):
        with run.stage("plan") as notes:
            notes["steps"] = DEFAULT_STEPS if settings.steps == "auto" else settings.steps
            if settings.budget is not None:
                budget, spent = seconds(settings.budget), run.notes("check")["seconds"]
                planned = plan(rounds(LONG), prepared, budget=budget, spent=spent, teacher=teacher)
                notes |= asdict(planned)
    return int(run.notes("plan")["steps"])


def plan(
    rounds: Sequence[Round], prepared: Prepared, *, budget: float, spent: float,
    teacher: nn.Module | None = None,
) -> Plan:  # fmt: skip
    """The steps of a whole round such that all rounds end within `budget` seconds.

    The rounds come with LONG steps or their share of them. `spent` seconds of the budget are
    gone. Raises UsageError where that is too little.
    """
    start = time.monotonic()
    measured: dict[str, float] = {}
    per_round: dict[str, float] = {}
    for one in rounds:
        recipe = one.recipe
        kind = f"{type(recipe.method).__name__}/{recipe.net}/{recipe.ratio}/{recipe.freeze}"
        if kind not in measured:
            measured[kind] = step_seconds(one.recipe, prepared, teacher=teacher)
        per_round[one.name] = round(measured[kind], 5)
    left = budget * (1 - RESERVE) - spent - (time.monotonic() - start)
    forwards = sum(_forward_seconds(one, prepared, per_round) for one in rounds)
    each = sum(per_round[one.name] * one.recipe.steps / LONG for one in rounds)
    steps = int((left - forwards) / each)
    if steps < FEWEST:
        needed = spent + forwards + FEWEST * each
        raise UsageError(
            f"a budget of {budget:.0f} s leaves {max(steps, 0)} steps a round at "
            f"{each:.2f} s for one step of all rounds: give at least "
            f"{math.ceil(max(needed * 1.2, budget + 1))}s, a smaller network or images, or fewer "
            "rounds"
        )
    return Plan(steps, per_round)


def _forward_seconds(one: Round, prepared: Prepared, per_round: dict[str, float]) -> float:
    """Time to label the pool before a student, and to look at validation and test images.

    A forward pass costs a third of a step.
    """
    sizes = {name: len(images) for name, images in prepared.parts.items()}
    asked = (EXAMS + 1) * sizes.get("val", 0) + sizes.get("test", 0)
    if one.recipe.method.stored:
        asked += sizes["pool"]
    return asked * per_round[one.name] / (one.recipe.batch * (1 + one.recipe.ratio)) / 3


def step_seconds(recipe: Recipe, prepared: Prepared, *, teacher: nn.Module | None = None) -> float:
    """Mean time of a training step on this machine."""
    batches = batches_of(recipe, prepared, example_pool(recipe, prepared))
    state = begin(recipe, batches, prepared.device, teacher=teacher)
    times: list[float] = []
    for step in range(min(WARM_UP + TIMED, batches.total)):
        start = time.monotonic()
        late = Clock(batches.total - 1 - step, batches.total)  # all of a method is on by then
        recipe.method.step(state, batches.at(step), late)
        if prepared.device.type != "cpu":
            torch.accelerator.synchronize(prepared.device)
        times.append(time.monotonic() - start)
        if step >= WARM_UP and sum(times[WARM_UP:]) > TIMED_SECONDS:
            break
    counted = times[WARM_UP:] or times
    return sum(counted) / len(counted)
