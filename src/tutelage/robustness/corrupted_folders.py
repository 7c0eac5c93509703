"""ImageNet-C's folders as published: ROOT/[group/]<corruption>/<severity>/<class>/*.JPEG.

The groups are noise, blur, weather, digital and extra; Tiny-ImageNet-C has none. The images of all
cases have the same names, by which they are told to be the same image.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.corruptions.levels import EXTRA, SEVERITIES, TEST
from tutelage.data import storage
from tutelage.data.decode import opened
from tutelage.data.find import Given, open_source
from tutelage.data.issues import stop_if_fatal
from tutelage.data.parts import labeled_images
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images
from tutelage.data.stamps import sizes_of
from tutelage.errors import DataProblem, UsageError
from tutelage.robustness.asking import Load, Unreadable, stop_if_many
from tutelage.robustness.release import At, CorruptedRelease
from tutelage.values import digest, nearest

GROUPS = ("", "noise", "blur", "weather", "digital", "extra")
LAYOUT = "FOLDER/gaussian_noise/1/n01440764/*.JPEG or FOLDER/noise/gaussian_noise/1/…"
LOOKED_AT = 5  # images, until one can be read


@dataclass(frozen=True)
class Listed:
    """The images of all cases together."""

    names: tuple[str, ...]  # within a case's folder
    labels: Tensor  # (N,) int64, in `classes`
    classes: tuple[str, ...]
    complete: Tensor  # (N,) bool: which of them all cases have


@dataclass(frozen=True)
class CorruptedFolders(CorruptedRelease):
    """A folder with a folder a corruption."""

    address: str
    given: Given | None = None

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"corrupted images as published: {self.address}"

    @cached_property
    def places(self) -> dict[At, str]:
        """The folder of each case; raises UsageError where there is none."""
        found: dict[At, str] = {}
        for group in GROUPS:
            top = storage.join(self.address, group) if group else self.address
            for name in [name for name in storage.names_in(top) if name in (*TEST, *EXTRA)]:
                root = storage.join(top, name)
                for severity in SEVERITIES:
                    place = storage.join(root, str(severity))
                    if storage.is_folder(place):
                        found.setdefault((name, severity), place)
        if not found:
            raise UsageError(self._nothing())
        return {at: found[at] for at in all_cases() if at in found}

    def _nothing(self) -> str:
        """What is there instead."""
        if not storage.is_folder(self.address):
            return f"there is no folder {self.address}{storage.nearby(self.address)}"
        inside = storage.names_in(self.address)
        near = next((text for one in inside if (text := nearest(one, (*TEST, *EXTRA)))), "")
        return (
            f"{self.address} holds {', '.join(inside[:5]) or 'nothing'}{', …' * (len(inside) > 5)} "
            f"and no corruption{near}: expected {LAYOUT}"
        )

    @cached_property
    def listed(self) -> Listed:
        """All cases listed; raises DataProblem where one lacks more images than an accident."""
        rows: dict[str, int] = {}  # name -> row
        found: dict[At, NDArray[np.int32]] = {}
        folders: list[str] = []  # the class of each row
        for at in self.places:
            images = self._images(at)
            assert images.labels is not None, "labeled"
            for name, label in zip(images.names, images.labels, strict=True):
                if name not in rows:
                    rows[name] = len(rows)
                    folders.append(images.classes[label])
            found[at] = np.array([rows[name] for name in images.names], np.int32)
        complete = np.ones(len(rows), np.bool_)
        for at, its in found.items():
            there = np.zeros(len(rows), np.bool_)
            there[its] = True
            complete &= there
            lost = len(rows) - len(its)
            stop_if_many(lost, len(rows), self.places[at], "are in other cases and not there")
        classes, labels = np.unique(np.array(folders), return_inverse=True)
        return Listed(
            tuple(rows), torch.from_numpy(labels.astype(np.int64)), tuple(map(str, classes)),
            torch.from_numpy(complete),
        )  # fmt: skip

    def _images(self, at: At) -> Images:
        """The images of a case; raises DataProblem where there are none."""
        images, issues = labeled_images(open_source(self.places[at], self.given), "test")
        stop_if_fatal(issues, None)
        if not len(images):
            raise DataProblem(f"{self.places[at]} has no images: expected {LAYOUT}")
        return images

    def cases(self) -> tuple[At, ...]:
        """Those that are there, in order; raises UsageError where there is none."""
        return tuple(self.places)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders."""
        return self.listed.classes

    @property
    def labels(self) -> Tensor:
        """Class numbers (N,)."""
        return self.listed.labels

    @property
    def marks(self) -> dict[str, object]:
        """What tells these images from others."""
        return {"address": storage.absolute(self.address), "names": digest(self.listed.names)}

    def mark(self, at: At, rows: Tensor) -> str:
        """A digest of the case's files of these rows, by their sizes."""
        source, names = open_source(self.places[at], self.given), self.listed.names
        sizes = sizes_of(source, [names[row] for row in rows.tolist()])
        return digest([storage.absolute(self.places[at]), sizes])[:8]

    @property
    def complete(self) -> Tensor:
        """Which images (N,) all cases have."""
        return self.listed.complete

    def load(self, at: At, canvas: int, device: torch.device, bad: Unreadable) -> Load:
        """The images by row; `bad` stands for those that can't be read."""
        source, listed = open_source(self.places[at], self.given), self.listed
        pixels = OnDisk(Images(source, listed.names), canvas, device)
        return partial(pixels.at, instead=bad)

    def where(self, at: At, row: int) -> str:
        """The place of an image, for people."""
        return storage.join(self.places[at], self.listed.names[row])

    def canvas(self, size: int, usual: int) -> int:
        """As large as the model sees: they were cropped before they were corrupted."""
        return size

    @cached_property
    def side(self) -> int:
        """Pixels of the first image that can be read; 0 where the first few can't."""
        at = next(iter(self.places))
        source = open_source(self.places[at], self.given)
        for row in self.complete.nonzero()[:LOOKED_AT, 0].tolist():
            try:
                return min(opened(source.read(self.listed.names[row])).size)
            except OSError:
                continue
        return 0


def all_cases() -> list[At]:
    """Every corruption at every severity, those to test on first."""
    return [(name, severity) for name in (*TEST, *EXTRA) for severity in SEVERITIES]
