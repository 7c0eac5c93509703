"""`tutelage selftrain`: a baseline on the labels, rounds that learn from the pool, and a verdict.

Paper: Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification
(arXiv 1911.04252), algorithm 1, for the rounds of label, select and train; any other method that
learns from a pool may take a round, and Noisy Student may follow it. Beside the rounds, a baseline
learns from the labels alone until it has seen as many images, so that the verdict is about the pool
and not about more training; students begin as it was halfway (halfway.py). Where the first teacher
would be the same training as the baseline, the baseline is the first teacher.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tutelage.data import storage
from tutelage.deploy.model_folder import folder_of, load_model, run_of
from tutelage.deploy.teacher_sources import HUB
from tutelage.deploy.teachers import Teacher, load_teacher
from tutelage.errors import GivenUp, UsageError
from tutelage.jobs import SelftrainSettings
from tutelage.learner import choose_device, choose_precision
from tutelage.pipelines.choose import choose_method
from tutelage.pipelines.guard import check_against, exam_for, give_up, sound, watch
from tutelage.pipelines.manifest import has_not_seen
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import LONG, planned
from tutelage.pipelines.pool_labels import stored_pool
from tutelage.pipelines.prepare import Prepared, check_judged, prepare
from tutelage.pipelines.resolution import with_fix
from tutelage.pipelines.rounds import (
    Round,
    announce,
    pool_for,
    reopen_damaged,
    train_once,
    with_init,
)
from tutelage.pipelines.selftrain_rounds import check_methods, selftrain_rounds
from tutelage.pipelines.transfer import check_init, open_init
from tutelage.progress import Screen
from tutelage.recipes.make import check_model, resolved_optim
from tutelage.run import Run, write_config
from tutelage.settings import Optim

LEARNED_OUT = 200  # views of each labeled image; between 58 and 87, where the pool cost 9 and 7
# points in the same time, and 490, where it cost none (docs/results.md)


def selftrain(settings: SelftrainSettings, run: Run, screen: Screen) -> None:
    """Everything from the folders to the verdict, the model and the report.

    Finished stages are not repeated. Raises what the stages raise.
    """
    _check_early(settings)
    check_init(settings, settings.model, run)
    device = choose_device(settings.device)
    prepared = prepare(
        settings, run, device, screen, pool=settings.unlabeled, pool_share=settings.pool_share,
        allowed=check_judged,
    )  # fmt: skip
    taken = _given_teacher(settings, run, prepared)
    settings = choose_method(settings, run, prepared)
    settings = replace(
        settings,
        optim=_shared_optim(settings, _models(settings, prepared, taken)),
        precision=choose_precision(settings.precision, device),
    )
    settings = open_init(settings, run, prepared, _models(settings, prepared, taken))
    settings = _planned(settings, run, prepared, taken)
    write_config(run, settings)
    rounds = _rounds(settings, run, prepared, taken)
    reopen_damaged(sound(rounds, run), run, prepared)
    announce(rounds, prepared, run)
    _say_where_labels_are_new(rounds[0], prepared)
    _train_all(rounds, settings, run, prepared, taken)
    conclude(sound(rounds, run), run, prepared)


def _say_where_labels_are_new(baseline: Round, prepared: Prepared) -> None:
    """Say where a baseline with new weights sees each label too seldom to have learned it."""
    recipe = baseline.recipe
    views = recipe.steps * recipe.batch / len(prepared.parts["labeled"])
    if baseline.init is None and views < LEARNED_OUT:
        prepared.screen.say(
            f"  note: {baseline.name} sees each labeled image about {max(views, 1):.0f} times, too "
            "few to learn all that it can from them; in so little time the labels alone (`tutelage "
            "train`) may be better than with the pool (docs/which-method.md)"
        )


def _train_all(
    rounds: Sequence[Round], settings: SelftrainSettings, run: Run, prepared: Prepared,
    taken: Teacher | None,
) -> None:  # fmt: skip
    """Every round, until one leads nowhere; where one did before, those that passed, of which one
    that was damaged is made again."""
    baseline, *others = sound(rounds, run)
    train_once(baseline, run, prepared, exam=exam_for(baseline.recipe, prepared))
    watched = None
    for one in others:
        if run.is_done("evaluate"):  # the rounds' own files may be gone
            return
        try:
            if not run.is_done(one.name):
                watched = watched or watch(prepared, run, baseline, seed=settings.seed)
                pool = pool_for(one.recipe, prepared)
                if one.recipe.method.stored:
                    pool = stored_pool(settings, run, prepared, one, taken)
                exam = exam_for(one.recipe, prepared, None if one.fixes else watched)
                train_once(one, run, prepared, pool=pool, exam=exam)
            if one.judged and not run.is_done("guard"):  # also after a kill between the two
                check_against(baseline, one, run, prepared)
        except GivenUp as reason:
            give_up(run, prepared, rounds, one, reason)
            return


def _check_early(settings: SelftrainSettings) -> None:
    """Raises UsageError for what is wrong before anything is read or trained."""
    for name in {settings.model, *settings.students}:
        check_model(name, settings)
    check_methods(settings)
    if settings.teacher is None:
        return
    path = Path(settings.teacher)
    if _is_given(settings):
        folder = folder_of(path)
        if folder is not None:
            load_model(folder)
        return
    if len(path.parts) > 1:
        near = storage.nearby(str(path))
        raise UsageError(
            f"--teacher {path}: there is no such run, and no timm network either{near}"
        )
    check_model(settings.teacher, settings)


def _is_given(settings: SelftrainSettings) -> bool:
    """Whether the teacher is trained already: a run, a model folder, NAME=FILE, or on the hub."""
    name = settings.teacher
    if name is None:
        return False
    folder = folder_of(Path(name))
    ready = folder is not None and run_of(folder) != settings.out.absolute()
    return ready or "=" in name or name.startswith(HUB)


def _given_teacher(settings: SelftrainSettings, run: Run, prepared: Prepared) -> Teacher | None:
    """The trained teacher, answering in the data's classes; None where one is to be trained."""
    if not _is_given(settings):
        return None
    name = settings.teacher or ""
    has_not_seen(name, run, prepared.judge)
    teacher = load_teacher(
        name,
        prepared.classes,
        img_size=prepared.size,
        pixels=prepared.pixels("labeled"),
        labels=prepared.parts["labeled"].label_tensor(),
        device=prepared.device,
    )
    for note in teacher.notes:
        prepared.screen.say(f"  teacher {name}: {note}")
    return teacher


