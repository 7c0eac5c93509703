"""What a search found: the best network with its interval, the others beside it, and recipes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from tutelage.data.storage import is_given
from tutelage.errors import UsageError
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.evaluation.pairs import Pair, pairs_with
from tutelage.files import read_json, write_json, write_text
from tutelage.networks.budget import scale
from tutelage.networks.scaling import Rule
from tutelage.pipelines.prepare import canvas_for
from tutelage.pipelines.trial import Bench, read_right, recipe_of_trial
from tutelage.reports.search_answer import best_of
from tutelage.reports.search_page import write_search_page
from tutelage.run import Run
from tutelage.search_settings import SearchSettings, Size
from tutelage.searching.journal import History
from tutelage.searching.rungs import Job, Plan, distinct, entrants, standing, worked
from tutelage.searching.space import Space
from tutelage.searching.trials import Trial
from tutelage.speed.machine import processor
from tutelage.speed.pareto import pareto_front
from tutelage.training_settings import parse_latency
from tutelage.values import to_plain
from tutelage.weights import WEIGHTS, load_weights

FORMAT = 1  # of search.json
SEARCH = "search.json"
TRIED = "trials"  # the stage between preparation and answer, and its folder
ANSWER = "answer"  # the stage after it
LARGER: dict[Size, float] = {"m": 1.0, "l": 3.0}  # phi, as from B4 to B5 and to B7
GROWING = Rule(cap=480, multiple=32)  # EfficientNetV2's; small images grow in whole maps


@dataclass(frozen=True)
class Found:
    """What a finished search says."""

    run: Path
    network: str  # the best, as `train --model` takes it
    recipe: Path  # for `train --config`
    content: dict[str, Any]  # of search.json


def conclude(run: Run, bench: Bench, space: Space) -> None:
    """The answer, once: search.json and the recipes.

    Raises UsageError where no network could be used.
    """
    if run.is_done(ANSWER):
        return
    history = bench.journal.read()
    with run.stage(ANSWER) as notes:
        best = _best(history, bench.plan)
        content = _content(run, bench, space, history)
        content["recipes"] = _write_recipes(run.path, bench.settings, best.network)
        write_json(run.path / SEARCH, content)
        notes["best"] = best.network
        run.content["stages"][TRIED] = {"state": "done", "seconds": content["seconds"]}


def reported(run: Run) -> Found:
    """The answer that was written down, with its page."""
    content = read_json(run.path / SEARCH)
    if not run.is_done("report"):
        with run.stage("report"):
            write_search_page(run.path, content)
    recipe = run.path / "recipes" / "best.yaml"
    return Found(run.path, best_of(content)["network"], recipe, content)


def _best(history: History, plan: Plan) -> Trial:
    """The trial of the highest reward in the last rung; raises UsageError where none is usable."""
    found = standing(history, plan, plan.last)
    if found:
        return found[0]
    reasons = {one.infeasible for one in distinct(history) if one.infeasible}
    some = "\n  ".join(sorted(reasons)[:5])
    raise UsageError(
        f"none of {len(distinct(history))} networks can be used here:\n  {some}\nchange what is in "
        "the way, and begin anew with --overwrite or another --out"
    )


def trial_content(trial: Trial, plan: Plan) -> dict[str, Any]:
    """A trial as search.json has it."""
    results = [
        {"right": one.right, "total": one.total, "reward": plan.weights.reward_of(one)}
        | asdict(one.cost)
        | {"seconds": one.seconds, "waited": one.waited}
        for one in trial.results
    ]
    return {
        "number": trial.number, "network": trial.network, "same_as": trial.same_as,
        "infeasible": trial.infeasible, "results": results,
    }  # fmt: skip


def _content(run: Run, bench: Bench, space: Space, history: History) -> dict[str, Any]:
    """All that is known, but for the recipes."""
    settings, plan, prepared = bench.settings, bench.plan, bench.prepared
    finalists = standing(history, plan, plan.last)
    limited = settings.latency is not None
    costs = [one.results[plan.last].cost for one in finalists]
    times = [cost.latency if limited else cost.step_seconds for cost in costs]
    points = [
        (-(time or 0.0), one.results[plan.last].accuracy)
        for time, one in zip(times, finalists, strict=True)
    ]
    front = pareto_front(points)
    return {
        "format": FORMAT,
        "space": settings.space,
        "sampler": settings.suggested_by,
        "reference": space.reference,
        "weights": {"time": plan.weights.time, "params": plan.weights.params},
        "latency_limit": None if settings.latency is None else parse_latency(settings.latency),
        "img_size": prepared.size,
        "classes": len(prepared.classes),
        "val_images": len(prepared.parts["val"]),
        "method": settings.trained_by,
        "device": settings.device,
        "processor": processor(),
        "from_python": any(
            one is not None and is_given(one)
            for one in (settings.data, settings.val, settings.test, settings.unlabeled)
        ),
        "threads": torch.get_num_threads(),
        "rungs": [
            {"steps": steps, "entered": len(entrants(history, plan, rung)),
             "done": len(standing(history, plan, rung))}
            for rung, steps in enumerate(plan.steps)
        ],
        "trials": [trial_content(one, plan) for one in history.trials],
        "best": finalists[0].number,
        "front": [one.number for one, on in zip(finalists, front, strict=True) if on],
        "pairs": [pair.plain() for pair in _pairs(bench, finalists)],
        "test": _tested(bench, finalists[0]),
        "seconds": worked(history.spans, 0.0, ()),
    }  # fmt: skip


def _pairs(bench: Bench, finalists: list[Trial]) -> tuple[Pair, ...]:
    """The best against each other network of the last rung, on the validation images."""
    right = {
        one.network: torch.from_numpy(read_right(bench.of(Job(one.number, bench.plan.last))))
        for one in finalists
    }
    return pairs_with(finalists[0].network, right)


def _tested(bench: Bench, best: Trial) -> dict[str, int] | None:
    """The best network's short training on the test images, which it was not chosen by."""
    prepared, job = bench.prepared, Job(best.number, bench.plan.last)
    if "test" not in prepared.parts:
        return None
    recipe = recipe_of_trial(
        bench.settings, prepared, network=best.network, steps=bench.plan.steps[-1]
    )  # fmt: skip
    weights = bench.of(job) / WEIGHTS
    module = load_weights(weights, recipe.net, prepared.device)
    size = recipe.net.img_size
    probs = predict(module, prepared.pixels("test", canvas_for(size)), size)
    return asdict(accuracy(probs, prepared.parts["test"].label_tensor()))


def _write_recipes(path: Path, settings: SearchSettings, network: str) -> dict[str, str]:
    """Files for `train --config`: the best network, and larger ones where they are asked for.

    The steps are left out: those of a search are few.
    """
    assert settings.img_size != "auto", "looked at the images"
    sizes: dict[str, tuple[str, int]] = {"best": (network, settings.img_size)}
    for size in settings.sizes:
        larger = scale(network, LARGER[size], size=settings.img_size, rule=GROWING)
        sizes[size] = (larger.name, larger.size)
    written = {}
    for key, (model, side) in sizes.items():
        file = path / "recipes" / f"{key}.yaml"
        training = replace(settings.training(model), img_size=side, steps="auto")
        write_text(file, _yaml(training))
        written[key] = str(file)
    return written


LEFT_OUT = ("out", "overwrite", "steps", "budget", "device")  # what the one who trains decides


def _yaml(training: Any) -> str:
    """The settings as `--config` reads them."""
    plain: Mapping[str, Any] = to_plain(training)
    kept = {key: value for key, value in plain.items() if key not in LEFT_OUT}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
