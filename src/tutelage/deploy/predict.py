"""A deployed model on image files -> a table of labels."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data.decode import SUFFIXES
from tutelage.data.examine import examine
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder, images_below
from tutelage.deploy.model_folder import Model
from tutelage.deploy.predictions import Predictions
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.accuracy import predict


def find_images(patterns: Sequence[str]) -> Images:
    """Files, all images below folders, and what globs match, each once, in the order given.

    Raises UsageError for what doesn't exist and for a glob without a match.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(images_below(path))
        elif path.exists():
            inside = [path]
        else:
            inside = [
                p for p in map(Path, sorted(glob.glob(pattern, recursive=True)))
                if p.is_file() and p.suffix.lower() in SUFFIXES
            ]  # fmt: skip
        if not inside:
            raise UsageError(f"{pattern}: no such image, no images in it, or no match")
        found.update(dict.fromkeys(inside))
    return Images(Folder(""), tuple(map(str, found)))


def predict_files(
    model: Model,
    images: Images,
    *,
    top: int = 5,
    precision: str = "fp32",
    advance: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """The model's surest `top` classes for each image; unreadable ones are listed apart.

    Raises DataProblem where no image can be read.
    """
    facts = examine(images)
    good = images.keep([row for row, fact in enumerate(facts) if not fact.problem])
    bad = [(images.where(row), fact.problem) for row, fact in enumerate(facts) if fact.problem]
    if not good:
        raise DataProblem(f"none of {len(images)} images can be read; {bad[0][0]}: {bad[0][1]}")
    pixels = OnDisk(good, model.canvas, torch.device("cpu"))
    probs = predict(model.module, pixels, model.net.img_size, precision=precision, advance=advance)
    return replace(
        as_predictions(good.places, probs, model.classes, top=top), unreadable=tuple(bad)
    )


def as_predictions(
    places: Sequence[str], probs: Tensor, classes: Sequence[str], *, top: int
) -> Predictions:
    """Probabilities (N, K) as the surest `top` classes by name."""
    best = probs.topk(min(top, probs.shape[-1]))
    return Predictions(
        paths=tuple(places),
        top_classes=tuple(tuple(classes[i] for i in row) for row in best.indices.tolist()),
        top_probs=tuple(tuple(round(p, 6) for p in row) for row in best.values.tolist()),
    )
