"""One training of a pipeline: from the settings to a recipe, its folder, and its network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tutelage.catalog import name_of
from tutelage.data.entries import ShardedPool
from tutelage.data.loader import Batches
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import Pool, PoolSet
from tutelage.data.stream import StreamedPool, lanes_for
from tutelage.deploy.model_folder import Model, load_model
from tutelage.errors import Damaged
from tutelage.evaluation.accuracy import predict
from tutelage.evaluation.paired import Paired, compare
from tutelage.files import write_json
from tutelage.learner import choose_precision
from tutelage.loop import Exam, fit
from tutelage.methods.method import Method
from tutelage.pipelines.halfway import begin_anew_where_lost, halfway
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.transfer import as_learned, digest_of, first_network
from tutelage.progress import duration, waited
from tutelage.progressive import table
from tutelage.recipe import Recipe
from tutelage.recipes.make import recipe_of
from tutelage.run import Run
from tutelage.training_settings import Common
from tutelage.weights import AGAIN

WISE = 0.8  # alpha; 0.3 to 1.1 points above 1 on images kept apart: docs/results.md


@dataclass(frozen=True)
class Round:
    """One training: its folder's name, its recipe, and which rounds it builds on."""

    name: str  # such as 01-student; also the stage's name in run.json
    recipe: Recipe
    teacher: str | None = None  # the round that labels the pool, or that the teacher begins as
    start: str | None = None  # the round that the student begins as
    halfway: bool = False  # as that round was in its middle, and not at its end
    init: str | None = None  # without `start`: the source of given weights, as in --init
    fixes: bool = False  # whether it is the fix of the round before for larger images
    judged: bool = False  # whether it is to be as good as the baseline: the last part of a round

    @property
    def labels_stage(self) -> str:
        """The stage that labels the pool for this student, such as 01-labels."""
        return self.name.replace("student", "labels")


def recipe_for(
    settings: Common, prepared: Prepared, *, model: str, method: Method, number: int, steps: int,
    ratio: int = 0,
) -> Recipe:  # fmt: skip
    """The recipe of round `number` on the prepared images."""
    resolved = replace(
        settings, img_size=prepared.size, steps=steps, budget=None,
        precision=choose_precision(settings.precision, prepared.device),
    )  # fmt: skip
    return recipe_of(
        resolved, model=model, method=method, num_classes=len(prepared.classes), ratio=ratio,
        number=number,
    )  # fmt: skip


def seen_per_label(method: Method, ratio: int) -> int:
    """Images that a student sees for each labeled one, itself and all views of the pool."""
    asks_pool = vars(method).get("on") != "labels"  # of the distillations
    return 1 + ratio * len(method.unlabeled_views) * asks_pool


def share_of(steps: int, share: float) -> int:
    """Steps of a round that takes a share of them."""
    return max(1, round(share * steps))


def with_init(rounds: Sequence[Round], settings: Common, run: Run) -> tuple[Round, ...]:
    """The rounds, of which those with new weights begin with the given ones, where any are."""
    given = settings.begins_as
    if given is None:
        return tuple(rounds)
    nets = [as_learned(one.recipe.net, settings, run) for one in rounds]
    made = [
        replace(one, recipe=replace(one.recipe, net=net))
        for one, net in zip(rounds, nets, strict=True)
    ]
    wise = _wise(settings, run, made)

    def begun(one: Round) -> Round:
        init = digest_of(settings, run, one.recipe.net.name)
        return replace(one, recipe=replace(one.recipe, init=init, wise=wise), init=given)

    return tuple(begun(one) if one.start is None else one for one in made)


def _wise(settings: Common, run: Run, rounds: Sequence[Round]) -> float:
    """Alpha of WiSE-FT for all trainings that begin with given weights, so that what they are
    compared for is not that; 1 unless asked where one of them is of a kind it wasn't measured for:
    known classes, statistics that move, a frozen body, a teacher's network, or a round after it
    that goes on from its weights."""
    if settings.wise != "auto":
        return settings.wise
    starts = {one.start for one in rounds}

    def measured(one: Round) -> bool:
        recipe = one.recipe
        fitted = run.notes("init")[recipe.net.name]["fitted"]
        learns = recipe.freeze.norms and recipe.freeze.part != "body"
        return fitted and learns and recipe.method.teacher == "none" and one.name not in starts

    return WISE if all(measured(one) for one in rounds if one.start is None) else 1.0


def batches_of(recipe: Recipe, prepared: Prepared, pool: Pool | None = None) -> Batches:
    """The recipe's batches of the prepared images."""
    return Batches(
        prepared.labeled_set(recipe.net.img_size),
        pool,
        stages=recipe.stages,
        views=(recipe.method.labeled_view, recipe.method.unlabeled_views),
        batch=recipe.batch,
        ratio=recipe.ratio,
        noise=recipe.noise,
        seed=recipe.seed,
    )


def announce(rounds: Sequence[Round], prepared: Prepared, run: Run) -> None:
    """What will be trained and, where it was measured, how long it takes."""
    planned = run.notes("plan").get("step_seconds", {})
    width = max(len(one.name) for one in rounds)
    for one in rounds:
        recipe = one.recipe
        images = recipe.batch * (1 + recipe.ratio)
        line = (
            f"  {one.name:<{width}}  {recipe.net.name}, {name_of(recipe.method)}, "
            f"{recipe.steps:,} steps of {images} images at {recipe.net.img_size} px "
            f"on {prepared.device}"
        )
        line += f", beginning as {one.start}" if one.start else ""
        line += " halfway" if one.halfway else ""
        line += f", {recipe.freeze.words}" if recipe.freeze.words else ""
        if one.name in planned:
            line += f", about {duration(planned[one.name] * recipe.steps)}"
        prepared.screen.say(line + (" (done)" if run.is_done(one.name) else ""))
    tables = {tuple(table(one.recipe.stages, one.recipe.batch)): one for one in rounds}
    for lines, one in tables.items():
        if len(one.recipe.stages) > 1:
            prepared.screen.say(f"  stages of {one.name} and rounds like it:")
            for line in lines:
                prepared.screen.say(f"    {line}")


