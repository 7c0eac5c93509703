"""`tutelage train`: one round on the labels, and on a pool where the method learns from one."""

from dataclasses import replace

from tutelage.catalog import kind_of, make
from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.learner import choose_device, choose_precision
from tutelage.methods.method import Method
from tutelage.networks.freeze import Freeze, check_freeze
from tutelage.pipelines.guard import exam_for, watch
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned
from tutelage.pipelines.prepare import Prepared, prepare
from tutelage.pipelines.resolution import with_fix
from tutelage.pipelines.rounds import (
    Round,
    announce,
    pool_for,
    recipe_for,
    reopen_damaged,
    train_once,
    with_init,
)
from tutelage.pipelines.sharded import open_sharded, source_of
from tutelage.pipelines.transfer import check_init, open_init
from tutelage.progress import Screen
from tutelage.recipes.make import check_model, resolved_optim
from tutelage.run import Run, write_config
from tutelage.settings import changed

STEM = 2  # groups that frozen-stem keeps: the stem and the first stage


def train(settings: TrainSettings, run: Run, screen: Screen) -> None:
    """Check, train, judge, keep. Finished stages are not repeated; raises what they raise."""
    check_model(settings.model, settings)
    settings = replace(settings, method=settings.trained_by)
    method = method_of(settings)
    check_freeze(settings.model, _freeze(settings))
    source = None if settings.labels is None else source_of(settings, method)
    check_init(settings, settings.model, run)
    device = choose_device(settings.device)
    listed = settings.unlabeled if source is None else None
    prepared = prepare(settings, run, device, screen, pool=listed)
    if source is not None:
        prepared.sharded = open_sharded(settings, source, run, prepared)
    optim = resolved_optim(settings, settings.model)
    precision = choose_precision(settings.precision, device)
    settings = replace(settings, optim=optim, precision=precision)
    settings = open_init(settings, run, prepared, (settings.model,))

    def made(settings: TrainSettings) -> tuple[Round, ...]:
        first = with_init(train_rounds(settings, prepared, method), settings, run)
        return with_fix(first, settings, prepared)

    new = settings.begins_as is None and settings.fix_size is None
    settings = planned(settings, run, prepared, made, resizable=new)
    settings = replace(settings, img_size=prepared.size, device=str(device))
    write_config(run, settings)
    rounds = made(settings)
    reopen_damaged(rounds, run, prepared)
    announce(rounds, prepared, run)
    watched = watch(prepared, run, None, seed=settings.seed)
    for one in rounds:
        exam = exam_for(one.recipe, prepared, None if one.fixes else watched)
        train_once(one, run, prepared, pool=pool_for(one.recipe, prepared), exam=exam)
    conclude(rounds, run, prepared)


def train_rounds(settings: TrainSettings, prepared: Prepared, method: Method) -> tuple[Round, ...]:
    """The training."""
    assert settings.steps != "auto", "plan first"
    recipe = recipe_for(
        settings, prepared, model=settings.model, method=method, number=0, steps=settings.steps,
        ratio=settings.ratio if method.unlabeled_views else 0,
    )  # fmt: skip
    return (Round(f"00-{settings.method}", replace(recipe, freeze=_freeze(settings))),)


def _usual(settings: TrainSettings) -> dict[str, object]:
    """The settings that reach a method's fields."""
    views = {} if settings.views == "auto" else {"labeled_view": settings.views}
    return {"smoothing": settings.smoothing, **views}


def _freeze(settings: TrainSettings) -> Freeze:
    """What stays as it was."""
    norms = settings.keeps_norms
    if settings.transfer == "probe":
        return Freeze(part="body", norms=norms)
    if settings.transfer == "frozen-stem":
        groups = STEM if settings.freeze == "auto" else settings.freeze
        return Freeze(part="stem", groups=groups, norms=norms)
    return Freeze(norms=norms)


def method_of(settings: TrainSettings) -> Method:
    """The method as asked; raises UsageError where it needs what this verb can't give."""
    kind = kind_of(settings.method)
    verb = "distill" if kind.teacher == "frozen" else "selftrain"
    if kind.teacher != "none":
        raise UsageError(f"{settings.method} needs a teacher: use `tutelage {verb}`")
    if kind.stored and settings.labels is None:
        raise UsageError(
            f"{settings.method} needs a teacher: use `tutelage {verb}`, or give the --labels that "
            "one wrote for the pool"
        )
    hard = {"hard": True} if settings.pool_targets == "hard" else {}
    method = make(settings.method, settings.options, _usual(settings) | hard)
    if "smoothing" in changed(settings, ["smoothing"]) and "smoothing" not in vars(method):
        raise UsageError(f"--smoothing: {settings.method} smooths no labels: leave it out")
    if method.unlabeled_views and settings.unlabeled is None:
        raise UsageError(f"{settings.method} learns from a pool: give --unlabeled")
    if settings.unlabeled is not None and not method.unlabeled_views:
        raise UsageError(
            f"{settings.method} doesn't look at a pool: leave out --unlabeled, or choose another "
            "--method; `tutelage methods` lists them"
        )
    return method
