"""A deployed model on image files -> a table of labels."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Advance
from tutelage.data import storage
from tutelage.data.decode import SUFFIXES, quiet
from tutelage.data.find import kinds, source_of
from tutelage.data.issues import in_words, stop_if_fatal
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images, Source
from tutelage.data.sources.folder import Folder, images_below, is_writable_name, why_unwritable
from tutelage.deploy.model_folder import Model
from tutelage.deploy.predictions import Predictions
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.accuracy import predict_each
from tutelage.evaluation.calibration import ROWS

Say = Callable[[str], None]  # hears a line of what is left out on the way


def images_of(given: Any, say: Say = lambda line: None) -> Images:
    """What files, folders, globs or one other source name, or what a program gave.

    Raises UsageError where there is nothing.
    """
    several = isinstance(given, list | tuple)
    names = tuple(given) if several else (given,)
    if several and not names:
        raise UsageError("no images: name files, folders or globs")
    if all(isinstance(name, str | Path) for name in names):
        return find_images(tuple(map(str, names)), say)
    return all_images(source_of(given), say)


def find_images(patterns: Sequence[str], say: Say = lambda line: None) -> Images:
    """Files, all images below folders, and what globs match, each once, in the order given; or all
    images of one source of another kind.

    Raises UsageError for what doesn't exist and for a glob without a match.
    """
    if len(patterns) == 1 and _is_other_source(patterns[0]):
        return all_images(source_of(patterns[0]), say)
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
            raise UsageError(_nothing_of(pattern))
        found.update(dict.fromkeys(inside))
    return Images(Folder(""), tuple(map(str, found)))


def _nothing_of(pattern: str) -> str:
    """Why a file, folder or glob gives no images."""
    if Path(pattern).is_dir():
        return f"the folder {pattern} has no images, at any depth: {' '.join(sorted(SUFFIXES))}"
    if any(sign in pattern for sign in "*?["):
        return f"no image matches {pattern}: look at what lies there"
    near = storage.nearby(pattern) or ": name files, folders or globs"
    return f"there is no file or folder {pattern}{near}"


def _is_other_source(address: str) -> bool:
    """Whether one address has images that are no files below it, or lie on no disk of here."""
    address = storage.plain(address)
    if not storage.is_local(address):
        return True
    return any(kind.claims(address) for kind in kinds() if kind is not Folder)


def all_images(source: Source, say: Say) -> Images:
    """All images of a source, of every split; raises DataProblem where it is broken or empty."""
    listing = source.listing("pool")
    stop_if_fatal(listing.issues, None)
    for line in in_words(listing.issues):
        say(line)
    return Images(source, listing.names)


def predict_files(
    model: Model,
    images: Images,
    *,
    top: int = 5,
    answer_from: float | None = None,
    advance: Advance = lambda done: None,
) -> Predictions:
    """The model's surest `top` classes for each image; unreadable ones are listed apart.

    Where `answer_from` is given, what the model is less sure of than that is not answered.

    Raises DataProblem where no image can be read.
    """
    pixels = Readable(OnDisk(images, model.canvas, torch.device("cpu")))
    surest = Surest(model, len(images), top=top)
    with quiet():
        predict_each(model.module, pixels, model.net.img_size, take=surest.take, advance=advance)
    for row in range(len(images)):
        if not is_writable_name(images.where(row)):
            pixels.problems[row] = why_unwritable(images.where(row))
    good = [row for row in range(len(images)) if row not in pixels.problems]
    bad = [(images.where(row), pixels.problems[row]) for row in sorted(pixels.problems)]
    if not good:
        raise DataProblem(f"none of {len(images)} images can be read; {bad[0][0]}: {bad[0][1]}")
    found = surest.named(images.keep(good).places, good, answer_from=answer_from)
    return replace(found, unreadable=tuple(bad))


class Readable:
    """Images decoded once, of which some turn out to be unreadable: those are black, and noted."""

    def __init__(self, pixels: OnDisk) -> None:
        """Nothing is read yet."""
        self.pixels = pixels
        self.problems: dict[int, str] = {}  # by row

    def __len__(self) -> int:
        """Number of images, unreadable ones included."""
        return len(self.pixels)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, C, C) uint8 of rows (B,)."""
        return self.pixels.at(rows, instead=self._black)

    def _black(self, row: int, error: Exception) -> NDArray[np.uint8]:
        self.problems[row] = f"{type(error).__name__}: {error}"
        return np.zeros((self.pixels.canvas, self.pixels.canvas, 3), np.uint8)


class Surest:
    """The `top` surest classes of each of `count` images, of which nothing else is kept.

    Their room is taken at once: small parts, left among the large ones that come and go, keep the
    memory of these from being used again.
    """

    def __init__(self, model: Model, count: int, *, top: int) -> None:
        """Nothing is known yet."""
        self.model, self.done = model, 0
        shape = count, min(top, len(model.classes))
        self.numbers = torch.empty(shape, dtype=torch.int64)  # surest first in the network's order
        self.shares = torch.empty(shape)  # calibrated where the model is

    def take(self, probs: Tensor) -> None:
        """Hear the network's probabilities (B, K) of the images that follow."""
        rows = slice(self.done, self.done + len(probs))
        best = probs.topk(self.numbers.shape[1]).indices
        self.numbers[rows], self.shares[rows] = best, self.model.probs(probs).gather(1, best)
        self.done = rows.stop

    def named(
        self, places: Sequence[str], rows: Sequence[int], *, answer_from: float | None = None
    ) -> Predictions:
        """The table of these rows, whose images lie at these places."""
        numbers, shares = self.numbers[list(rows)], self.shares[list(rows)]
        answered = None
        if answer_from is not None:
            answered = tuple((shares[:, 0].double() >= answer_from).tolist())
        names = self.model.classes
        return Predictions(
            paths=tuple(places),
            top_classes=tuple(tuple(names[i] for i in row) for row in numbers.tolist()),
            top_probs=tuple(tuple(round(p, 6) for p in row) for row in shares.tolist()),
            answered=answered,
        )


def as_predictions(
    model: Model, places: Sequence[str], probs: Tensor, *, top: int,
    answer_from: float | None = None,
) -> Predictions:  # fmt: skip
    """The network's probabilities (N, K) as the model's surest `top` classes by name; calibrated
    where the model has a calibration, and in the network's order."""
    surest = Surest(model, len(probs), top=top)
    for some in probs.split(ROWS):
        surest.take(some)
    return surest.named(places, range(len(probs)), answer_from=answer_from)
