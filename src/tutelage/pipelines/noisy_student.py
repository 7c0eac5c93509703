"""Noisy Student self-training: rounds of label, select, train, with a file between each two.

Paper: Xie et al. 2020, Self-training with Noisy Student improves ImageNet classification
(arXiv 1911.04252), algorithm 1. Beside the rounds, a baseline learns from the labels alone in as
many steps as a student, so that the verdict is about the pool and not about more training. Where
the first teacher would be the same training as the baseline, the baseline is the first teacher.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tutelage.data import pool as label_table
from tutelage.data.loader import PoolSet
from tutelage.data.pool import PseudoLabels
from tutelage.deploy.model_folder import Model, is_model, load_model
from tutelage.errors import UsageError
from tutelage.labeling.label import label_pool
from tutelage.labeling.select import select
from tutelage.learner import choose_device, choose_precision
from tutelage.methods.method import Method
from tutelage.methods.noisy_student import NoisyStudent
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import check_name
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned_steps
from tutelage.pipelines.prepare import Prepared, canvas_for, contents_of, prepare
from tutelage.pipelines.rounds import Round, announce, recipe_for, resolved_optim, train_once
from tutelage.progress import Screen
from tutelage.run import Run, write_config
from tutelage.settings import Precision, SelftrainSettings
from tutelage.weights import load_weights


@dataclass(frozen=True)
class Rounds:
    """What is trained, in this order."""

    baseline: Round
    teacher: Round | None  # None: the baseline, or a network that was trained before
    students: tuple[Round, ...]

    @property
    def all(self) -> tuple[Round, ...]:
        """Every training."""
        between = () if self.teacher is None else (self.teacher,)
        return (self.baseline, *between, *self.students)


def noisy_student(settings: SelftrainSettings, run: Run, screen: Screen) -> None:
    """Everything from the folders to the verdict, the model and the report.

    Finished stages are not repeated. Raises what the stages raise.
    """
    if settings.test is None and settings.val is None and not settings.val_fraction:
        raise UsageError(
            "no images are left to judge on: give --test or --val, or a --val-fraction above 0"
        )
    taken = _given_teacher(settings)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    prepared = prepare(settings, run, device, screen)
    if taken is not None:
        _fits(taken, prepared.classes, settings.teacher or "")
        _has_not_seen(Path(settings.teacher or ""), run, prepared.judge)
    optim = resolved_optim(settings, settings.student(settings.rounds))
    settings = _resolved(replace(settings, optim=optim), run, prepared, precision, taken)
    write_config(run, settings)
    rounds = _rounds(settings, prepared, precision, taken)
    announce(rounds.all, prepared, run)
    train_once(rounds.baseline, run, prepared)
    if rounds.teacher is not None:
        train_once(rounds.teacher, run, prepared)
    teacher = taken
    before = rounds.teacher or rounds.baseline
    for student in rounds.students:
        if not run.is_done(student.name):
            table = _labels(settings, run, prepared, student, before, teacher)
            train_once(student, run, prepared, pool=_pool_set(settings, prepared, table))
        before, teacher = student, None
    conclude(rounds.all, run, prepared)


def _given_teacher(settings: SelftrainSettings) -> Model | None:
    """A trained teacher where `teacher` is a run or model folder; else check all names.

    Raises UsageError before anything is read or trained.
    """
    for name in {settings.model, *settings.students}:
        check_name(name)
    if settings.teacher is None:
        return None
    path = Path(settings.teacher)
    if path.resolve() != settings.out.resolve() and is_model(path):
        return load_model(path)
    if len(path.parts) > 1:
        raise UsageError(f"--teacher {path}: there is no such run, and no timm network either")
    check_name(settings.teacher)
    return None


def _fits(teacher: Model, classes: tuple[str, ...], name: str) -> None:
    """Raises UsageError where the teacher's classes are not the data's, in this order."""
    if teacher.classes == classes:
        return
    odd = sorted(set(teacher.classes) ^ set(classes)) or ["their order"]
    raise UsageError(
        f"the teacher {name} knows other classes than the data: {', '.join(odd[:5])}; take a "
        "teacher that was trained on the same classes"
    )


def _has_not_seen(teacher: Path, run: Run, judge: str) -> None:
    """Raises UsageError where a teacher's run trained on images that this run judges on."""
    if not (teacher / "data" / "manifest.parquet").exists():
        return  # a model folder alone doesn't say
    seen = contents_of(teacher, ("labeled", "pool")) & contents_of(run.path, (judge,))
    if seen:
        raise UsageError(
            f"the teacher {teacher} was trained on {len(seen)} of the images that would judge it: "
            "give --test images that no run has seen, or the same --seed and --val-fraction"
        )


