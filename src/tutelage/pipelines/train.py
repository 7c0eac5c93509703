"""`tutelage train`: one round on the labels, and on a pool where the method learns from one."""

from dataclasses import replace

from tutelage.catalog import kind_of, make
from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.learner import choose_device, choose_precision
from tutelage.methods.method import Method
from tutelage.networks.build import check_name
from tutelage.pipelines.guard import exam_for, watch
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned_steps
from tutelage.pipelines.prepare import prepare
from tutelage.pipelines.rounds import (
    Round,
    announce,
    pool_for,
    recipe_for,
    resolved_optim,
    train_once,
)
from tutelage.progress import Screen
from tutelage.run import Run, write_config


def train(settings: TrainSettings, run: Run, screen: Screen) -> None:
    """Check, train, judge, keep. Finished stages are not repeated; raises what they raise."""
    check_name(settings.model)
    method = _method(settings)
    device = choose_device(settings.device)
    prepared = prepare(settings, run, device, screen, pool=settings.unlabeled)
    settings = replace(
        settings,
        optim=resolved_optim(settings, settings.model),
        precision=choose_precision(settings.precision, device),
    )

    def rounds(steps: int) -> tuple[Round, ...]:
        ratio = settings.ratio if method.unlabeled_views else 0
        recipe = recipe_for(
            settings, prepared, model=settings.model, method=method, number=0, steps=steps,
            ratio=ratio,
        )  # fmt: skip
        return (Round(f"00-{settings.method}", recipe),)

    steps = planned_steps(settings, run, prepared, rounds)
    resolved = replace(
        settings, steps=steps, budget=None, img_size=prepared.size, device=str(device)
    )
    write_config(run, resolved)
    announce(rounds(steps), prepared, run)
    only = rounds(steps)[0]
    watched = watch(prepared, run, None, seed=settings.seed)
    exam = exam_for(only.recipe, prepared, watched)
    train_once(only, run, prepared, pool=pool_for(only.recipe, prepared), exam=exam)
    conclude((only,), run, prepared)


def _method(settings: TrainSettings) -> Method:
    """The method as asked; raises UsageError where it needs what this verb can't give."""
    kind = kind_of(settings.method)
    verb = "distill" if kind.teacher == "frozen" else "selftrain"
    if kind.teacher != "none" or kind.stored:
        raise UsageError(f"{settings.method} needs a teacher: use `tutelage {verb}`")
    usual: dict[str, object] = {"smoothing": settings.smoothing}
    if settings.views != "auto":
        usual["labeled_view"] = settings.views
    method = make(settings.method, settings.options, usual)
    if method.unlabeled_views and settings.unlabeled is None:
        raise UsageError(f"{settings.method} learns from a pool: give --unlabeled")
    if settings.unlabeled is not None and not method.unlabeled_views:
        raise UsageError(
            f"{settings.method} doesn't look at a pool: leave out --unlabeled, or choose another "
            "--method; `tutelage methods` lists them"
        )
    return method
