"""Which trainings a self-training run consists of: names, methods, networks, and who teaches whom.

A method declares what it needs, and this file obeys: labels that are written down before, a
teacher that learns and is warmed up before, a student that is fine-tuned on the labels afterwards.
The parts of a round share its steps.
"""

from dataclasses import dataclass, field, fields, replace

from tutelage.catalog import kind_of, make
from tutelage.deploy.teachers import Teacher
from tutelage.errors import UsageError
from tutelage.jobs import SelftrainSettings
from tutelage.methods.method import Method
from tutelage.pipelines.prepare import Prepared
from tutelage.pipelines.rounds import Round, recipe_for, seen_per_label, share_of
from tutelage.recipes.make import resolved_optim
from tutelage.settings import Optim, Progressive
from tutelage.training_settings import NOISY_STUDENT
from tutelage.values import nearest

WARM_UP, FINE_TUNE = 0.25, 0.05  # shares of a round's steps, where a method needs them
FINE_TUNE_RATE = (
    0.01  # of the peak learning rate; Meta Pseudo Labels' official one is smaller still
)
WARM_UP_METHOD = "uda"  # phase 0 of Meta Pseudo Labels: the teacher learns by UDA


def check_methods(settings: SelftrainSettings) -> None:
    """Raises UsageError where a method or an option of one can't be used here."""
    _check_begin(settings)
    if "auto" in settings.method:
        if settings.options:
            raise UsageError("--options belong to a method: name one with --method")
        return
    for name in settings.method:
        kind = kind_of(name)
        if kind.teacher == "frozen":
            raise UsageError(f"{name} learns from a ready teacher: use `tutelage distill`")
        if not kind().unlabeled_views:
            raise UsageError(f"{name} doesn't look at a pool: use `tutelage train`")
    if settings.teacher is not None and not _asks_teacher(settings):
        raise UsageError(f"{settings.method[0]} teaches itself: leave out --teacher")
    for name in settings.method:
        make(name, _options_of(name, settings))


def _check_begin(settings: SelftrainSettings) -> None:
    """Raises UsageError where students can't begin as is asked for."""
    why = _why_not_halfway(settings)
    if settings.student_init == "baseline" and why:
        raise UsageError(f"--student-init baseline: {why}; leave it out")
    drawn = settings.begins_as is not None and settings.wise not in ("auto", 1)
    if drawn and settings.student_init in ("baseline", "teacher"):
        raise UsageError(
            f"--wise {settings.wise:g} draws networks towards the given weights, and a student "
            f"that begins as its {settings.student_init} does not begin with them: leave out "
            "--wise or --student-init"
        )


def _asks_teacher(settings: SelftrainSettings) -> bool:
    """Whether the first round begins with a teacher that is trained before."""
    return kind_of(settings.method_of(1)).stored or settings.student_init == "teacher"


def _options_of(name: str, settings: SelftrainSettings) -> tuple[str, ...]:
    """The options that a method has; raises UsageError for one that no method of the run has."""
    fields_of = {n: {f.name for f in fields(kind_of(n))} for n in settings.method}
    for option in settings.options:
        key = option.partition("=")[0]
        known = set().union(*fields_of.values())
        if key not in known:
            raise UsageError(
                f"--options {option}: there is no such option of {' or '.join(settings.method)}"
                f"{nearest(key, known) or ';'} see `tutelage methods`"
            )
    return tuple(o for o in settings.options if o.partition("=")[0] in fields_of[name])


@dataclass
class Rounds:
    """Rounds in the making; each gets its number and its random numbers from its place."""

    settings: SelftrainSettings
    prepared: Prepared
    made: list[Round] = field(default_factory=list)

    def add(
        self, kind: str, model: str, method: Method, *, share: float = 1.0,
        teacher: str | None = None, start: str | None = None, optim: Optim | None = None,
        halfway: bool = False,
    ) -> str:  # fmt: skip
        """One more training; returns its name."""
        number, steps = len(self.made), self.settings.steps
        assert steps != "auto", "plan first"
        settings = self.settings
        if optim is not None:  # fine-tuning goes on where the other training ended
            settings = replace(settings, progressive=Progressive())
        recipe = recipe_for(
            settings, self.prepared, model=model, method=method, number=number,
            steps=share_of(steps, share), ratio=settings.ratio if method.unlabeled_views else 0,
        )  # fmt: skip
        recipe = recipe if optim is None else replace(recipe, optim=optim)
        name = f"{number:02d}-{kind}"
        self.made.append(Round(name, recipe, teacher=teacher, start=start, halfway=halfway))
        return name

    def fine_tune(self, model: str, start: str, share: float) -> str:
        """A student's last steps, on the labels alone: small rate, weak views."""
        optim = resolved_optim(self.settings, model)
        assert optim.lr != "auto", "resolved"
        slow = replace(optim, lr=FINE_TUNE_RATE * optim.lr, warmup=0.0)
        method = make("supervised", (), {"labeled_view": "weak", "smoothing": 0.0})
        return self.add("finetune", model, method, share=share, start=start, optim=slow)


