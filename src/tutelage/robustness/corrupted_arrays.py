"""CIFAR-10-C and CIFAR-100-C as published: <corruption>.npy and labels.npy.

Each array is uint8 (5 N, 32, 32, 3): severities 1 to 5, each with all N test images in their order;
labels.npy has their classes as often. The arrays are mapped into memory and never read whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.corruptions.levels import EXTRA, SEVERITIES, TEST
from tutelage.corruptions.workers import threads
from tutelage.data import storage
from tutelage.data.decode import decode
from tutelage.errors import DataProblem, UsageError
from tutelage.robustness.asking import Load, Unreadable
from tutelage.robustness.matching import Match, by_name_or_number
from tutelage.robustness.release import At, CorruptedRelease
from tutelage.values import digest, nearest

CIFAR_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR_100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar",
    "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile",
    "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster",
    "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster",
    "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)  # fmt: skip
SAME = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile"}
LABELS = "labels.npy"
LAYOUT = "gaussian_noise.npy and others (uint8, 5 x N x 32 x 32 x 3), and labels.npy (5 x N)"


@dataclass(frozen=True)
class CorruptedArrays(CorruptedRelease):
    """A folder with an array a corruption."""

    address: str

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"CIFAR-{len(self.classes)}-C as published: {self.address}"

    @cached_property
    def files(self) -> dict[str, Path]:
        """The array of each corruption; raises UsageError where there is none."""
        if not storage.is_local(self.address):
            raise UsageError(
                f"{self.address} is not on this machine, as these arrays have to be: copy them here"
            )
        root = Path(self.address)
        if not root.is_dir():
            raise UsageError(f"there is no folder {root}{storage.nearby(self.address)}")
        names = [name for name in (*TEST, *EXTRA) if (root / f"{name}.npy").is_file()]
        inside = storage.names_in(self.address)
        missing = "no corruption" if not names else f"no {LABELS}" if LABELS not in inside else ""
        if missing:
            near = nearest(inside[0], (*TEST, *EXTRA)) if inside and not names else ""
            raise UsageError(
                f"{root} holds {', '.join(inside[:5]) or 'nothing'}{', …' * (len(inside) > 5)} and "
                f"{missing}{near}: expected {LAYOUT}"
            )
        return {name: root / f"{name}.npy" for name in names}

    @cached_property
    def labels(self) -> Tensor:
        """Class numbers (N,) of one severity; raises DataProblem where the files don't agree."""
        labels = _mapped(self.files[next(iter(self.files))].with_name(LABELS))
        path = Path(self.address) / LABELS
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
            raise DataProblem(f"{path} has {labels.shape} {labels.dtype}: expected {LAYOUT}")
        total = {len(_images(file)) for file in self.files.values()}
        if len(total) > 1:
            raise DataProblem(
                f"the arrays of {self.address} have different numbers of images, "
                f"{', '.join(f'{n:,}' for n in sorted(total))}: copy them again"
            )
        (count,) = total
        each = count // len(SEVERITIES)
        blocks = np.array(labels).reshape(-1, each) if len(labels) in (each, count) else None
        if blocks is None or (blocks != blocks[0]).any():
            raise DataProblem(
                f"{path} has {len(labels):,} labels for arrays of {count:,} images, or not the "
                f"same ones at each severity: expected {LAYOUT}"
            )
        if blocks.min() < 0 or blocks.max() >= len(CIFAR_100):
            raise DataProblem(f"{path} has classes {blocks.min()} to {blocks.max()}: expected 0-99")
        return torch.from_numpy(blocks[0].astype(np.int64))

    @property
    def classes(self) -> tuple[str, ...]:
        """CIFAR-10's ten, or CIFAR-100's, in alphabetical order as the labels number them."""
        return CIFAR_10 if int(self.labels.max()) < len(CIFAR_10) else CIFAR_100

    def cases(self) -> tuple[At, ...]:
        """Each corruption there, at each severity; raises UsageError where there is none."""
        return tuple((name, severity) for name in self.files for severity in SEVERITIES)

    @property
    def marks(self) -> dict[str, Any]:
        """What tells these images from others."""
        return {"address": storage.absolute(self.address), "labels": digest(self.labels.tolist())}

    def mark(self, at: At, rows: Tensor) -> str:
        """A digest of the file's bytes and time of change."""
        return digest(storage.stamp(str(self.files[at[0]])))[:8]

    @property
    def complete(self) -> Tensor:
        """All of them."""
        return torch.ones(len(self.labels), dtype=torch.bool)

    def load(self, at: At, canvas: int, device: torch.device, bad: Unreadable) -> Load:
        """The images by row, out of their severity's block."""
        name, severity = at
        count = len(self.labels)
        block = _images(self.files[name])[(severity - 1) * count : severity * count]

        def one(row: int) -> NDArray[np.uint8]:
            return decode(np.array(block[row]), canvas)

        def load(rows: Tensor) -> Tensor:
            squares = np.stack(list(threads().map(one, rows.tolist())))
            return torch.from_numpy(squares).permute(0, 3, 1, 2).to(device)

        return load

    def where(self, at: At, row: int) -> str:
        """The file, and the row in it."""
        return f"{self.files[at[0]]}/{(at[1] - 1) * len(self.labels) + row}"

    def canvas(self, size: int, usual: int) -> int:
        """As for any image: they were not cropped."""
        return usual

    @property
    def side(self) -> int:
        """Pixels of the images."""
        return int(_images(next(iter(self.files.values()))).shape[1])

    def match(self, classes: tuple[str, ...]) -> Match:
        """By the names of CIFAR's classes, or by number."""
        same: Mapping[str, str] = SAME if self.classes == CIFAR_10 else {}
        return by_name_or_number(self.classes, classes, address=self.address, same=same)


def _mapped(path: Path) -> NDArray[Any]:
    """An array in a file, mapped; raises DataProblem where it is none, or is cut short."""
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's parser of the header has its own kinds
        raise DataProblem(f"{path} can't be read as an array: {error}; copy it again") from error
    return found


def _images(path: Path) -> NDArray[np.uint8]:
    """A corruption's images (5 N, H, W, 3), mapped; raises DataProblem where they are not such."""
    found = _mapped(path)
    fits = found.ndim == 4 and found.shape[-1] == 3 and found.dtype == np.uint8 and len(found)
    if not fits or len(found) % len(SEVERITIES):
        raise DataProblem(f"{path} has {found.shape} {found.dtype}: expected {LAYOUT}")
    return found
