"""Successive halving: many networks are trained shortly, the best of them longer, and so on.

Paper: Jamieson and Talwalkar 2016 (arXiv 1502.07943), algorithm 1, with the best 1 / eta of a rung
in place of its half, as in Li et al. 2018 (arXiv 1603.06560). Each rung's trainings are eta times
as long, so that every rung costs about the same; they begin anew, since a schedule that has
reached its end doesn't go on. Here the first rung's networks are suggested one after the other, by
a sampler that knows how the ones before did, and a rung begins once the one before is through.
Where there is a time limit, a rung takes no more networks when its share of the time is over.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from tutelage.searching.journal import History, Span
from tutelage.searching.trials import Trial, Weights

ATTEMPTS = 3  # processes that may end while a network is measured, before it is given up
SUGGESTIONS = 20  # for each network to be trained: beyond, too few are feasible


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a search goes on."""

    trials: int | None  # networks of the first rung; None: as many as its time allows
    steps: tuple[int, ...]  # of a training, for each rung
    keep: int  # eta: one of so many goes on to the next rung
    seconds: float | None = None  # for all rungs together; None: no limit
    weights: Weights

    @property
    def last(self) -> int:
        """The last rung."""
        return len(self.steps) - 1


@dataclass(frozen=True)
class Job:
    """Train this trial at this rung."""

    trial: int
    rung: int


@dataclass(frozen=True)
class Close:
    """The rung's time is over."""

    rung: int


Next = Job | Close | Literal["suggest", "wait", "done"]


def distinct(history: History) -> list[Trial]:
    """Trials that are no duplicates of earlier ones."""
    return [one for one in history.trials if one.same_as is None]


def standing(history: History, plan: Plan, rung: int) -> list[Trial]:
    """Those that have been through a rung, the best first; of equal ones the one with the faster
    step."""
    through = [one for one in history.trials if len(one.results) > rung]

    def order(trial: Trial) -> tuple[float, float]:
        result = trial.results[rung]
        return -plan.weights.reward_of(result), result.cost.relative_time

    return sorted(through, key=order)


def entrants(history: History, plan: Plan, rung: int) -> list[Trial]:
    """The trials of a rung, in the order of their turn: of the first all that were suggested, of
    others the best of the rung before, also where a later rung could not use them."""
    if rung == 0:
        return distinct(history)
    before = standing(history, plan, rung - 1)
    usable = [one for one in before if not one.infeasible or len(one.results) > rung]
    return usable[: math.ceil(len(before) / plan.keep)]


def open_trials(history: History, plan: Plan, rung: int) -> list[Trial]:
    """The trials that have still to go through a rung."""
    return [
        one for one in entrants(history, plan, rung)
        if len(one.results) <= rung and not one.infeasible
    ]  # fmt: skip


def next_step(history: History, plan: Plan, *, now: float, busy: Collection[int] = ()) -> Next:
    """What to do next; `busy` are the trials that processes are at, `now` is in seconds since
    1970."""
    for rung in range(len(plan.steps)):
        waiting = open_trials(history, plan, rung)
        free = [one for one in waiting if one.number not in busy]
        begun = {span.trial for span in history.spans if span.rung == rung}
        cut = [one for one in free if one.number in begun]  # by a kill, before a rung was closed
        if cut:
            return Job(cut[0].number, rung)
        more = rung == 0 and _wants_more(history, plan)
        if rung not in history.closed and (free or more):
            if _is_over(history, plan, rung, now, busy):
                return Close(rung)
            return Job(free[0].number, rung) if free else "suggest"
        if any(one.number in busy for one in waiting):
            return "wait"
    return "done"


def _wants_more(history: History, plan: Plan) -> bool:
    """Whether the first rung is to have another network."""
    if plan.trials is None:
        return True
    usable = sum(bool(one.results) or not one.infeasible for one in distinct(history))
    return usable < plan.trials and len(history.trials) < SUGGESTIONS * plan.trials


def _is_over(
    history: History, plan: Plan, rung: int, now: float, busy: Collection[int]
) -> bool:  # fmt: skip
    """Whether another training would end after the rung's share of the time."""
    if plan.seconds is None:
        return False
    through, spent = standing(history, plan, rung), worked(history.spans, now, busy)
    if spent > plan.seconds:  # all of it: one must come out, but where none can be used
        return rung == 0 or bool(through)
    if len(through) < (plan.keep if rung < plan.last else 1):
        return False  # a rung needs some to choose from
    begun = min(span.begun for span in history.spans if span.rung == rung)
    before = worked(history.spans, now, busy, until=begun)
    spent -= before
    share = (plan.seconds - before) / (len(plan.steps) - rung)
    each = sum(one.results[rung].seconds for one in through) / len(through)
    return spent + each > share


def worked(
    spans: Collection[Span], now: float, busy: Collection[int], until: float = math.inf
) -> float:
    """Seconds in which at least one process was at work; a span without an end whose trial nobody
    is at is of a process that was killed, and its time is not known."""
    total, reached = 0.0, -math.inf
    last = {span.trial: span for span in spans}  # earlier ones are over, also of a busy trial
    for span in sorted(spans, key=lambda one: one.begun):
        at_it = span.trial in busy and span is last[span.trial]
        ended = now if at_it else span.ended or span.begun
        start, end = max(span.begun, reached), min(ended, until)
        total += max(0.0, end - start)
        reached = max(reached, end)
    return total


def seconds_left(history: History, plan: Plan, *, now: float, busy: Collection[int] = ()) -> float:
    """About how long it takes from now on: by the limit, or by the time of a step so far."""
    if plan.seconds is not None:
        return max(0.0, plan.seconds - worked(history.spans, now, busy))
    known = [
        result.seconds / plan.steps[rung]
        for one in history.trials for rung, result in enumerate(one.results)
    ]  # fmt: skip
    if not known:
        return math.inf
    each = sum(known) / len(known)
    count, total = plan.trials or 0, 0.0
    for rung, steps in enumerate(plan.steps):
        through = len(standing(history, plan, rung))
        total += max(0, count - through) * steps * each
        count = math.ceil(count / plan.keep)
    return total / max(1, len(busy) + 1)
