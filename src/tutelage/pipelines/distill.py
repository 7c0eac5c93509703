"""`tutelage distill`: a student learns what ready teachers answer, and how much that helped.

Papers: each method's file names its own. Beside the student, a baseline of the same network learns
from the labels alone until it has seen as many images, so that the verdict is about the teacher.
"""

from collections.abc import Set
from dataclasses import replace

from torch import nn

from tutelage.catalog import kind_of, make
from tutelage.deploy.teachers import Teacher, load_teacher
from tutelage.errors import UsageError
from tutelage.jobs import DistillSettings
from tutelage.learner import choose_device, choose_precision
from tutelage.networks.build import parameters, weight_digest
from tutelage.networks.teachers import Ensemble
from tutelage.pipelines.guard import exam_for
from tutelage.pipelines.manifest import has_not_seen
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned
from tutelage.pipelines.prepare import Prepared, check_judged, prepare
from tutelage.pipelines.resolution import with_fix
from tutelage.pipelines.rounds import (
    Round,
    announce,
    pool_for,
    recipe_for,
    reopen_damaged,
    seen_per_label,
    train_once,
    with_init,
)
from tutelage.pipelines.transfer import check_init, open_init
from tutelage.progress import Screen
from tutelage.recipes.make import check_model, resolved_optim
from tutelage.run import Run, write_config


def distill(
    settings: DistillSettings, run: Run, screen: Screen, *, modules: tuple[nn.Module, ...] = ()
) -> None:
    """Check, ask the teachers, train, judge, keep. Finished stages are not repeated.

    `modules` are teachers given as networks, beside those that the settings name. Raises what the
    stages raise.
    """
    _check_early(settings)
    if sum(name.startswith(MODULE) for name in settings.teacher) != len(modules):
        raise UsageError("a teacher was given in Python: call tutelage.distill with it again")
    check_init(settings, settings.student, run)
    device = choose_device(settings.device)

    def allowed(parts: Set[str]) -> None:
        if settings.baseline:
            check_judged(parts, "--no-baseline")

    prepared = prepare(settings, run, device, screen, pool=settings.unlabeled, allowed=allowed)
    teacher = _teacher(settings, run, prepared, modules)
    digest = weight_digest(teacher)
    settings = replace(
        settings,
        optim=resolved_optim(settings, settings.student),
        precision=choose_precision(settings.precision, device),
    )

    settings = open_init(settings, run, prepared, (settings.student,))

    def made(settings: DistillSettings) -> tuple[Round, ...]:
        begun = with_init(_rounds(settings, prepared, digest), settings, run)
        return with_fix(begun, settings, prepared)

    settings = planned(settings, run, prepared, made, teacher=teacher)
    settings = replace(settings, img_size=prepared.size, device=str(device))
    write_config(run, settings)
    rounds = made(settings)
    reopen_damaged(rounds, run, prepared)
    announce(rounds, prepared, run)
    for one in rounds:
        asked = teacher if one.recipe.method.teacher == "frozen" else None
        exam = exam_for(one.recipe, prepared)
        pool = pool_for(one.recipe, prepared)
        train_once(one, run, prepared, pool=pool, teacher=asked, exam=exam)
    conclude(rounds, run, prepared)


def _check_early(settings: DistillSettings) -> None:
    """Raises UsageError for what is wrong before anything is read or trained."""
    check_model(settings.student, settings)
    kind = kind_of(settings.method)
    if kind.teacher != "frozen":
        verb = "selftrain" if kind().unlabeled_views else "train"
        raise UsageError(f"{settings.method} is no distillation: use `tutelage {verb}`")
    method = make(settings.method, settings.options, {"smoothing": settings.smoothing})
    if settings.unlabeled is None and vars(method).get("on") == "pool":
        raise UsageError("--options on=pool learns on a pool: give --unlabeled")
    if settings.unlabeled is not None and vars(method).get("on") == "labels":
        raise UsageError("--options on=labels doesn't look at a pool: leave out --unlabeled")


def _teacher(
    settings: DistillSettings, run: Run, prepared: Prepared, modules: tuple[nn.Module, ...]
) -> nn.Module:
    """One network that answers for all teachers, in the data's classes."""
    names = [name for name in settings.teacher if not name.startswith(MODULE)]
    found: list[Teacher] = []
    givens: list[str | nn.Module] = [*names, *modules]
    for given in givens:
        if isinstance(given, str):
            has_not_seen(given, run, prepared.judge)
        teacher = load_teacher(
            given,
            prepared.classes,
            img_size=prepared.size,
            pixels=prepared.pixels("labeled"),
            labels=prepared.parts["labeled"].label_tensor(),
            device=prepared.device,
        )
        found.append(teacher)
        size = parameters(teacher.module)
        prepared.screen.say(f"  teacher {teacher.name}: {size:,} parameters")
        for note in teacher.notes:
            prepared.screen.say(f"    {note}")
    if len(found) == 1:
        return found[0].module
    return Ensemble([teacher.module for teacher in found], over=settings.over)


MODULE = "module:"  # how a network given in Python stands in the settings, before its digest


def _rounds(settings: DistillSettings, prepared: Prepared, teacher: str) -> tuple[Round, ...]:
    """The baseline, where it is wanted, and the student of the teacher with that digest."""
    usual = {"smoothing": settings.smoothing}
    wanted = [("baseline", make("supervised", (), usual))] if settings.baseline else []
    wanted.append(("student", make(settings.method, settings.options, usual)))
    assert settings.steps != "auto", "plan first"
    ratio = settings.ratio if settings.unlabeled is not None else 0
    by_images = settings.baseline_length == "images"
    length = seen_per_label(wanted[-1][1], ratio) if by_images else 1
    rounds = []
    for number, (kind, method) in enumerate(wanted):
        recipe = recipe_for(
            settings, prepared, model=settings.student, method=method, number=number,
            steps=settings.steps * (length if kind == "baseline" else 1),
            ratio=ratio if method.unlabeled_views else 0,
        )  # fmt: skip
        if method.teacher == "frozen":
            recipe = replace(recipe, teacher=teacher)
        rounds.append(Round(f"{number:02d}-{kind}", recipe))
    return tuple(rounds)
