"""`--method auto`: what measured best for such weights and this many labels, and why."""

from dataclasses import replace

from tutelage.jobs import OF_NOISY_STUDENT, SelftrainSettings
from tutelage.pipelines.prepare import Prepared
from tutelage.run import Run
from tutelage.settings import changed
from tutelage.training_settings import NOISY_STUDENT
from tutelage.values import flag

FEW_LABELS = "flexmatch"  # docs/which-method.md: digits with 2, 5 and 10 labels a class
MANY = 20  # labels a class, between those 10 and the 40 of the CIFAR-10 subset, where Noisy Student
# did better at the same time; where between them one overtakes the other was not measured


def choose_method(settings: SelftrainSettings, run: Run, prepared: Prepared) -> SelftrainSettings:
    """The settings with a method in the place of 'auto'; the first start fixes it."""
    if "auto" not in settings.method:
        return settings
    if not run.is_done("method"):
        with run.stage("method") as notes:
            notes["method"], notes["why"] = _choice(settings, prepared)
    found = run.notes("method")
    prepared.screen.say(f"method: {' then '.join(found['method'])} ({found['why']})")
    return replace(settings, method=tuple(found["method"]))


def _choice(settings: SelftrainSettings, prepared: Prepared) -> tuple[tuple[str, ...], str]:
    """Methods, one a round, and the reason in words."""
    given = _given(settings)
    if given:
        return (NOISY_STUDENT,), f"{flag(given)} was given, which is for it"
    labels = len(prepared.parts["labeled"]) / len(prepared.classes)
    learned, few = settings.begins_as is not None, labels < MANY
    if learned:
        where, measured = "given weights, few labels a class or many", "4 and 40"
    elif few:
        where, measured = f"fewer than {MANY} labels a class", "2, 5 and 10"
    else:
        where, measured = f"{MANY} labels a class or more", "40"
    method = FEW_LABELS if few and not learned else NOISY_STUDENT
    here = f"here about {int(labels)}; measured at {measured}"
    return (method,), f"{where}, {here}: docs/which-method.md"


def _given(settings: SelftrainSettings) -> str:
    """A setting that only Noisy Student reads and that is not at its default, or nothing."""
    asked = (*OF_NOISY_STUDENT, "rounds", "students", "teacher")
    if settings.student_init == "teacher":
        return "student_init"
    return next(iter(changed(settings, asked)), "")