def selftrain_rounds(
    settings: SelftrainSettings, prepared: Prepared, taken: Teacher | None
) -> tuple[Round, ...]:
    """All trainings in order: the baseline, a first teacher where it is another, the students."""
    rounds = Rounds(settings, prepared)
    alone = make("supervised", (), {"smoothing": settings.smoothing})
    last, length = settings.student(settings.num_rounds), _baseline_share(settings)
    baseline = rounds.add("baseline", last, alone, share=length)
    before = None if taken is not None else baseline
    first = settings.teacher or settings.model
    if taken is None and first != last and _asks_teacher(settings):
        before = rounds.add("teacher", first, alone, share=length)
    ends = []
    for number in range(1, settings.num_rounds + 1):
        before = _student(rounds, settings, number, before)
        ends.append(before)
    kept = [one.start for one in rounds.made if one.halfway]
    return tuple(
        replace(
            one, judged=one.name in ends,
            recipe=replace(one.recipe, keep_middle=one.name in kept),
        )
        for one in rounds.made
    )  # fmt: skip


def _baseline_share(settings: SelftrainSettings) -> float:
    """Steps of the baseline over those of a student."""
    if settings.baseline_length == "steps":
        return 1.0
    name = settings.method_of(1)
    first = make(name, _options_of(name, settings), _usual(name, settings))
    seen = seen_per_label(first, settings.ratio)
    return 2 * seen if _begin_halfway(settings) else seen  # half of it lies before the student


def _student(rounds: Rounds, settings: SelftrainSettings, number: int, before: str | None) -> str:
    """The trainings of one round; returns the name of the last."""
    model, name = settings.student(number), settings.method_of(number)
    method = make(name, _options_of(name, settings), _usual(name, settings))
    apart = name == NOISY_STUDENT and settings.order == "pretrain"
    tuned = FINE_TUNE if method.finetuned else 0.5 if apart else 0.0
    warm = WARM_UP if method.teacher == "trained" and not method.stored else 0.0
    teacher = before if method.stored else None
    if warm:
        first = make(WARM_UP_METHOD, (), {"smoothing": settings.smoothing})
        teacher = rounds.add("warmup", model, first, share=warm)
    start = before if _starts_as_teacher(rounds, settings, model, before) else None
    halfway = _begin_halfway(settings)
    made = rounds.add(
        "student", model, method, share=1 - warm - tuned, teacher=teacher,
        start=rounds.made[0].name if halfway else start, halfway=halfway,
    )  # fmt: skip
    if apart:
        strong = make("supervised", (), {"smoothing": settings.smoothing})
        return rounds.add("finetune", model, strong, share=tuned, start=made)
    return rounds.fine_tune(model, made, tuned) if tuned else made


def _begin_halfway(settings: SelftrainSettings) -> bool:
    """Whether all students begin as the baseline was halfway."""
    if settings.student_init != "auto":
        return settings.student_init == "baseline"
    usual = settings.baseline_length == "images" and settings.order == "joint"
    return usual and settings.begins_as is None and not _why_not_halfway(settings)


def _why_not_halfway(settings: SelftrainSettings) -> str:
    """What keeps students from beginning as the baseline was halfway; "" where nothing does."""
    for name in settings.method:
        if name != "auto" and kind_of(name).teacher == "trained":
            return f"the teacher of {name} learns, and student and teacher begin alike"
    nets = list(dict.fromkeys(settings.students))
    return f"there is one baseline, and students are {' and '.join(nets)}" if nets[1:] else ""


def _starts_as_teacher(
    rounds: Rounds, settings: SelftrainSettings, model: str, before: str | None
) -> bool:
    """Whether the student begins with its teacher's weights; raises UsageError where it can't."""
    if settings.student_init != "teacher":
        return False
    nets = {one.name: one.recipe.net.name for one in rounds.made}
    if before is None or nets[before] != model:
        raise UsageError(
            "--student-init teacher needs a teacher with the student's network, trained in this "
            f"run, and {nets.get(before or '', 'a given teacher')} teaches {model}: leave it out, "
            "or let both be the same network"
        )
    return True


def _usual(name: str, settings: SelftrainSettings) -> dict[str, object]:
    """The settings that reach a method's fields of other names."""
    usual: dict[str, object] = {"smoothing": settings.smoothing}
    if name == NOISY_STUDENT:
        plain = settings.pool_noise != "all"
        usual |= {
            "hard": settings.pool_targets == "hard",
            "weight": settings.weight,
            "labels_weight": 0.0 if settings.order == "pretrain" else 1.0,
            "normalize": settings.normalize,
            "unlabeled_views": ("plain",) if plain else ("strong",),
            "dropout_on_pool": settings.pool_noise != "none",
        }
    return usual
