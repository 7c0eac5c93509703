"""`tutelage search`: many networks shortly, the best of them longer, and which to train for real.

Paper: Tan and Le 2021, EfficientNetV2 (arXiv 2104.00298), section 3.3: networks are chosen by what
a short training of them gives, by the time of their training step, and by their size. The paper's
networks are sampled up to 1,000 times, at random or by reinforcement learning, and each is trained
for 10 epochs; here other samplers may suggest them, and successive halving decides which of them
are worth a longer training. Several processes may work on one search.
"""

import math
import random
import time
from collections.abc import Collection, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.checkpoint import is_saved
from tutelage.core import Dice, fold
from tutelage.errors import UsageError
from tutelage.learner import choose_device, choose_precision
from tutelage.networks.pretrained import check_weights
from tutelage.pipelines.prepare import prepare
from tutelage.pipelines.search_answer import ANSWER, TRIED, Found, conclude, reported, trial_content
from tutelage.pipelines.search_plan import plan_of, planned
from tutelage.pipelines.sharded import open_sharded, source_of
from tutelage.pipelines.shared_run import PREPARED, SharedRun, open_shared
from tutelage.pipelines.train import method_of
from tutelage.pipelines.trial import Bench, recipe_of_trial, run_trial
from tutelage.pipelines.trial_cost import PACE, Yardstick
from tutelage.progress import Screen, duration
from tutelage.recipes.make import check_model
from tutelage.reports.search_answer import label
from tutelage.reports.search_text import trial_line
from tutelage.run import held, is_held, write_config
from tutelage.search_settings import SearchSettings
from tutelage.searching.journal import History, Journal, Span
from tutelage.searching.rungs import (
    ATTEMPTS,
    Close,
    Job,
    Plan,
    distinct,
    entrants,
    next_step,
    seconds_left,
    standing,
)
from tutelage.searching.samplers import Sampler, sampler_of
from tutelage.searching.space import Genes, Space
from tutelage.searching.spaces import space_of
from tutelage.searching.trials import Trial, seen

DUPLICATES = 10  # suggestions in a row of what is known, after which an unknown one is drawn
LISTED = 100_000  # choices, up to which a space is gone through for one that is unknown
KILLED = "the process ended each time that it was measured or trained, as where memory runs out"
NAME = 48  # signs of a network beside its number
POLL_SECONDS = 1.0  # between looks at what other processes are at


@dataclass(frozen=True)
class Search:
    """What a process needs to take part."""

    bench: Bench
    space: Space
    sampler: Sampler
    seed: int


def search(settings: SearchSettings, given: Mapping[str, Any]) -> Found:
    """Everything from the folders to the best network, alone or with other processes.

    Finished trials are not repeated. Raises what the stages raise.
    """
    space = space_of(settings)
    _check_early(settings, space)
    with open_shared(
        "search", settings, overwrite=settings.overwrite, given=given
    ) as shared:  # fmt: skip
        its = _prepared(shared, settings, space)
        if its is not None:
            _work(its)
        with shared.alone() as run:
            if its is not None:
                conclude(run, its.bench, space)
            return reported(run)


def _check_early(settings: SearchSettings, space: Space) -> None:
    """Raises UsageError for what is wrong before any image is looked at."""
    sampler_of(settings.suggested_by)
    check_model(space.reference, settings)
    method_of(settings.training(space.reference))
    if settings.begins_as == "pretrained":
        check_weights([space.network(genes) for genes in space.all_genes()])


def _judged(parts: Set[str]) -> None:
    """Raises UsageError where no part is to judge networks on."""
    if "val" not in parts:
        raise UsageError(
            "a search judges networks on validation images: give --val, or a --val-fraction above 0"
        )


def _prepared(shared: SharedRun, settings: SearchSettings, space: Space) -> Search | None:
    """Images, plan and all that trials are made with; None where the answer is known."""
    asked = settings.training(space.reference)
    method = method_of(asked)
    source = None if settings.labels is None else source_of(asked, method)
    device = choose_device(settings.device)
    with shared.preparing(Screen()) as run:
        if run.is_done(ANSWER):
            return None
        screen = Screen(log=run.path / "logs" / "log.txt")
        listed = settings.unlabeled if source is None else None
        prepared = prepare(settings, run, device, screen, pool=listed, allowed=_judged)
        if source is not None:
            prepared.sharded = open_sharded(asked, source, run, prepared)
        settings = replace(
            settings, img_size=prepared.size, device=str(device), batch=settings.batch_size
        )
        if not run.is_done(PREPARED):
            with run.stage(PREPARED) as notes:
                notes |= planned(settings, run, prepared, space)
                precision = choose_precision(settings.precision, device)
                write_config(run, replace(settings, precision=precision))
                run.content["stages"][TRIED] = {"state": "running"}  # saved at once with the plan:
                # from here on, settings bind
        plan = plan_of(settings, run.notes(PREPARED))
        settings = replace(settings, steps=plan.steps[-1], budget=None)
        path = run.path
    reference = recipe_of_trial(
        settings, prepared, network=space.reference, steps=plan.steps[0]
    )  # fmt: skip
    journal, yardstick = Journal(path / "trials.jsonl"), Yardstick(reference, prepared, pace=PACE)
    bench = Bench(settings, prepared, plan, journal, yardstick, path / TRIED)
    return Search(bench, space, sampler_of(settings.suggested_by), settings.seed)


