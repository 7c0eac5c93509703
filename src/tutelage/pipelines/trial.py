"""One network of a search at one rung: measured, trained, and asked about the validation images."""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tutelage.checkpoint import forget
from tutelage.errors import Damaged, GivenUp, RunMismatch, TutelageError, Unreachable, UsageError
from tutelage.evaluation.accuracy import predict
from tutelage.files import write_with
from tutelage.learner import choose_precision
from tutelage.loop import fit
from tutelage.networks.build import weight_digest
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.rounds import batches_of, pool_for
from tutelage.pipelines.train import method_of, train_rounds
from tutelage.pipelines.transfer import begun_network, open_source
from tutelage.pipelines.trial_cost import Yardstick, within_memory
from tutelage.progress import read_metrics, waited
from tutelage.recipe import Recipe
from tutelage.recipes.make import resolved_optim
from tutelage.search_settings import SearchSettings
from tutelage.searching.journal import History, Journal
from tutelage.searching.rungs import Job, Plan
from tutelage.searching.trials import Infeasible, Result
from tutelage.speed.timing import reason
from tutelage.training_settings import parse_latency
from tutelage.weights import WEIGHTS

AGAIN = "bring back a copy of it"
LOST = "CUDA error"  # begins what torch says of a device that answers nothing any more


@dataclass(frozen=True)
class Bench:
    """What every trial of a search is made with."""

    settings: SearchSettings
    prepared: Prepared
    plan: Plan
    journal: Journal
    yardstick: Yardstick
    folder: Path  # one folder a trial and rung is made in it

    def of(self, job: Job) -> Path:
        """The folder of a trial at a rung."""
        return self.folder / f"{job.trial:04d}-rung{job.rung}"


def recipe_of_trial(
    settings: SearchSettings, prepared: Prepared, *, network: str, steps: int
) -> Recipe:  # fmt: skip
    """How a network is trained for so many steps; with the weights that it begins with, where they
    are given.

    Raises UsageError where it can't be trained so.
    """
    asked = settings.training(network)
    precision = choose_precision(settings.precision, prepared.device)
    asked = replace(
        asked, optim=resolved_optim(asked, network), precision=precision, steps=steps, budget=None
    )
    (one,) = train_rounds(asked, prepared, method_of(asked))
    return one.recipe


def run_trial(job: Job, network: str, history: History, bench: Bench) -> None:
    """All of one trial at one rung that was begun; the journal has what came of it.

    Raises Interrupted where the user wants to stop, and what is no fault of the network.
    """
    where, device = {"trial": job.trial, "rung": job.rung}, bench.prepared.device
    try:
        result = within_memory(lambda: _result(job, network, history, bench), device)
        bench.journal.note("finished", **where, result=asdict(result))
    except (RunMismatch, Unreachable, Damaged):  # which say nothing of the network
        _note_stop(job, bench)
        raise
    except (Infeasible, UsageError, GivenUp) as error:
        _give_up(job, str(error), bench)
    except (TutelageError, OSError, KeyboardInterrupt):
        _note_stop(job, bench)
        raise
    except Exception as error:  # of the network's own code; others may do
        if LOST in str(error):  # then no other does, either
            raise
        _give_up(job, reason(error), bench)
    _tidy(bench.of(job), keep_weights=job.rung == bench.plan.last)


def _note_stop(job: Job, bench: Bench) -> None:
    """Write down that the trial was stopped, if that can be; a full disk may be why it was."""
    with suppress(TutelageError, OSError):
        bench.journal.note("stopped", trial=job.trial, rung=job.rung)


def _give_up(job: Job, why: str, bench: Bench) -> None:
    """Write down that the network can't be used."""
    bench.journal.note("infeasible", trial=job.trial, rung=job.rung, reason=why)
    bench.prepared.screen.say(f"  #{job.trial} can't be used: {why}")


def _result(job: Job, network: str, history: History, bench: Bench) -> Result:
    """Costs and accuracy; raises Infeasible, UsageError or GivenUp where there are none."""
    begun = time.monotonic()
    settings, prepared = bench.settings, bench.prepared
    recipe = recipe_of_trial(
        settings, prepared, network=network, steps=bench.plan.steps[job.rung]
    )  # fmt: skip
    cost = history.costs.get((job.trial, job.rung))
    if cost is None:
        limit = None if settings.latency is None else parse_latency(settings.latency)
        cost = bench.yardstick.cost_of(recipe, latency_limit=limit)
        bench.journal.note("measured", trial=job.trial, rung=job.rung, cost=asdict(cost))
    folder = bench.of(job)
    student, recipe = _given(settings, recipe, prepared)
    module = fit(
        recipe, batches_of(recipe, prepared, pool_for(recipe, prepared)), folder,
        device=prepared.device, student=lambda: student, screen=prepared.screen,
    )  # fmt: skip
    size, labels = recipe.net.img_size, prepared.parts["val"].label_tensor()
    probs = predict(module, prepared.pixels("val", canvas_for(size)), size)
    right = (probs.argmax(-1) == labels).numpy()
    write_right(folder, right)
    log = folder / "metrics.jsonl"
    trained = read_metrics(log)[-1]["seconds"]  # over all starts
    return Result(
        right=int(right.sum()), total=len(right), cost=cost,
        seconds=round(max(time.monotonic() - begun, trained), 2), waited=round(waited(log), 4),
    )  # fmt: skip


def _given(
    settings: SearchSettings, recipe: Recipe, prepared: Prepared
) -> tuple[nn.Module | None, Recipe]:  # fmt: skip
    """The network with the weights that it is to begin with, and the recipe that says which."""
    given = settings.begins_as
    if given is None:
        return None, recipe
    found = open_source(given, recipe.net.name, recipe.net.img_size)
    recipe = replace(recipe, init=weight_digest(found.module))
    return begun_network(found, recipe, prepared, where=given), recipe


def write_right(folder: Path, right: NDArray[np.bool_]) -> None:
    """Keep which validation images (N,) a network got right."""

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, right)

    write_with(folder / "right.npy", save)


def read_right(folder: Path) -> NDArray[np.bool_]:
    """Which validation images (N,) a network got right; raises Damaged where that can't be read."""
    file = folder / "right.npy"
    try:
        found: NDArray[np.bool_] = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy's parser of the header has its own kinds
        raise Damaged(f"{file} is damaged ({error}): {AGAIN}") from error
    if found.dtype != np.bool_ or found.ndim != 1:
        raise Damaged(f"{file} is damaged (it has {found.dtype} {found.shape}): {AGAIN}")
    return found


def _tidy(folder: Path, *, keep_weights: bool) -> None:
    """Remove what only a training that goes on needs, and weights that nobody will ask."""
    forget(folder)
    if not keep_weights:
        (folder / WEIGHTS).unlink(missing_ok=True)
