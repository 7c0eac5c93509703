"""`tutelage evaluate --robust`: each suite's cases, one after another, none of them twice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from tutelage.data.facts import Part
from tutelage.data.find import Given, open_source
from tutelage.data.memory import memory_for
from tutelage.data.pixels import Pixels, bytes_held, open_pixels
from tutelage.deploy.judge import kept_evaluation
from tutelage.deploy.model_folder import Model, load_model, model_at
from tutelage.errors import UsageError
from tutelage.evaluation.kept import Kept
from tutelage.judging_settings import EvaluateSettings
from tutelage.learner import choose_device
from tutelage.networks.build import device_of, weight_digest
from tutelage.progress import Screen
from tutelage.reports.cells import table
from tutelage.robustness.attacked import UnderAttack
from tutelage.robustness.autoattack import AutoAttacked, package
from tutelage.robustness.choice import chosen
from tutelage.robustness.corrupted import Corrupted
from tutelage.robustness.corrupted_arrays import CorruptedArrays
from tutelage.robustness.corrupted_folders import CorruptedFolders
from tutelage.robustness.perturbed import Perturbed
from tutelage.robustness.published_corruptions import PublishedCorruptions
from tutelage.robustness.published_images import RELEASES, PublishedImages
from tutelage.robustness.release import CorruptedRelease
from tutelage.robustness.suite import (
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
    answered,
    joined,
)
from tutelage.values import digest, percent

Maker = Callable[[EvaluateSettings, str | None, Given | None], Suite]


def _corrupted(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    if address is None:
        return Corrupted(seed=settings.seed)
    return _published("imagenet-c", CorruptedFolders(address, given), settings)


def _cifar(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    assert address is not None, "settings see to it"
    return _published("cifar-c", CorruptedArrays(address), settings)


def _published(kind: str, release: CorruptedRelease, settings: EvaluateSettings) -> Suite:
    release.cases()  # before anything takes time
    return PublishedCorruptions(kind, release, settings.robust_images, settings.seed)


def _extra(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return Corrupted(extra=True, seed=settings.seed)


def _fgsm(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return UnderAttack(kind="fgsm", epsilon=settings.epsilon, seed=settings.seed)


def _pgd(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return UnderAttack(
        kind="pgd", epsilon=settings.epsilon, steps=settings.attack_steps,
        restarts=settings.restarts, seed=settings.seed,
    )  # fmt: skip


def _pgd_l2(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return UnderAttack(
        kind="pgd-l2", epsilon=settings.epsilon_l2, steps=settings.attack_steps,
        restarts=settings.restarts, seed=settings.seed,
    )  # fmt: skip


def _autoattack(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return AutoAttacked(epsilon=settings.epsilon, seed=settings.seed)


def _natural(
    release: str, settings: EvaluateSettings, address: str | None, given: Given | None
) -> Suite:  # fmt: skip
    assert address is not None, "settings see to it"
    open_source(address, given)  # before anything takes time
    return PublishedImages(release, address, settings.robust_images, settings.seed, given)


def _perturbed(settings: EvaluateSettings, address: str | None, given: Given | None) -> Suite:
    return Perturbed(seed=settings.seed)


MAKERS: dict[str, Maker] = {  # what each name in --robust is
    "c": _corrupted, "c-extra": _extra, "cifar-c": _cifar, "p": _perturbed,
    "fgsm": _fgsm, "pgd": _pgd, "pgd-l2": _pgd_l2, "autoattack": _autoattack,
    **{release: partial(_natural, release) for release in RELEASES},
}  # fmt: skip


def suites_for(settings: EvaluateSettings, given: Given | None) -> list[Suite]:
    """The suites that are asked for; raises UsageError where a folder or package is missing."""
    if any(name == "autoattack" for name, _ in settings.suites()):
        package()  # before anything takes time
    return [MAKERS[name](settings, address, given) for name, address in settings.suites()]


def reference_for(settings: EvaluateSettings, model: Model) -> Model | None:
    """The other model, where one is asked for; raises UsageError where it has other classes."""
    path = settings.reference
    if path is None:
        return None
    other = load_model(path, choose_device(settings.device))
    if other.classes != model.classes:
        odd = sorted(set(other.classes) ^ set(model.classes))[:5]
        raise UsageError(
            f"--reference {path} has other classes ({', '.join(odd) or 'in another order'}): "
            "compare models of the same classes"
        )
    return other


def under_trouble(
    settings: EvaluateSettings, model: Model, test: Part, kept: Kept, screen: Screen,
    *, suites: Sequence[Suite], other: Model | None,
) -> list[Summary]:  # fmt: skip
    """What each suite that is asked for comes to, said and returned.

    Cases that an earlier start of the same evaluation finished are not run again. Raises what the
    suites raise.
    """
    if not suites:
        return []
    rows = chosen(test.images.label_tensor(), settings.robust_images, settings.seed)
    part = test.keep(rows.tolist())
    if len(rows) < len(test.images):
        screen.say(f"robustness: {len(rows):,} of {len(test.images):,} images")
    subject = _subject(model, part, screen)
    for suite in suites:
        suite.check(subject)
    beside, mark = None, ""
    if other is not None and settings.reference is not None:
        if other.net.img_size != model.net.img_size:
            other = model_at(other, model.net.img_size)
        its = kept_evaluation(settings.reference, settings.data, other, test)  # of all images
        beside = settings.reference.name, _subject(other, part, screen, like=subject), its
        mark = digest([weight_digest(other.module), other.net.img_size])
    summaries = []
    for suite in suites:
        found = _run(suite, subject, kept, screen)
        reference = None
        if beside is not None:
            name, their, its = beside
            reference = Reference(name, their.clean, _run(suite, their, its, screen))
        summary = suite.summary(subject, found, reference)
        summary = replace(summary, asked=digest(_asked(suite, subject)), reference=mark)
        _say(summary, screen)
        summaries.append(summary)
    return summaries


def _subject(
    model: Model, part: Part, screen: Screen, *, like: Subject | None = None
) -> Subject:  # fmt: skip
    """The model with the images, and its answers to them clean. The images are those of `like`
    where they are of the same size, else decoded, and held in memory where they fit."""
    if like is not None and like.canvas == model.canvas:
        pixels = like.pixels
    else:
        pixels = _pixels(model, part, screen)
    subject = Subject(
        module=model.module.eval().requires_grad_(False),
        classes=model.classes,
        size=model.net.img_size,
        pixels=pixels,
        labels=part.images.label_tensor(),
        names=part.images.names,
        clean={},
        temperature=1.0 if model.calibration is None else model.calibration.temperature.value,
        canvas=model.canvas,
    )
    clean = joined(
        [answered(subject.logits(images), subject.temperature) for _, images in subject.batches()]
    )
    return replace(subject, clean=clean)


def _pixels(model: Model, part: Part, screen: Screen) -> Pixels:
    memory = memory_for("auto")
    held = bytes_held(len(part.images), model.canvas) <= memory.limit
    with screen.bar("decode", len(part.images) if held else 0) as bar:
        return open_pixels(
            part.images, model.canvas, device_of(model.module), in_memory=held, memory=memory,
            advance=bar.advance,
        )  # fmt: skip


def _run(suite: Suite, subject: Subject, kept: Kept, screen: Screen) -> Mapping[str, Columns]:
    """The columns of all cases by key; those that are kept are read."""
    temperature = subject.temperature if suite.confident else None
    place = f"{suite.name}-{digest([*_asked(suite, subject), temperature])[:8]}"
    cases = suite.cases(subject)
    found: dict[str, Columns] = {}
    for case in cases:
        done = kept.case(place, case.key)
        if done is not None:
            found[case.key] = done
    left = [case for case in cases if case.key not in found]
    totals = {case.key: suite.num_images(case, subject) * case.passes for case in left}
    with screen.bar(suite.name, sum(totals.values()), unit="passes") as bar:
        for case in left:
            begun = bar.done
            found[case.key] = suite.run(case, subject, found, bar.advance)
            kept.write_case(place, case.key, found[case.key])
            bar.advance(totals[case.key] - (bar.done - begun), note=case.key)
    return {case.key: found[case.key] for case in cases}


def _asked(suite: Suite, subject: Subject) -> list[object]:
    """What a model goes through: settings and images."""
    images = [*subject.names, *map(str, subject.labels.tolist())]
    return [suite.settings, digest(images)]


def _say(summary: Summary, screen: Screen) -> None:
    """The summary on the terminal."""
    screen.result(f"{summary.title}:")
    cells = [list(summary.columns), *([_cell(value) for value in row] for row in summary.rows)]
    notes = [f"note: {note}" for note in summary.notes]
    for line in (*(table(cells) if summary.columns else ()), *summary.lines, *notes):
        screen.result(f"  {line}")


def _cell(value: str | float) -> str:
    """A cell of the table: shares in percent."""
    return value if isinstance(value, str) else percent(value)