def reopen_damaged(rounds: Sequence[Round], run: Run, prepared: Prepared) -> None:
    """Let the model, and rounds that it is made of, be made again where their files are damaged;
    rounds of a run whose model is whole are not asked any more."""
    if run.is_done("model") and not _reopened("model", run.path / "model", run, prepared):
        return
    for one in rounds:
        if run.is_done(one.name) and _reopened(
            one.name, run.path / "rounds" / one.name, run, prepared
        ):
            run.reopen("evaluate")
    by_name = {one.name: one for one in rounds}
    for one in rounds:
        if one.start is not None and one.halfway and not run.is_done(one.name):
            begin_anew_where_lost(one.start, by_name[one.start].recipe, run, prepared)


def _reopened(stage: str, folder: Path, run: Run, prepared: Prepared) -> bool:
    """Whether what a stage left is damaged or gone, so that the stage is done again."""
    if (folder / "config.json").exists():
        try:
            load_model(folder)
            return False
        except Damaged as error:
            reason = str(error).removesuffix(f": {AGAIN}")
    else:
        reason = f"{folder / 'config.json'} is missing"
    prepared.screen.say(f"  {reason}: {folder} is made again")
    run.reopen(stage)
    return True


def train_once(
    one: Round, run: Run, prepared: Prepared, *, exam: Exam | None, pool: Pool | None = None,
    teacher: nn.Module | None = None,
) -> None:  # fmt: skip
    """One training, unless it is done; its folder can be loaded like a model folder.

    `teacher` is given, or else the network of the round that `one` names, where the method's
    teacher is a network. Raises what `fit` raises.
    """
    if run.is_done(one.name):
        return
    folder = run.path / "rounds" / one.name
    if teacher is None and one.teacher and not one.recipe.method.stored:
        teacher = network_of(one.teacher, run, prepared)
    with run.stage(one.name):
        module = fit(
            one.recipe,
            batches_of(one.recipe, prepared, pool),
            folder,
            device=prepared.device,
            student=lambda: _student_of(one, run, prepared),
            teacher=teacher,
            exam=exam,
            screen=prepared.screen,
        )
        net = one.recipe.net
        model = Model(module, net, prepared.classes, canvas_for(net.img_size))
        write_json(folder / "config.json", model.config())
    took, share = run.notes(one.name)["seconds"], waited(folder / "metrics.jsonl")
    prepared.screen.say(
        f"  {one.name} done in {duration(took)}, {share:.0%} of it waiting for images"
    )


def _student_of(one: Round, run: Run, prepared: Prepared) -> nn.Module | None:
    """What the student begins as; None: new weights."""
    if one.start is not None and one.halfway:
        return halfway(one.start, one.recipe, run, prepared.device)
    if one.start is not None:
        return network_of(one.start, run, prepared)
    if one.init is not None:
        return first_network(one.init, one.recipe, prepared)
    return None


def network_of(name: str, run: Run, prepared: Prepared) -> nn.Module:
    """The network that a finished round left, frozen and in eval mode."""
    folder = run.path / "rounds" / name
    return load_model(folder, prepared.device).module


def compare_on_val(before: Round, after: Round, run: Run, prepared: Prepared) -> Paired:
    """Two finished rounds on the validation images, each at its own image size."""
    labels, right = prepared.parts["val"].label_tensor(), []
    for one in (before, after):
        size = one.recipe.net.img_size
        pixels = prepared.pixels("val", canvas_for(size))
        probs = predict(network_of(one.name, run, prepared), pixels, size)
        right.append(probs.argmax(-1) == labels)
    return compare(right[0], right[1])


def whole_pool(prepared: Prepared) -> PoolSet:
    """Every pool image, once an epoch, without targets."""
    count = len(prepared.parts["pool"])
    ones = torch.ones(count, dtype=torch.int64)
    return PoolSet(prepared.pixels("pool"), torch.arange(count), ones)


def pool_for(recipe: Recipe, prepared: Prepared) -> Pool | None:
    """The pool in shards, or as a method without stored labels gets it; None where it asks none."""
    if not recipe.ratio or not recipe.method.unlabeled_views:
        return None
    if prepared.sharded is not None:
        return streamed_pool(recipe, prepared.sharded, prepared.device)
    return whole_pool(prepared)


def streamed_pool(recipe: Recipe, sharded: ShardedPool, device: torch.device) -> StreamedPool:
    """The pool in shards, in as many lanes as all batches of a recipe can be shared among."""
    counts = {recipe.ratio * (stage.batch or recipe.batch) for stage in recipe.stages}
    return StreamedPool(
        sharded,
        canvas=canvas_for(recipe.net.img_size),
        device=device,
        lanes=lanes_for(counts, int(sharded.entries.sum())),
    )


def example_pool(recipe: Recipe, prepared: Prepared) -> Pool | None:
    """The pool with some targets: the right shapes to measure a step's time with."""
    pool = pool_for(recipe, prepared)
    if not isinstance(pool, PoolSet) or not recipe.method.stored:
        return pool
    count = len(pool.rows)
    first = torch.zeros(1, 1, dtype=torch.int64).expand(count, 1)
    some = StoredTargets(first, torch.ones(1, 1).expand(count, 1), len(prepared.classes))
    return replace(pool, targets=some)
