"""A trained model's answers on images of a source."""

import torch
from torch import Tensor

from tutelage.data.check import readable
from tutelage.data.class_names import class_numbers
from tutelage.data.examine import examine
from tutelage.data.facts import Part
from tutelage.data.issues import Issue, in_words, stop_if_fatal
from tutelage.data.parts import labeled_images
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images, Source
from tutelage.deploy.model_folder import Model
from tutelage.evaluation.accuracy import predict
from tutelage.progress import Screen


def answers(model: Model, images: Images, screen: Screen, name: str) -> Tensor:
    """Probabilities (N, K) for the images, at the model's size; `name` stands beside the bar."""
    pixels = OnDisk(images, model.canvas, torch.device("cpu"))
    with screen.bar(name, len(images)) as bar:
        return predict(model.module, pixels, model.net.img_size, advance=bar.advance)


def labeled_part(root: Source, model: Model, part: str, screen: Screen) -> Part:
    """The source's readable images, with the model's class numbers, and what is known of them.

    Raises DataProblem where a class is not the model's, or too many images can't be read.
    """
    images, issues = labeled_images(root, part)
    images, odd = class_numbers(images, model.classes, "the model", part)
    stop_if_fatal([*issues, *odd], None)
    for line in in_words(issues):
        screen.say(line)
    with screen.bar("check", len(images)) as bar:
        facts = examine(images, bar.advance)
    kept, bad = readable(Part(images, facts), part)
    stop_if_fatal(bad, None)
    dropped: list[Issue] = [issue for issue in bad if issue.severity == "dropped"]
    for issue in dropped:
        screen.say(f"left out {issue.path}: {issue.detail}")
    return kept
