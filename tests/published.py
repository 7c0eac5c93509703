"""Published image releases in small, in their true layouts, and a network that reads a class from
an image's color."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tutelage.data.pixels import InMemory
from tutelage.robustness.suite import Subject, answered, joined

SHARP = 4000.0  # how sure the network is
SIDE = 16


def colors(count: int) -> Tensor:
    """A color (count, 3) in [0, 1] for each of up to 1,000 classes: its three digits."""
    digits = torch.stack([torch.arange(count) // base % 10 for base in (100, 10, 1)], 1)
    return (20 + 24 * digits) / 255


class ByColor(nn.Module):
    """The class whose color is nearest to the mean of the image; some classes may be favored."""

    def __init__(self, order: Sequence[int], favored: Sequence[int] = ()) -> None:
        """The k-th answer is for the color of number order[k]."""
        super().__init__()
        known = colors(1000)[torch.tensor(order)]
        self.linear = nn.Linear(3, len(order))
        with torch.no_grad():
            self.linear.weight.copy_(2 * SHARP * known)
            self.linear.bias.copy_(-SHARP * (known**2).sum(1))
            self.linear.bias[list(favored)] += 1e6

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.linear(images.mean((2, 3)))


def plain(number: int, side: int = SIDE) -> np.ndarray:
    """A square of a number's color."""
    color = (255 * colors(1000)[number]).round().to(torch.uint8).numpy()
    return np.broadcast_to(color, (side, side, 3)).copy()


def write(path: Path, number: int, side: int = SIDE) -> None:
    """A file of a number's color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plain(number, side)).save(path, quality=95, subsampling=0)


def write_classes(root: Path, shown: Mapping[str, Sequence[int]], side: int = SIDE) -> Path:
    """ROOT/<class>/<i>.JPEG, whose i-th image has the color of that number."""
    for name, numbers in shown.items():
        for place, number in enumerate(numbers):
            write(root / name / f"{place}.JPEG", number, side)
    return root


def write_corrupted(
    root: Path, folders: Mapping[str, str], classes: Mapping[str, int],
    shown: Callable[[str, int, int], int], side: int = SIDE,
) -> Path:  # fmt: skip
    """ROOT/<folder>/<severity>/<class>/val.JPEG; `folders` are those of the corruptions, and
    `shown(corruption, severity, number)` is what stands in the place of a class's number."""
    for corruption, folder in folders.items():
        for severity in range(1, 6):
            for name, number in classes.items():
                path = root / folder / str(severity) / name / "val.JPEG"
                write(path, shown(corruption, severity, number), side)
    return root


def subject(
    module: nn.Module, classes: Sequence[str], numbers: Sequence[int], labels: Sequence[int], *,
    size: int = SIDE, canvas: int = 0,
) -> Subject:  # fmt: skip
    """The network with clean images of those colors."""
    pixels = InMemory(torch.from_numpy(np.stack([plain(number, size) for number in numbers])))
    names = tuple(map(str, range(len(labels))))
    one = Subject(
        module, tuple(classes), size, pixels, torch.tensor(labels), names, {}, canvas=canvas
    )
    clean = joined([answered(one.logits(images), 1.0) for _, images in one.batches()])
    return replace(one, clean=clean)