def _resolved(
    settings: SelftrainSettings,
    run: Run,
    prepared: Prepared,
    precision: Precision,
    taken: Model | None,
) -> SelftrainSettings:
    """The settings with every 'auto' replaced."""

    def rounds(steps: int) -> tuple[Round, ...]:
        planned = replace(settings, budget=None, steps=steps)
        return _rounds(planned, prepared, precision, taken).all

    return replace(
        settings,
        steps=planned_steps(settings, run, prepared, rounds),
        budget=None,
        img_size=prepared.size,
        device=str(prepared.device),
        precision=precision,
        students=tuple(settings.student(k) for k in range(1, settings.rounds + 1)),
    )


def _rounds(
    settings: SelftrainSettings, prepared: Prepared, precision: Precision, taken: Model | None
) -> Rounds:
    """Names and recipes of all trainings."""
    steps = settings.steps
    assert steps != "auto", "plan first"
    alone = Supervised(smoothing=settings.smoothing)
    taught = NoisyStudent(
        smoothing=settings.smoothing,
        hard=settings.labels == "hard",
        weight=settings.weight,
        normalize=settings.normalize,
    )
    last, first = settings.student(settings.rounds), settings.teacher or settings.model
    apart = first != last and taken is None
    wanted: list[tuple[str, str, Method]] = [("baseline", last, alone)]
    wanted += [("teacher", first, alone)] if apart else []
    wanted += [("student", settings.student(k + 1), taught) for k in range(settings.rounds)]
    made = []
    for number, (kind, model, method) in enumerate(wanted):
        ratio = settings.ratio if kind == "student" else 0
        recipe = recipe_for(
            settings, prepared, model=model, method=method, number=number, steps=steps,
            precision=precision, ratio=ratio,
        )  # fmt: skip
        made.append(Round(f"{number:02d}-{kind}", recipe))
    return Rounds(made[0], made[1] if apart else None, tuple(made[1 + apart :]))


def _labels(
    settings: SelftrainSettings, run: Run, prepared: Prepared, student: Round, before: Round,
    given: Model | None,
) -> PseudoLabels:  # fmt: skip
    """The table that a student learns from: the teacher's labels, selected."""
    stage = student.labels_stage
    path = run.path / "labels" / f"{student.name}.parquet"
    if run.is_done(stage):
        return label_table.load(path)
    with run.stage(stage) as notes:
        teacher, size = _teacher(run, prepared, before, given)
        names = prepared.parts["pool"].names
        pixels = prepared.pixels("pool", canvas_for(size))
        with prepared.screen.bar(f"label with {before.name}", len(names)) as bar:
            table = label_pool(
                teacher, pixels, names, prepared.classes, run.path / "labels" / student.name,
                size=size, precision=student.recipe.precision, advance=bar.advance,
            )  # fmt: skip
        prepared.forget("pool", unless=prepared.size)
        table = select(table, settings.select)
        label_table.save(path, table)
        kept = len(table.rows())
        notes["teacher"] = before.name if given is None else settings.teacher
        notes["kept"] = kept
    prepared.screen.say(
        f"  {stage}: {kept:,} of {len(names):,} pool images kept, mean confidence "
        f"{float(table.confidence.mean()):.2f}"
    )
    return table


def _teacher(
    run: Run, prepared: Prepared, before: Round, given: Model | None
) -> tuple[nn.Module, int]:
    """The teacher's network in eval mode, and its image size."""
    if given is not None:
        return given.module.to(prepared.device), given.net.img_size
    weights = run.path / "rounds" / before.name / "model.safetensors"
    net = before.recipe.net
    return load_weights(weights, net, prepared.device), net.img_size


def _pool_set(settings: SelftrainSettings, prepared: Prepared, table: PseudoLabels) -> PoolSet:
    """The selected pool images with their targets."""
    assert table.copies is not None, "selected above"
    rows = table.rows()
    targets = table.targets(soft=settings.labels == "soft", temperature=settings.temperature)
    return PoolSet(
        prepared.pixels("pool"),
        rows,
        table.copies[rows],
        targets,
    )
