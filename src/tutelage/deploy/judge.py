"""A trained model's answers on images of a source, and where they are kept."""

from pathlib import Path
from typing import Any

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
from tutelage.evaluation.judgement import Judgement
from tutelage.evaluation.kept import Kept, kept_for
from tutelage.networks.build import weight_digest
from tutelage.progress import Screen


def answers(model: Model, images: Images, screen: Screen, name: str) -> Tensor:
    """Probabilities (N, K) for the images, at the model's size; `name` stands beside the bar."""
    pixels = OnDisk(images, model.canvas, torch.device("cpu"))
    with screen.bar(name, len(images)) as bar:
        return predict(model.module, pixels, model.net.img_size, advance=bar.advance)


def kept_evaluation(path: Path, address: str, model: Model, test: Part) -> Kept:
    """Where the evaluation of a model, of the run or model folder `path`, on these images is
    kept; `address` is theirs."""
    return kept_for(
        path, address, weights=weight_digest(model.module), size=model.net.img_size,
        contents=[fact.content for fact in test.facts], labels=test.images.label_tensor(),
    )  # fmt: skip


def keep_answers(kept: Kept, model: Model, test: Part, probs: Tensor) -> None:
    """Write answers.parquet from the network's probabilities (N, K)."""
    contents, labels = [fact.content for fact in test.facts], test.images.label_tensor()
    kept.write_answers(test.images.places, contents, labels, model.probs(probs), model.classes)


def keep_judgement(
    kept: Kept, address: str, model: Model, found: Judgement, robust: list[dict[str, Any]]
) -> None:
    """Write evaluation.json, with the suites' summaries as JSON has them."""
    kept.write(
        {
            "data": address,
            "images": found.accuracy.total,
            "img_size": model.net.img_size,
            "weights": weight_digest(model.module),
            **found.plain(),
            "robust": robust,
        }
    )


def still_true(before: dict[str, Any], temperature: float | None) -> list[dict[str, Any]]:
    """The suites' summaries of an evaluation.json, without those that hold confidences of another
    temperature."""
    anew = before.get("temperature") != temperature
    return [
        one for one in before.get("robust", [])
        if not (anew and "calibration_error" in one["numbers"])
    ]  # fmt: skip


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
