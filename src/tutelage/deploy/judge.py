"""`tutelage evaluate`: a trained model on a labeled folder."""

from pathlib import Path

import torch

from tutelage.data.check import Part, class_numbers, examine, readable
from tutelage.data.issues import Issue, stop_if_fatal
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images
from tutelage.data.sources.folder import labeled_folder
from tutelage.deploy.model_folder import Model, load_model
from tutelage.deploy.predict import as_predictions
from tutelage.deploy.predictions import write_predictions
from tutelage.evaluation.accuracy import accuracy, confusion, predict
from tutelage.evaluation.intervals import Accuracy
from tutelage.learner import choose_device
from tutelage.progress import Screen


def judge_folder(
    model_path: Path, root: Path, out: Path | None, *, device: str, screen: Screen
) -> Accuracy:
    """Top-1 accuracy with its interval, also said for each class, worst first.

    Raises DataProblem where a class is not the model's, or too many images can't be read.
    """
    model = load_model(model_path, choose_device(device))
    images = _images(root, model, screen)
    pixels = OnDisk(images.paths, model.canvas, torch.device("cpu"))
    with screen.bar("evaluate", len(images)) as bar:
        probs = predict(model.module, pixels, model.net.img_size, advance=bar.advance)
    labels = images.label_tensor()
    if out is not None:
        found = as_predictions(images.paths, probs, model.classes, top=5)
        write_predictions(out, found)
    overall = accuracy(probs, labels)
    print(f"accuracy {overall}")
    table = confusion(probs, labels)
    per_class = [
        (Accuracy(int(table[k, k]), int(table[k].sum())), name)
        for k, name in enumerate(model.classes)
        if table[k].sum()
    ]
    for one, name in sorted(per_class, key=lambda pair: pair[0].value):
        print(f"  {name:<20} {one}")
    return overall


def _images(root: Path, model: Model, screen: Screen) -> Images:
    """The folder's readable images with the model's class numbers."""
    images, issues = labeled_folder(root, "test")
    images, odd = class_numbers(images, model.classes, "the model", "test")
    stop_if_fatal([*issues, *odd], None)
    with screen.bar("check", len(images)) as bar:
        facts = examine(images.paths, bar.advance)
    part, bad = readable(Part(images, facts), "test")
    stop_if_fatal(bad, None)
    dropped: list[Issue] = [issue for issue in bad if issue.severity == "dropped"]
    for issue in dropped:
        screen.say(f"left out {issue.path}: {issue.detail}")
    return part.images
