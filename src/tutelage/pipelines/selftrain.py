"""`tutelage selftrain`: a baseline on the labels, rounds that learn from the pool, and a verdict.

Paper: Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification
(arXiv 1911.04252), algorithm 1, for the rounds of label, select and train; any other method that
learns from a pool may take a round, and Noisy Student may follow it. Beside the rounds, a baseline
learns from the labels alone in as many steps as a student, so that the verdict is about the pool
and not about more training. Where the first teacher would be the same training as the baseline,
the baseline is the first teacher.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tutelage.deploy.model_folder import load_model
from tutelage.deploy.teacher_check import folder_of, run_of
from tutelage.deploy.teachers import Teacher, load_teacher
from tutelage.errors import GivenUp, UsageError
from tutelage.jobs import SelftrainSettings
from tutelage.learner import choose_device, choose_precision
from tutelage.networks.build import check_name
from tutelage.pipelines.choose import choose_method
from tutelage.pipelines.guard import check_against, exam_for, give_up, sound, watch
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned_steps
from tutelage.pipelines.pool_labels import stored_pool
from tutelage.pipelines.prepare import Prepared, contents_of, prepare
from tutelage.pipelines.rounds import Round, announce, pool_for, resolved_optim, train_once
from tutelage.pipelines.selftrain_rounds import check_methods, selftrain_rounds
from tutelage.progress import Screen
from tutelage.run import Run, write_config


def selftrain(settings: SelftrainSettings, run: Run, screen: Screen) -> None:
    """Everything from the folders to the verdict, the model and the report.

    Finished stages are not repeated. Raises what the stages raise.
    """
    _check_early(settings)
    device = choose_device(settings.device)
    prepared = prepare(
        settings, run, device, screen, pool=settings.unlabeled, pool_share=settings.pool_share
    )
    taken = _given_teacher(settings, run, prepared)
    settings = choose_method(settings, run, prepared)
    settings = replace(
        settings,
        optim=resolved_optim(settings, settings.student(settings.num_rounds)),
        precision=choose_precision(settings.precision, device),
    )
    settings = _resolved(settings, run, prepared, taken)
    write_config(run, settings)
    rounds = selftrain_rounds(settings, prepared, taken)
    announce(rounds, prepared, run)
    _train_all(rounds, settings, run, prepared, taken)
    conclude(sound(rounds, run), run, prepared)


def _train_all(
    rounds: Sequence[Round], settings: SelftrainSettings, run: Run, prepared: Prepared,
    taken: Teacher | None,
) -> None:  # fmt: skip
    """Every round, until one leads nowhere."""
    baseline, *others = rounds
    train_once(baseline, run, prepared, exam=exam_for(baseline.recipe, prepared))
    watched = watch(prepared, run, baseline, seed=settings.seed)
    for one in others:
        if run.is_done("guard") or run.is_done("evaluate"):
            return
        try:
            if not run.is_done(one.name):
                pool = pool_for(one.recipe, prepared)
                if one.recipe.method.stored:
                    pool = stored_pool(settings, run, prepared, one, taken)
                exam = exam_for(one.recipe, prepared, watched)
                train_once(one, run, prepared, pool=pool, exam=exam)
            if one.judged:  # also where a kill came between the training and this
                check_against(baseline, one, run, prepared)
        except GivenUp as reason:
            give_up(run, prepared, rounds, one, reason)


def _check_early(settings: SelftrainSettings) -> None:
    """Raises UsageError for what is wrong before anything is read or trained."""
    if settings.test is None and settings.val is None and not settings.val_fraction:
        raise UsageError(
            "no images are left to judge on: give --test or --val, or a --val-fraction above 0"
        )
    for name in {settings.model, *settings.students}:
        check_name(name)
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
        raise UsageError(f"--teacher {path}: there is no such run, and no timm network either")
    check_name(settings.teacher)


def _is_given(settings: SelftrainSettings) -> bool:
    """Whether the teacher is trained already: a run, a model folder, NAME=FILE, hf-hub:…"""
    name = settings.teacher
    if name is None:
        return False
    folder = folder_of(Path(name))
    ready = folder is not None and run_of(folder) != settings.out.absolute()
    return ready or "=" in name or name.startswith("hf-hub:")


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


def has_not_seen(teacher: str, run: Run, judge: str) -> None:
    """Raises UsageError where a teacher's run trained on images that this run judges on."""
    folder = folder_of(Path(teacher))
    trained = None if folder is None else run_of(folder)
    if trained is None or not (trained / "data" / "manifest.parquet").exists():
        return  # a model folder alone doesn't say
    seen = contents_of(trained, ("labeled", "pool")) & contents_of(run.path, (judge,))
    if seen:
        raise UsageError(
            f"the teacher {teacher} was trained on {len(seen)} of the images that would judge it: "
            "give --test images that no run has seen, or the same --seed and --val-fraction"
        )


def _resolved(
    settings: SelftrainSettings, run: Run, prepared: Prepared, taken: Teacher | None
) -> SelftrainSettings:
    """The settings with every 'auto' replaced."""

    def rounds(steps: int) -> tuple[Round, ...]:
        planned = replace(settings, budget=None, steps=steps)
        return selftrain_rounds(planned, prepared, taken)

    return replace(
        settings,
        steps=planned_steps(settings, run, prepared, rounds),
        budget=None,
        img_size=prepared.size,
        device=str(prepared.device),
        rounds=settings.num_rounds,
        students=tuple(settings.student(k) for k in range(1, settings.num_rounds + 1)),
    )
