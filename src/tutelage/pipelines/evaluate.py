"""`tutelage evaluate`: as trained, at another image size, or at the best on validation images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tutelage.data.facts import Part
from tutelage.data.find import Given, open_source
from tutelage.data.source import Images, Source
from tutelage.deploy.judge import (
    answers,
    keep_answers,
    keep_judgement,
    kept_evaluation,
    labeled_part,
    still_true,
)
from tutelage.deploy.model_folder import Model, load_model, model_at, run_of
from tutelage.deploy.predict import as_predictions
from tutelage.deploy.predictions import table_path, write_predictions
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.image_size import best_size, candidates, reason, size_table
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.judgement import Judgement, judged
from tutelage.evaluation.kept import Kept
from tutelage.judging_settings import EvaluateSettings
from tutelage.learner import choose_device
from tutelage.networks.build import normalizes_batches
from tutelage.pipelines.manifest import (
    contents_of,
    has_manifest,
    known_to,
    learned_notes,
    read_manifest,
)
from tutelage.pipelines.robust import reference_for, suites_for, under_trouble
from tutelage.progress import Screen
from tutelage.reports.page import write_report
from tutelage.robustness.suite import Summary
from tutelage.values import visible


@dataclass(frozen=True)
class Evaluation:
    """What `tutelage evaluate` found, which is also kept in `folder`."""

    judgement: Judgement
    robust: tuple[Summary, ...]
    folder: Path

    @property
    def accuracy(self) -> Accuracy:
        """Top-1."""
        return self.judgement.accuracy


def evaluate(
    settings: EvaluateSettings, screen: Screen, *, given: Given | None = None
) -> Evaluation:
    """A model on labeled images, and under the trouble that is asked for.

    Raises UsageError where the network can't take the size, or there is nothing to choose it on;
    DataProblem where images aren't the model's, or the size would be chosen on the wrong ones.
    """
    out = None if settings.out is None else table_path(settings.out)
    suites = suites_for(settings, given)
    model = load_model(settings.run, choose_device(settings.device))
    other = reference_for(settings, model)
    run = run_of(settings.run) or settings.run
    data = open_source(settings.data, given)
    val = None if settings.val is None else open_source(settings.val, given)
    if settings.img_size == "auto" and val is None and _own_validation(run) is None:
        raise UsageError(
            f"{run} has no validation images to choose the size on, and test images are not for "
            "choosing: give --val FOLDER, or a size, as in --img-size 224"
        )
    test = labeled_part(data, model, "test", screen)
    for note in learned_notes(run, set(test.copies()), model.calibration):
        screen.say(note)
    if settings.img_size == "auto":
        contents = set(test.copies())
        model = _at_best_size(model, *_validation(run, val, model, contents, screen), screen)
    elif isinstance(settings.img_size, int):
        model = model_at(model, settings.img_size)
        screen.say(f"images at {settings.img_size} px; {_note(model)}")
    kept = kept_evaluation(settings.run, data.address, model, test)
    probs = answers(model, test.images, screen, "evaluate")
    found = _judge(probs, model, test, kept, out)
    robust = under_trouble(settings, model, test, kept, screen, suites=suites, other=other)
    summaries = _with_earlier(robust, kept, found.temperature)
    keep_judgement(kept, data.address, model, found, summaries)
    if (settings.run / "run.json").exists():
        screen.say(f"report: {write_report(settings.run)}")
    return Evaluation(found, tuple(robust), kept.path)


def _with_earlier(
    robust: Sequence[Summary], kept: Kept, temperature: float | None
) -> list[dict[str, Any]]:
    """The summaries, and those of suites that were asked for before and not now, but for
    confidences that were of another temperature."""
    names = {summary.suite for summary in robust}
    earlier = [one for one in still_true(kept.read(), temperature) if one["suite"] not in names]
    return [*earlier, *(summary.plain() for summary in robust)]


def _judge(
    probs: Tensor, model: Model, test: Part, kept: Kept, out: Path | None
) -> Judgement:  # fmt: skip
    """Say how good the answers are, and keep them."""
    images = test.images
    labels = images.label_tensor()
    found = judged(probs, labels, model.classes, calibration=model.calibration)
    for line in found.lines():  # before anything is written, which may fail
        print(visible(line))
    if out is not None:
        write_predictions(out, as_predictions(model, images.places, probs, top=5))
    keep_answers(kept, model, test, probs)
    return found


def _validation(
    run: Path, val: Source | None, model: Model, test: set[str], screen: Screen
) -> tuple[Images, str]:
    """Labeled images to choose on, none of them judged on, and what they are called."""
    if val is not None:
        part = labeled_part(val, model, "val", screen)
        found, contents = part.images, set(part.copies())
        if known_to(run, contents)["labeled"]:
            raise DataProblem(
                f"{val.address} holds images that {run} was trained on, which say nothing about "
                "the size: give others to --val"
            )
        images, name = found, val.address
    else:
        own = _own_validation(run)
        assert own is not None, "asked for before"
        images, name = own, f"the validation part of {run}"
        contents = contents_of(run, ("val",))
    if contents & test:
        raise DataProblem(
            f"{len(contents & test)} of the images to choose the size on are also in --data, which "
            "would flatter: give others to --val"
        )
    return images, name


def _own_validation(run: Path) -> Images | None:
    """The run's validation part; raises DataProblem where its files are not as they were."""
    if not has_manifest(run):
        return None
    try:
        return read_manifest(run / "data", ("val",)).get("val")
    except DataProblem as error:
        raise DataProblem(f"{error}; or give --val FOLDER") from error


def _at_best_size(model: Model, images: Images, name: str, screen: Screen) -> Model:
    """The model at the size that has the most right answers; all that were tried are said."""
    trained, labels = model.net.img_size, images.label_tensor()
    right: dict[int, Tensor] = {}
    for size in candidates(trained):
        try:
            one = model_at(model, size)
        except UsageError as error:
            screen.say(f"left out: {error}")
            continue
        right[size] = answers(one, images, screen, f"{size} px").argmax(-1) == labels
    if len(right) < 2:
        raise UsageError(
            f"{model.net.name} takes no other size near its {trained} px: leave out --img-size"
        )
    chosen = best_size(right, trained)
    screen.result(f"image size, on {len(images):,} images: {name}")
    for line in size_table(right, chosen):
        screen.result(line)
    screen.result(f"chosen: {reason(right, chosen, trained)}; {_note(model)}")
    return model_at(model, chosen)


def _note(model: Model) -> str:
    """What was not done for the other size."""
    if normalizes_batches(model.module):
        return "batch norm keeps the statistics of its training"
    return "nothing is fine-tuned"
