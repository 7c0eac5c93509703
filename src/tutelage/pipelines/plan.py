"""How many steps fit into a budget: measured once, then fixed in the run's config."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import nn

from tutelage.begin import begin, enter, spread_out
from tutelage.core import Clock
from tutelage.data.loader import Batches
from tutelage.distributed.collectives import own_device, world
from tutelage.distributed.crew import everywhere
from tutelage.distributed.words import from_leader
from tutelage.errors import UsageError
from tutelage.evaluation.probe import most_fitted
from tutelage.evaluation.wise_ft import TOLD
from tutelage.jobs import SelftrainSettings
from tutelage.loop import EXAMS
from tutelage.methods.method import State
from tutelage.pipelines.guard import WATCHED
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.room import batch_that_fits
from tutelage.pipelines.rounds import Round, batches_of, example_pool
from tutelage.recipe import Recipe
from tutelage.run import Run
from tutelage.speed.runners import wait_for
from tutelage.training_settings import Common, check_shared, seconds

DEFAULT_STEPS = 2000  # of a round, where neither steps nor a budget are given
LONG = 10**6  # steps of a whole round that is only measured
WARM_UP = 3  # steps that are not counted: first calls choose kernels and fill caches
TIMED = 24  # steps at most
TIMED_SECONDS = 6.0  # at most, for each kind of round
ENOUGH = 500  # updates a round; on the CIFAR-10 subset 350 gave 46 % where 770 gave 56 %
FEWEST = 20  # updates a round, below which a budget is no budget
RESERVE = 0.1  # of the budget, for a machine that gets slower: one that is shared did, by 6 to 11 %


S = TypeVar("S", bound=Common)


@dataclass(frozen=True)
class Plan:
    """Steps of a whole round, and what they were planned from."""

    steps: int
    step_seconds: dict[str, float]  # of each round by name
    fixed: float  # seconds that don't depend on the steps: first calls, the pool's labels, exams
    each: float  # seconds that one more step of all rounds takes


def planned(
    settings: S, run: Run, prepared: Prepared, rounds: Callable[[S], Sequence[Round]],
    *, teacher: nn.Module | None = None, resizable: bool = False,
) -> S:  # fmt: skip
    """The settings with steps, as given or as the budget allows; the first start fixes them.

    `rounds(settings)` makes the rounds to be measured; `teacher` is the frozen one, where methods
    ask for it. Where a budget leaves less than ENOUGH steps a round, and nobody asked for more,
    there is but one round, and if nothing was made for their size (`resizable`), the images are
    smaller.
    """
    if not run.is_done("plan"):
        with run.stage("plan") as notes:
            fit = batch_that_fits(settings, prepared, lambda size: rounds(_long(settings, size)))
            notes |= {"batch": fit.batch, "gathered": fit.gathered, "room": fit.words}
            asked = DEFAULT_STEPS if settings.steps == "auto" else settings.steps
            notes["steps"] = notes["gathered"] * asked
            if settings.budget is not None:
                its = _gathering(settings, notes)
                notes |= _within_budget(its, run, prepared, rounds, teacher, resizable)
    notes = run.notes("plan")
    _check_shareable(notes.get("batch", settings.batch_size))
    if notes.get("room"):
        prepared.screen.say(f"  {notes['room']}")
    if "changed" in notes:
        prepared.resize(notes["img_size"])
        prepared.screen.say(f"  {notes['changed']}")
    settings = _gathering(settings, notes)
    return with_plan(settings, steps=notes["steps"], rounds=notes.get("rounds"))


def _check_shareable(batch: int) -> None:
    """Raises UsageError where these processes can't share the batch that the run began with."""
    try:
        check_shared(batch, world())
    except UsageError as error:
        able = [str(count) for count in range(1, batch // 2 + 1) if batch % count == 0]
        raise UsageError(
            f"this run began with {batch} labeled images a step, which {world()} processes can't "
            f"share: go on with {', '.join(able)} of them, or choose another --out"
        ) from error


def _long(settings: S, batch: int) -> S:
    """The settings with that batch, and many steps in the place of a budget."""
    return with_plan(replace(settings, batch=batch), steps=LONG, rounds=None)


def _gathering(settings: S, notes: dict[str, Any]) -> S:
    """The settings with the batch that fits, and the updates of the usual one."""
    optim, gathered = settings.optim, notes.get("gathered", 1)
    optim = replace(optim, accumulate=gathered * optim.accumulate)
    return replace(settings, batch=notes.get("batch", settings.batch_size), optim=optim)


def with_plan(settings: S, *, steps: int, rounds: int | None) -> S:
    """The settings with these steps instead of a budget, and so many rounds where that is said."""
    if rounds is not None and isinstance(settings, SelftrainSettings):
        return replace(settings, budget=None, steps=steps, rounds=rounds)
    return replace(settings, budget=None, steps=steps)


def _within_budget(
    settings: S, run: Run, prepared: Prepared, rounds: Callable[[S], Sequence[Round]],
    teacher: nn.Module | None, resizable: bool,
) -> dict[str, Any]:  # fmt: skip
    """Steps, and perhaps fewer rounds and smaller images, for run.json."""
    assert settings.budget is not None, "asked for"
    clock = Budget(seconds(settings.budget), run.seconds_before, run.began)
    first, fewer, gathered = prepared.size, None, settings.optim.accumulate

    def fitted() -> Plan:
        asked = with_plan(settings, steps=LONG, rounds=fewer)
        return plan(rounds(asked), prepared, budget=clock, teacher=teacher)

    found = fitted()
    if found.steps < ENOUGH * gathered and _may_have_fewer_rounds(settings):
        fewer = 1
        found = fitted()
    if found.steps < ENOUGH * gathered and resizable and settings.img_size == "auto":
        start = settings.progressive.start_size
        size = smaller(first, found.steps // gathered, least=0 if start == "auto" else start)
        if size < first:
            prepared.resize(size)
            found = fitted()
    clock.check(found, FEWEST * gathered)
    notes = {"steps": found.steps, "step_seconds": found.step_seconds}
    parts = ["one round"] * (fewer is not None)
    if prepared.size != first:
        parts.append(f"images of {prepared.size} instead of {first} px")
    if parts:
        notes["changed"] = (
            f"{' and '.join(parts)}, as {settings.budget} would leave less than {ENOUGH} steps a "
            "round; give --rounds and --img-size to have it otherwise"
        )
        notes |= {"rounds": fewer, "img_size": prepared.size}
    return notes


def _may_have_fewer_rounds(settings: Common) -> bool:
    """Whether there are several rounds that nobody asked for."""
    return (
        isinstance(settings, SelftrainSettings)
        and settings.rounds == "auto"
        and settings.num_rounds > 1
        and len(settings.method) == 1
        and len(settings.students) < 2
    )


def smaller(size: int, steps: int, *, least: int = 0) -> int:
    """The largest image size in steps of 32, from half of `size` and `least` on, with ENOUGH steps
    in the time of `steps` at `size`; a step's time goes with the area."""
    wanted = size * math.sqrt(max(steps, 1) / ENOUGH)
    least = max(32, math.ceil(max(size / 2, least) / 32) * 32)
    return min(size, max(least, int(wanted // 32) * 32))


@dataclass(frozen=True)
class StepTime:
    """What a training step costs."""

    seconds: float  # the mean
    first: float = 0.0  # seconds on top, once a training: choosing kernels, compiling


@dataclass(frozen=True)
class Budget:
    """Seconds for a run, and what is gone of them."""

    total: float
    spent: float  # in earlier starts
    since: float  # when this start began, on the monotonic clock

    @property
    def left(self) -> float:
        """Seconds from now on, without the reserve."""
        return self.total * (1 - RESERVE) - self.spent - (time.monotonic() - self.since)

    def check(self, found: Plan, fewest: int = FEWEST) -> None:
        """Raises UsageError where the plan has too few steps to be one."""
        if found.steps < fewest:
            needed = self.total - self.left + found.fixed + fewest * found.each
            raise UsageError(
                f"--budget {self.total:.0f}s leaves {max(found.steps, 0)} steps a round at "
                f"{found.each:.2f} s for one step of all rounds: give at least "
                f"{math.ceil(max(needed * 1.2, self.total + 1))}s, or take a smaller network, "
                "smaller images or fewer rounds"
            )


def plan(
    rounds: Sequence[Round], prepared: Prepared, *, budget: Budget, teacher: nn.Module | None = None
) -> Plan:
    """The steps of a whole round such that all rounds end within the budget.

    The rounds come with LONG steps or their share of them.
    """
    measured: dict[str, StepTime] = {}
    per_round: dict[str, float] = {}
    fixed = 0.0
    for one in rounds:
        recipe = one.recipe
        sizes = [(stage.size, stage.batch) for stage in recipe.stages]
        kind = f"{type(recipe.method).__name__}/{recipe.net}/{recipe.ratio}/{recipe.freeze}/{sizes}"
        if kind not in measured:
            measured[kind] = step_time(one.recipe, prepared, teacher=teacher)
        per_round[one.name] = round(measured[kind].seconds, 5)
        fixed += measured[kind].first
    fixed += sum(_forward_seconds(one, prepared, per_round) for one in rounds)
    fixed += sum(_told_seconds(one, prepared, per_round) for one in rounds)
    fitting = {one.recipe.net: one for one in rounds if one.init is not None}
    fixed += sum(_fit_seconds(one, prepared, per_round) for one in fitting.values())
    each = sum(per_round[one.name] * one.recipe.steps / LONG for one in rounds)
    return Plan(int((budget.left - fixed) / each), per_round, fixed, each)


def _forward_seconds(one: Round, prepared: Prepared, per_round: dict[str, float]) -> float:
    """Time to label the pool before a student, to look at validation and test images, and to watch
    what a student answers to some of the pool."""
    sizes = {name: len(images) for name, images in prepared.parts.items()}
    watched = min(WATCHED, sizes.get("pool", 0)) * bool(one.recipe.ratio)
    alone = (EXAMS + 1) * (sizes.get("val", 0) + watched) + sizes.get("test", 0)
    shared = sizes.get("pool", 0) if one.recipe.method.stored else 0  # none where it is in shards
    return (world() * alone + shared) * _forward(one, per_round)


def _fit_seconds(one: Round, prepared: Prepared, per_round: dict[str, float]) -> float:
    """Time to look at the labels that a new classifier is fitted on; all rounds of a network share
    it."""
    images = min(most_fitted(len(prepared.classes)), len(prepared.parts["labeled"]))
    return world() * images * _forward(one, per_round)


def _told_seconds(one: Round, prepared: Prepared, per_round: dict[str, float]) -> float:
    """Time in which labeled images tell trained weights from those that WiSE-FT makes of them."""
    images = 2 * min(TOLD, len(prepared.parts["labeled"])) * (one.recipe.wise < 1)
    return world() * images * _forward(one, per_round)


def _forward(one: Round, per_round: dict[str, float]) -> float:
    """Time of an image's forward pass, a third of its step, where all processes share the images;
    the leading one alone takes as many times that as there are processes."""
    return per_round[one.name] / (one.recipe.batch * (1 + one.recipe.ratio)) / 3


def step_time(recipe: Recipe, prepared: Prepared, *, teacher: nn.Module | None = None) -> StepTime:
    """Mean time of a training step on this machine, over all stages, and that of first calls."""
    batches = batches_of(recipe, prepared, example_pool(recipe, prepared))
    return everywhere(_timed, recipe, batches, prepared.device, teacher, own=True)


def _timed(
    recipe: Recipe, batches: Batches, device: torch.device, teacher: nn.Module | None,
    own: bool | None,
) -> StepTime:  # fmt: skip
    """The times as each process of the command takes them; the leader's count."""
    device = own_device(device)
    state = begin(recipe, batches, device, teacher=teacher)
    spread_out(state, 0, recipe, device)
    seconds, warm, first = 0.0, 0.0, 0
    for stage in recipe.stages:
        enter(stage, state)
        found = _stage_time(recipe, batches, state, first)
        seconds += stage.steps * found.seconds
        warm += found.first
        first += stage.steps
    return StepTime(seconds / recipe.steps, warm)


def _stage_time(recipe: Recipe, batches: Batches, state: State, first: int) -> StepTime:
    """The times of the stage that begins with step `first`."""
    times: list[float] = []
    stages = len(recipe.stages)
    for step in range(min(WARM_UP + TIMED // stages, recipe.stage(first).steps)):
        start = time.monotonic()
        late = Clock(recipe.steps - 1 - step, recipe.steps)  # all of a method is on by then
        recipe.method.step(state, batches.at(first + step), late)
        wait_for(state.student.device)
        times.append(time.monotonic() - start)
        if from_leader(step >= WARM_UP and sum(times[WARM_UP:]) > TIMED_SECONDS / stages):
            break
    counted = times[WARM_UP:] or times
    mean = sum(counted) / len(counted)
    return StepTime(mean, max(0.0, sum(times) - mean * len(times)))
