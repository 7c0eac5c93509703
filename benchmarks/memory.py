"""The most memory that a command holds, beside a bare script that does the same work.

python -m benchmarks.memory train|label FOLDER        the bare script

Each turn is a process of its own; its peak of resident memory, imports included. The training has
no average of weights on either side; ours checks the images, judges and writes a page besides.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.evaluating import write_classes
from benchmarks.paired import Case
from benchmarks.views import photos

SIDE, BATCH, STEPS, COUNT, POOL = 32, 64, 20, 640, 2000
NETWORK = "resnet18"


def peak(words: Sequence[str]) -> float:
    """MB of the process at most; raises RuntimeError where it fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None, "as it was asked for"
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {said}")
    return usage.ru_maxrss / 1024 if sys.platform != "darwin" else usage.ru_maxrss / 1024**2


def pixels(files: Sequence[Path]) -> torch.Tensor:
    """Images (N, 3, S, S) uint8."""
    images = np.stack([np.array(Image.open(file)) for file in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def bare(work: str, folder: Path) -> None:
    """What one would write by hand."""
    files = sorted(folder.glob("*/*.png"))
    network = timm.create_model(NETWORK, num_classes=2)
    if work == "label":
        network.eval()
        with torch.inference_mode():
            for start in range(0, len(files), BATCH):
                network(pixels(files[start : start + BATCH]).float().div_(255)).softmax(1)
        return
    images = pixels(files)
    targets = torch.tensor([int(file.parent.name == "b") for file in files])
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True)
    for step in range(STEPS):
        rows = torch.randperm(len(files), generator=torch.Generator().manual_seed(step))[:BATCH]
        batch = images[rows].float().div_(255).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        functional.cross_entropy(network(batch), targets[rows]).backward()
        optimizer.step()


def cases(folder: Path) -> Iterator[Case]:
    """A training, and labels for a pool by what it has trained."""
    labeled, pool, run = folder / "labeled", folder / "pool", folder / "run"
    write_classes(labeled, photos(COUNT, SIDE), "ab", "png")
    write_classes(pool, photos(POOL, SIDE), "ab", "png")
    train = [
        "tutelage", "train", "--data", str(labeled), "--val-fraction", "0", "--model", NETWORK,
        "--stem", "keep", "--img-size", str(SIDE), "--batch", str(BATCH), "--steps", str(STEPS),
        "--optim.ema", "None", "--device", "cpu", "--out", str(run), "--overwrite",
    ]  # fmt: skip
    label = [
        "tutelage", "label", "--model", str(run), "--data", str(pool), "--device", "cpu",
        "--out", str(folder / "labels"),
    ]  # fmt: skip
    for what, words, place in (
        (f"train {NETWORK}, {STEPS} steps at {SIDE} px", train, labeled),
        (f"label {POOL:,} images of {SIDE} px by {NETWORK}", label, pool),
    ):
        work = words[1]
        yield Case(
            what=what, peer="a bare script", unit="MB", turns=3,
            ours=partial(peak, words),
            theirs=partial(peak, ["benchmarks.memory", work, str(place)]),
        )  # fmt: skip


if __name__ == "__main__":
    bare(sys.argv[1], Path(sys.argv[2]))
