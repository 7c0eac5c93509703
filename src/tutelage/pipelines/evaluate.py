"""`tutelage evaluate`: as trained, at another image size, or at the best on validation images."""

from pathlib import Path

from torch import Tensor

from tutelage.data.source import Images, Source
from tutelage.deploy.judge import answers, judge, labeled_part
from tutelage.deploy.model_folder import Model, load_model, model_at
from tutelage.deploy.teacher_check import run_of
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.image_size import best_size, candidates, reason, size_table
from tutelage.evaluation.intervals import Accuracy
from tutelage.learner import choose_device
from tutelage.networks.build import normalizes_batches
from tutelage.pipelines.manifest import contents_of, has_manifest, read_manifest
from tutelage.progress import Screen
from tutelage.settings import Auto, at_least


def evaluate(
    run: Path, data: Source, out: Path | None, *, device: str, img_size: int | Auto | None,
    val: Source | None, screen: Screen,
) -> Accuracy:  # fmt: skip
    """Top-1 accuracy on labeled images, also said for each class.

    Raises UsageError where the network can't take the size, or there is nothing to choose it on;
    DataProblem where images aren't the model's, or the size would be chosen on the wrong ones.
    """
    if val is not None and img_size != "auto":
        raise UsageError("--val is what --img-size auto chooses on: give both, or leave out --val")
    if isinstance(img_size, int):
        at_least("img_size", img_size, 1)
    model = load_model(run, choose_device(device))
    run = run_of(run) or run
    if img_size == "auto" and val is None and _own_validation(run) is None:
        raise UsageError(
            f"{run} has no validation images to choose the size on, and test images are not for "
            "choosing: give --val FOLDER, or a size"
        )
    test, contents = labeled_part(data, model, "test", screen)
    if img_size == "auto":
        model = _at_best_size(model, *_validation(run, val, model, contents, screen), screen)
    elif img_size is not None:
        model = model_at(model, img_size)
        screen.say(f"images at {img_size} px; {_note(model)}")
    return judge(model, test, out, screen)


def _validation(
    run: Path, val: Source | None, model: Model, test: set[str], screen: Screen
) -> tuple[Images, str]:
    """Labeled images to choose on, none of them judged on, and what they are called."""
    if val is not None:
        found, contents = labeled_part(val, model, "val", screen)
        if has_manifest(run) and contents & contents_of(run, ("labeled",)):
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
