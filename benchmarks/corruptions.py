"""How many images a second each corruption of ImageNet-C makes, beside the published formulas.

python -m benchmarks.corruptions --out /tmp/corruptions [--size 224] [--batch 64] [--turns 5]
    [--device cuda] [--threads 2] [--images 2] [--names snow fog]

Ours takes the whole batch on all threads (or on the device); the formulas, in reference_*.py, take
one image after another with NumPy, SciPy, scikit-image, OpenCV and Pillow in one process, with as
many threads as these start, and on images of the batch for 0.3 s. Both sides make all five
severities of the same synthetic photos, in turn; a row in OUT/rows.jsonl for each corruption,
severity and turn, and a second run makes only those that are missing. The table has images a
second over the five severities, medians of the turns; the ratio with its smallest and largest over
the turns; and the ratio of processor times, which is that on one core, whatever else the machine
does.
"""

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.journal import Row, complete, machine
from benchmarks.reference_noise import Reference
from tutelage.corruptions.corrupt import CORRUPTIONS, corrupt
from tutelage.corruptions.levels import SEVERITIES, level

PARTS = ("noise", "blur", "weather", "digital")
ENOUGH = 0.3  # seconds of a formula's images, where the batch has as many
TIMES = ("ours", "reference", "ours_processor", "reference_processor")  # seconds an image


def references() -> dict[str, Reference]:
    """The published formula of each corruption."""
    found: dict[str, Reference] = {}
    for part in PARTS:
        if find_spec(f"benchmarks.reference_{part}"):
            found |= importlib.import_module(f"benchmarks.reference_{part}").REFERENCE
    return {name: found[name] for name in CORRUPTIONS if name in found}


def photos(count: int, size: int) -> Tensor:
    """Synthetic photos (N, 3, S, S) uint8: details of every size, the larger the stronger."""
    dice = torch.Generator().manual_seed(0)
    total = torch.full((count, 3, size, size), 0.5)
    side = 2
    while side <= size:
        grid = torch.randn(count, 3, side, side, generator=dice) * (0.5 / side**0.7)
        total += functional.interpolate(grid, (size, size), mode="bicubic")
        side *= 2
    return total.clamp_(0, 1).mul_(255).byte()


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of all processors."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def measured(row: Row, images: Tensor, formula: Reference, few: int) -> Row:
    """Seconds an image that one corruption takes at one severity, on both sides."""
    name, severity = row["corruption"], row["severity"]
    count = len(images)
    keys = [str(i) for i in range(count)]
    numbers = level(name, severity, images.shape[-1])
    single = [np.ascontiguousarray(one) for one in images.permute(0, 2, 3, 1).cpu().numpy()]
    dice = np.random.default_rng(row["turn"])

    def ours(some: int) -> None:
        corrupt(images[:some], name, severity, keys=keys[:some], seed=row["turn"])
        if images.is_cuda:
            torch.cuda.synchronize()

    ours(count)  # makes tables, starts threads, and takes the memory of all further batches
    formula(single[0], numbers, dice)
    wall, busy = seconds(lambda: ours(count))
    done = 0

    def theirs() -> None:
        nonlocal done
        start = time.perf_counter()
        while done < min(few, count) or (done < count and time.perf_counter() < start + ENOUGH):
            formula(single[done], numbers, dice)
            done += 1

    other, other_busy = seconds(theirs)
    times = wall / count, other / done, busy / count, other_busy / done
    return dict(zip(TIMES, times, strict=True)) | {"measured": done}


def ratios(rows: list[Row], turns: int, above: str, below: str) -> list[float]:
    """How many times one side's seconds over all severities are those of the other, each turn."""
    return [
        sum(row[above] for row in rows if row["turn"] == turn)
        / sum(row[below] for row in rows if row["turn"] == turn)
        for turn in range(turns)
    ]


def rate(rows: list[Row], side: str) -> float:
    """Images a second over the severities, of the median over the turns of each."""
    middle = [
        statistics.median(row[side] for row in rows if row["severity"] == severity)
        for severity in SEVERITIES
    ]
    return len(middle) / sum(middle)


def table(rows: list[Row], names: list[str], turns: int) -> None:
    """Print a line for each corruption, and the geometric mean."""
    print("corruption          ours/s  formula/s   ratio (least to most)    on one core")
    middles, singles = [], []
    for name in names:
        some = [row for row in rows if row["corruption"] == name]
        times = ratios(some, turns, "reference", "ours")
        middles.append(statistics.median(times))
        singles.append(
            statistics.median(ratios(some, turns, "reference_processor", "ours_processor"))
        )
        spread = f"({min(times):.1f} to {max(times):.1f})"
        print(
            f"{name:<18}{rate(some, 'ours'):>8.0f}{rate(some, 'reference'):>11.1f}"
            f"{middles[-1]:>8.1f} {spread:<18}{singles[-1]:>9.1f}"
        )
    mean, one = (math.exp(statistics.fmean(map(math.log, each))) for each in (middles, singles))
    print(f"geometric mean{mean:>31.1f}{one:>28.1f}; least {min(middles):.1f}")


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=2, help="for the formulas at least")
    parser.add_argument("--names", nargs="+", default=list(references()))
    given = parser.parse_args()
    images = photos(given.batch, given.size).to(given.device)
    same = {key: getattr(given, key) for key in ("size", "batch", "device", "threads", "images")}
    formulas = references()
    wanted = [
        same | {"corruption": name, "severity": severity, "turn": turn}
        for turn in range(given.turns)
        for name in given.names
        for severity in SEVERITIES
    ]
    rows = complete(
        given.out,
        wanted,
        lambda row: measured(row, images, formulas[row["corruption"]], given.images),
        threads=given.threads,
    )
    kept = [row for row in rows if same.items() <= row.items() and row["turn"] < given.turns]
    table(kept, given.names, given.turns)
    print(f"{given.size} px, batches of {given.batch}, {given.turns} turns; {machine()}")


if __name__ == "__main__":
    main()