def _models(
    settings: SelftrainSettings, prepared: Prepared, taken: Teacher | None
) -> tuple[str, ...]:
    """Names of all networks that are trained."""
    rounds = selftrain_rounds(replace(settings, budget=None, steps=LONG), prepared, taken)
    return tuple(one.recipe.net.name for one in rounds)


def _shared_optim(settings: SelftrainSettings, models: Sequence[str]) -> Optim:
    """The optimizer without 'auto' that suits all networks; where they differ in it, as it was
    asked, and each recipe takes its own."""
    suited = {resolved_optim(settings, model) for model in models}
    return suited.pop() if len(suited) == 1 else settings.optim


def _rounds(
    settings: SelftrainSettings, run: Run, prepared: Prepared, taken: Teacher | None
) -> tuple[Round, ...]:
    """All trainings, with what they begin with, and the fix for larger images where it is asked."""
    rounds = selftrain_rounds(settings, prepared, taken)
    return with_fix(with_init(rounds, settings, run), settings, prepared)


def _planned(
    settings: SelftrainSettings, run: Run, prepared: Prepared, taken: Teacher | None
) -> SelftrainSettings:
    """The settings with every 'auto' replaced."""
    ready = taken is not None or settings.begins_as is not None or settings.fix_size is not None
    settings = planned(
        settings, run, prepared, lambda asked: _rounds(asked, run, prepared, taken),
        resizable=not ready,
    )  # fmt: skip
    return replace(
        settings,
        img_size=prepared.size,
        device=str(prepared.device),
        rounds=settings.num_rounds,
        students=tuple(settings.student(k) for k in range(1, settings.num_rounds + 1)),
    )
