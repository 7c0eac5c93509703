"""Handwritten digits, 50 labels: the demo's run beside scikit-learn, on the same splits.

python -m benchmarks.digits [--seeds 5] [--out bench-out/digits]

For each seed: 5 labels a class, 360 test images, the other 1,387 images as the pool. LabelSpreading
sees labels and pool; the SVC sees the labels; both with pixels scaled to [0, 1] and settings below.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from benchmarks.journal import machine
from tutelage.data.digits import digits, split_digits, write_digits
from tutelage.launch import run_selftrain
from tutelage.pipelines.digits_demo import digits_settings


def peers(seed: int) -> dict[str, float]:
    """Test accuracy of scikit-learn's methods on the split of that seed."""
    images, labels = digits()
    parts = split_digits(labels, per_class=5, seed=seed)
    pixels = images.reshape(len(images), -1) / 255
    labeled, pool, test = (parts[name] for name in ("labeled", "unlabeled", "test"))
    known = np.concatenate([labels[labeled], np.full(len(pool), -1)])
    both = pixels[np.concatenate([labeled, pool])]
    spreading = LabelSpreading(kernel="knn", n_neighbors=7, max_iter=100).fit(both, known)
    svc = SVC().fit(pixels[labeled], labels[labeled])
    return {
        "LabelSpreading (kNN)": spreading.score(pixels[test], labels[test]),
        "SVC on the labels": svc.score(pixels[test], labels[test]),
    }


def ours(seed: int, out: Path) -> dict[str, float]:
    """Test accuracy of every round of the demo's run."""
    images = out / f"digits-{seed}"
    write_digits(images, seed=seed)
    outcome = run_selftrain(digits_settings(images, out / f"run-{seed}", seed=seed))
    rows = outcome.content["stages"]["evaluate"]["rounds"]
    return {row["name"]: row["test"]["right"] / row["test"]["total"] for row in rows}


def main() -> None:
    """Print a row a seed, then means and standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-out/digits"))
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        start = time.monotonic()
        rows.append(peers(seed) | ours(seed, given.out))
        seconds = time.monotonic() - start
        cells = ", ".join(f"{name} {value:.1%}" for name, value in rows[-1].items())
        print(f"seed {seed}: {cells} ({seconds:.0f} s)", flush=True)
    for name in rows[0]:
        values = [100 * row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:<22} {statistics.mean(values):.2f} ± {spread:.2f} % (mean ± sd)")
    print(f"{given.seeds} seeds, {machine()}")


if __name__ == "__main__":
    main()