def _work(search: Search) -> None:
    """Trial after trial, until no process has anything left to do."""
    bench, screen, waited = search.bench, search.bench.prepared.screen, False
    while True:
        with ExitStack() as stack:
            step, history, busy = _claimed(search, stack)
            if step == "done":
                return
            if step == "wait":
                if not waited:
                    screen.say("  waiting for the other processes' trials")
                waited = True
                time.sleep(POLL_SECONDS)
                continue
            waited = False
            assert isinstance(step, Job)
            trial = history.trials[step.trial]
            screen.say(_begins(step, history, bench.plan, busy))
            run_trial(step, trial.network, history, bench)
        _say_result(step, bench)


def _claimed(
    search: Search, stack: ExitStack
) -> tuple[Job | Literal["wait", "done"], History, set[int]]:
    """The next trial, which no other process takes until the stack is closed; what was known
    before, and the trials that others are at."""
    bench, journal = search.bench, search.bench.journal
    with journal.locked():
        while True:
            history = journal.read()
            busy = _busy(history, bench)
            step = next_step(history, bench.plan, now=time.time(), busy=busy)
            if step == "suggest":
                if not _suggest(search, history):
                    journal.write("closed", rung=0)
            elif isinstance(step, Close):
                journal.write("closed", rung=step.rung)
            elif isinstance(step, Job):
                where = {"trial": step.trial, "rung": step.rung}
                if _ends_processes(history.trials[step.trial], bench.of(step)):
                    journal.write("infeasible", **where, reason=KILLED)
                    continue
                stack.enter_context(held(bench.of(step)))
                journal.write("begun", **where)
                return step, history, busy
            else:
                return step, history, busy


def _ends_processes(trial: Trial, folder: Path) -> bool:
    """Whether no process that began with a trial came out of it, nor as far as to save it."""
    return trial.attempts >= ATTEMPTS and not is_saved(folder)


def _busy(history: History, bench: Bench) -> set[int]:
    """Trials that living processes are at."""
    last = {span.trial: span for span in history.spans}
    begun = [span for span in last.values() if span.ended is None or not _is_through(history, span)]
    return {span.trial for span in begun if is_held(bench.of(Job(span.trial, span.rung)))}


def _is_through(history: History, span: Span) -> bool:
    """Whether nothing is left to do of what was begun."""
    trial = history.trials[span.trial]
    return bool(trial.infeasible) or len(trial.results) > span.rung


def _suggest(search: Search, history: History) -> bool:
    """Write down the network that the sampler wants next, or one that is not known yet where it
    wants nothing else than known ones; False where there is none."""
    space, plan = search.space, search.bench.plan
    known = {one.network: one.number for one in distinct(history)}
    genes: Genes | None
    if _may_repeat(history, plan, space):
        past = seen(history.trials, plan.weights)
        genes = search.sampler.suggest(space, past, seed=search.seed)
    else:
        genes = _unknown(space, known, seed=fold(search.seed, Dice.SEARCH, len(history.trials)))
    if genes is None:
        return False
    network = space.network(genes)
    search.bench.journal.write(
        "suggested", genes=genes, network=network, same_as=known.get(network)
    )  # fmt: skip
    return True


def _may_repeat(history: History, plan: Plan, space: Space) -> bool:
    """Whether the sampler is asked, who may come upon networks that are known."""
    if plan.trials is not None and plan.trials >= space.size:
        return False  # as all are wanted
    last = [one.same_as for one in history.trials[-DUPLICATES:]]
    return len(last) < DUPLICATES or None in last


def _unknown(space: Space, known: Collection[str], *, seed: int) -> Genes | None:
    """A choice at random whose network is not known; None where there is none."""
    dice = random.Random(seed)
    if space.size <= LISTED:
        left = [genes for genes in space.all_genes() if space.network(genes) not in known]
        return dice.choice(left) if left else None
    while True:
        genes = tuple(dice.randrange(len(one.options)) for one in space.dimensions)
        if space.network(genes) not in known:
            return genes


def _begins(job: Job, history: History, plan: Plan, busy: Collection[int]) -> str:
    """The line before a trial."""
    through = len(standing(history, plan, job.rung))
    of = len(entrants(history, plan, job.rung)) if job.rung else plan.trials
    count = f"{through + 1} of {of}" if of else f"{through + 1}"
    left = seconds_left(history, plan, now=time.time(), busy=busy)
    return (
        f"rung {job.rung + 1} of {len(plan.steps)}, network {count}: "
        f"{label(trial_content(history.trials[job.trial], plan), NAME)}, "
        f"{plan.steps[job.rung]:,} steps"
        + ("" if left == math.inf else f"; about {duration(left)} left in all")
    )


def _say_result(job: Job, bench: Bench) -> None:
    """The line after a trial."""
    trial = bench.journal.read().trials[job.trial]
    if len(trial.results) > job.rung:
        content = trial_content(trial, bench.plan)
        bench.prepared.screen.say(f"  {trial_line(content)}")
