"""Scikit-learn's real handwritten digits, written out as folders like anyone's own images.

1,797 gray images of 8 x 8 pixels (Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten
Digits, test part), shipped inside scikit-learn. A split takes 360 images as the test, a few labels
of each class, and leaves the rest as the pool.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tutelage.errors import UsageError

TEST_IMAGES = 360


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1797, 8, 8) uint8 and their digits (1797,).

    Raises UsageError where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(
            "the digits come with scikit-learn: pip install 'tutelage[demo]'"
        ) from error
    data = load_digits()
    return (data.images * (255 / 16)).round().astype(np.uint8), data.target.astype(np.int64)


def split_digits(
    labels: NDArray[np.int64], *, per_class: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Rows of the parts 'labeled', 'unlabeled' and 'test'; the test has 36 images of each digit."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.int64]]] = {"labeled": [], "unlabeled": [], "test": []}
    test = TEST_IMAGES // 10
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        parts["test"].append(rows[:test])
        parts["labeled"].append(rows[test : test + per_class])
        parts["unlabeled"].append(rows[test + per_class :])
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


def write_digits(root: Path, *, per_class: int = 5, seed: int = 0) -> None:
    """ROOT/labeled/<digit>/*.png, ROOT/test/<digit>/*.png and ROOT/unlabeled/*.png."""
    images, labels = digits()
    for part, rows in split_digits(labels, per_class=per_class, seed=seed).items():
        for row in rows.tolist():
            folder = root / part / ("" if part == "unlabeled" else str(labels[row]))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{row:04d}.png"
            if not path.exists():
                Image.fromarray(images[row]).save(path)
