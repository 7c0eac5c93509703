"""One training of a pipeline: from the settings to a recipe, its folder, and its network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tutelage.core import Dice, Stage, fold
from tutelage.data.loader import Batches, PoolSet
from tutelage.data.pool import StoredTargets
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.loop import Exam, fit
from tutelage.methods.method import Method
from tutelage.networks.build import Net, check_net, has_batch_norm, takes
from tutelage.pipelines.prepare import Prepared
from tutelage.progress import duration
from tutelage.recipe import Recipe
from tutelage.run import Run
from tutelage.settings import Auto, Common, Optim

DROPOUT, DROP_PATH = 0.1, 0.05  # docs/results.md: 59.4 % with them, 57.1 % without


@dataclass(frozen=True)
class Round:
    """One training: its folder's name, and the recipe with the steps still to be planned."""

    name: str  # such as 01-student; also the stage's name in run.json
    recipe: Recipe

    @property
    def labels_stage(self) -> str:
        """The stage that labels the pool for this student, such as 01-labels."""
        return self.name.replace("student", "labels")


def _rate(given: float | Auto, usual: float, model: str, option: str) -> float:
    """The rate as given, or the usual one where the network can take it."""
    if given != "auto":
        return given
    return usual if takes(model, option) else 0.0


def recipe_for(
    settings: Common, prepared: Prepared, *, model: str, method: Method, number: int, steps: int,
    precision: str, ratio: int = 0,
) -> Recipe:  # fmt: skip
    """The recipe of round `number`; each round has random numbers of its own."""
    noise, size = settings.noise, prepared.size
    net = Net(
        name=model,
        num_classes=len(prepared.classes),
        img_size=size,
        pretrained=settings.pretrained,
        small_stem=settings.stem == "auto",
        dropout=_rate(noise.dropout, DROPOUT, model, "drop_rate"),
        drop_path=_rate(noise.drop_path, DROP_PATH, model, "drop_path_rate"),
    )
    check_net(net)
    stage = Stage(steps=steps, size=size, magnitude=noise.magnitude, cutout=noise.cutout)
    return Recipe(
        net=net,
        method=method,
        stages=(stage,),
        optim=settings.optim,
        noise=noise,
        batch=settings.batch,
        ratio=ratio,
        seed=fold(settings.seed, Dice.ROUND, number),
        precision=precision,
    )


def resolved_optim(settings: Common, model: str) -> Optim:
    """The run's optimizer without 'auto', as suits its last network."""
    return settings.optim.resolved(batch_norm=has_batch_norm(model), pretrained=settings.pretrained)


def batches_of(recipe: Recipe, prepared: Prepared, pool: PoolSet | None = None) -> Batches:
    """The recipe's batches of the prepared images."""
    return Batches(
        prepared.labeled_set(),
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
    for one in rounds:
        recipe = one.recipe
        images = recipe.batch * (1 + recipe.ratio)
        line = (
            f"  {one.name:<12} {recipe.net.name}, {recipe.steps:,} steps of {images} images at "
            f"{prepared.size} px on {prepared.device}"
        )
        if one.name in planned:
            line += f", about {duration(planned[one.name] * recipe.steps)}"
        prepared.screen.say(line + (" (done)" if run.is_done(one.name) else ""))


def train_once(one: Round, run: Run, prepared: Prepared, *, pool: PoolSet | None = None) -> None:
    """One training, unless it is done."""
    if run.is_done(one.name):
        return
    with run.stage(one.name):
        train_round(one.recipe, prepared, run.path / "rounds" / one.name, pool=pool)
    prepared.screen.say(f"  {one.name} done in {duration(run.notes(one.name)['seconds'])}")


def train_round(
    recipe: Recipe, prepared: Prepared, out: Path, *, pool: PoolSet | None = None
) -> nn.Module:
    """Train in `out`, watching the validation images where there are any."""
    return fit(
        recipe,
        batches_of(recipe, prepared, pool),
        out,
        device=prepared.device,
        exam=validation_exam(prepared, recipe),
        screen=prepared.screen,
    )


def validation_exam(prepared: Prepared, recipe: Recipe) -> Exam | None:
    """Accuracy on the validation images, which no training sees; None without them."""
    if "val" not in prepared.parts:
        return None
    pixels, labels = prepared.pixels("val"), prepared.parts["val"].label_tensor()
    size, precision = recipe.net.img_size, recipe.precision

    def exam(module: nn.Module) -> float:
        return accuracy(predict(module, pixels, size, precision=precision), labels).value

    return exam


def example_pool(prepared: Prepared) -> PoolSet:
    """The whole pool with some targets: the right shapes to measure a step's time with."""
    count = len(prepared.parts["pool"])
    first = torch.zeros(1, 1, dtype=torch.int64).expand(count, 1)
    return PoolSet(
        prepared.pixels("pool"),
        torch.arange(count),
        torch.ones(count, dtype=torch.int64),
        StoredTargets(first, torch.ones(1, 1).expand(count, 1), len(prepared.classes)),
    )
