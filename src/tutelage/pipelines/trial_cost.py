"""What a network costs on this device: the time of a training step, weights, latency.

Paper: Tan and Le 2021 (arXiv 2104.00298), section 3.3, where S is the time of a training step. Here
it is that of the run's own method on one batch that is at hand, over the time of a reference
network whose steps are taken in turns with it, so that a busy or slowing machine meets both.
"""

import gc
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeVar

import torch
from torch import nn

from tutelage.begin import begin, enter
from tutelage.core import Clock
from tutelage.data.memory import free_bytes
from tutelage.errors import UsageError, out_of_memory
from tutelage.networks.build import check_net, parameters
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.rounds import batches_of, example_pool
from tutelage.recipe import Recipe
from tutelage.searching.trials import Cost, Infeasible
from tutelage.speed.runners import Eager, wait_for
from tutelage.speed.timing import Protocol, Tick, reason, time_in_turns
from tutelage.speed.training_memory import least_bytes
from tutelage.training_settings import Spread

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How thoroughly to time training steps; a pass is one update of the weights."""

    warmup: int = 3  # passes that are not counted: first calls choose kernels and fill caches
    most_warmup: int = 10  # where passes are fast
    warmup_seconds: float = 0.5  # after which `warmup` passes are enough
    turns: int = 7  # of each network, at least
    most_turns: int = 30
    seconds: float = 2.5  # of both networks, after which `turns` are enough
    turn_seconds: float = 0.02  # passes of a turn take at least that long
    slow_turns: int = 3  # enough where passes are slow,
    slow_seconds: float = 20.0  # that is, where turns have taken that long


PACE = Pace()
LATENCY = Protocol(
    warmup=5, warmup_seconds=0.1, passes=30, seconds=0.5, turn_passes=10, turn_seconds=0.1,
    most_seconds=3.0,
)  # fmt: skip


class Passes:
    """Timed passes of one network, a turn at a time."""

    def __init__(self, run: Callable[[], None], pace: Pace, *, tick: Tick) -> None:
        """`run` makes one pass and returns when the device is done."""
        self.run, self.pace, self.tick = run, pace, tick
        self.warm = False

    def warm_up(self) -> None:
        """Run until nothing is new any more; one pass is enough where that has been before."""
        begun, done, pace = self.tick(), 0, self.pace
        fewest, most = (1, 1) if self.warm else (pace.warmup, pace.most_warmup)
        while done < fewest or (done < most and self.tick() - begun < pace.warmup_seconds):
            self.run()
            done += 1
        self.warm = True

    def turn(self) -> float:
        """Mean seconds of the passes of one turn: of one, but for fast networks."""
        begun, done = self.tick(), 0
        while not done or self.tick() - begun < self.pace.turn_seconds:
            self.run()
            done += 1
        return (self.tick() - begun) / done


def in_turns(one: Passes, other: Passes) -> list[tuple[float, float]]:
    """Seconds of a pass of both, turn by turn; each is as often first as second."""
    pace, tick = one.pace, one.tick
    one.warm_up()
    other.warm_up()
    found: list[tuple[float, float]] = []
    begun = tick()
    while len(found) < pace.most_turns:
        if len(found) % 2:
            second, first = other.turn(), one.turn()
        else:
            first, second = one.turn(), other.turn()
        found.append((first, second))
        spent = tick() - begun
        enough = pace.slow_turns if spent >= pace.slow_seconds else pace.turns
        if spent >= pace.seconds and len(found) >= enough:
            break
    return found


class Training:
    """A network in training on one batch, as it is at the end of the recipe."""

    def __init__(self, recipe: Recipe, prepared: Prepared, *, teacher: nn.Module | None) -> None:
        """New weights, and the last batch of the last stage; all of a method is on by then."""
        batches = batches_of(recipe, prepared, example_pool(recipe, prepared))
        recipe = replace(recipe, spread=Spread())  # in this process alone
        self.recipe = recipe
        self.state = begin(recipe, batches, prepared.device, teacher=teacher)
        enter(recipe.stages[-1], self.state)
        self.batch = batches.at(recipe.steps - 1)  # none follow, so that nothing is made ahead
        self.steps = min(recipe.optim.accumulate, recipe.steps)  # of an update

    def update(self) -> None:
        """The steps of one update of the weights, waited for."""
        total = self.recipe.steps
        first = total // self.steps * self.steps - self.steps
        for step in range(first, first + self.steps):
            self.recipe.method.step(self.state, self.batch, Clock(step, total))
        wait_for(self.state.student.device)

    @property
    def parameters(self) -> int:
        """Weights of the network that is kept."""
        return parameters(self.state.student.module)


class Yardstick:
    """The reference network in training, kept for all networks of a search."""

    def __init__(
        self, reference: Recipe, prepared: Prepared, *, teacher: nn.Module | None = None,
        pace: Pace = PACE, tick: Tick = time.perf_counter,
    ) -> None:  # fmt: skip
        """Build the reference; `teacher` is the frozen one, where the method asks for it."""
        self.prepared, self.teacher, self.pace, self.tick = prepared, teacher, pace, tick
        self.training = Training(reference, prepared, teacher=teacher)
        self.passes = Passes(self.training.update, pace, tick=tick)

    def cost_of(self, recipe: Recipe, *, latency_limit: float | None = None) -> Cost:
        """What the recipe's network costs; nothing of it is held afterwards.

        Raises Infeasible where it doesn't fit into memory, or can't take its images.
        """
        check(recipe, self.prepared.device)
        return within_memory(lambda: self._cost(recipe, latency_limit), self.prepared.device)

    def _cost(self, recipe: Recipe, latency_limit: float | None) -> Cost:
        training = Training(recipe, self.prepared, teacher=self.teacher)
        count, latency = training.parameters, None
        if latency_limit is not None:  # first, as the rest is not asked where it's too long
            training.update()  # so that batch norm has seen images
            module = deepcopy(training.state.student.graduate())
            latency = latency_of(module, recipe, self.prepared.device)
            check_latency(latency, latency_limit)
        times = in_turns(Passes(training.update, self.pace, tick=self.tick), self.passes)
        its, others = training.steps, self.training.steps
        return Cost(
            parameters=count,
            step_seconds=median(one for one, _ in times) / its,
            relative_time=median(one / other for one, other in times) * others / its,
            relative_parameters=count / self.training.parameters,
            latency=latency,
        )


def check_latency(latency: float, limit: float) -> None:
    """Raises Infeasible where an answer takes longer, in seconds, than it may."""
    if latency > limit:
        its, most = f"{1e3 * latency:.3g} ms", f"{1e3 * limit:.3g} ms"
        raise Infeasible(f"too slow: an answer takes {its}, more than {most}")


def latency_of(module: nn.Module, recipe: Recipe, device: torch.device) -> float:
    """Seconds to answer one image, the median, as `predict` asks; the module is used up.

    Raises Infeasible where it doesn't answer.
    """
    runner = Eager(module, recipe.net.img_size, device)
    try:
        timed = time_in_turns({"": runner}, {"": 1}, LATENCY)[""]
    finally:
        runner.close()
    if timed.failure:
        raise Infeasible(f"can't answer one image: {timed.failure}")
    return median(timed.seconds)


def check(recipe: Recipe, device: torch.device) -> None:
    """Raises Infeasible where the network can't take its images, and on a CPU also where a step
    needs more memory than there is: the system would end the process there, and raise nothing."""
    size = recipe.stages[-1].size
    try:
        check_net(recipe.net, at=None if size == recipe.net.img_size else size)
    except UsageError as error:
        raise Infeasible(str(error)) from None
    free = free_bytes() if device.type == "cpu" else None
    if free is not None and (least := least_bytes(recipe)) > free:
        raise Infeasible(
            f"out of memory: a step needs {least / 1e9:.1f} GB or more, {free / 1e9:.1f} are free"
        )


def too_large(error: Exception) -> str | None:
    """Why a network can't be used, where the error says that memory ran out; None for others."""
    return reason(error) if out_of_memory(error) else None


def within_memory(work: Callable[[], T], device: torch.device) -> T:
    """What `work` returns; memory that it held is given back, also where it fails.

    Raises Infeasible where memory ran out, and what `work` raises otherwise.
    """
    try:
        return work()
    except Exception as error:
        why = too_large(error)
        if why is None:
            raise
    finally:  # by now the error, whose traceback holds networks, is gone
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    raise Infeasible(why)
