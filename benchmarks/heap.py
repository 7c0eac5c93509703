"""A step on the CPU with the memory that it frees kept, beside the C library as it comes.

python -m benchmarks.heap kept|given-back NETWORK SIDE BATCH|-BATCH        prints seconds

Both sides are the same bare step of the same network in a process of its own, one thread, images
channels-last, float32; the one side calls `keep_freed_memory` first. With a negative batch it is a
forward alone.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import timm
import torch
from torch.nn import functional

from benchmarks.paired import Case
from tutelage.heap import keep_freed_memory

STEPS = 2
WORK = (
    ("test_resnet", 32, 64), ("test_resnet", 32, 576), ("resnet18", 64, 320),
    ("tf_efficientnet_lite0", 96, 64), ("tf_efficientnet_lite0", 96, 320),
    ("tf_efficientnet_lite0", 96, -256),
)  # fmt: skip


def seconds(network: str, side: int, batch: int) -> float:
    """Of a step, after one that only warms up."""
    torch.set_num_threads(1)
    module = timm.create_model(network, num_classes=10).to(memory_format=torch.channels_last)
    count = abs(batch)
    images = torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(count) % 10
    for step in range(STEPS + 1):
        if step == 1:
            start = time.perf_counter()
        if batch > 0:
            functional.cross_entropy(module.train()(images), labels).backward()
        else:
            with torch.inference_mode():
                module.eval()(images)
    return (time.perf_counter() - start) / STEPS


def asked(how: str, network: str, side: int, batch: int) -> float:
    """Milliseconds of a step in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.heap", how, network, str(side), str(batch)]
    return 1000 * float(subprocess.check_output(words, text=True))


def cases(folder: Path) -> Iterator[Case]:
    """Small and large steps."""
    for network, side, batch in WORK:
        what = "a step" if batch > 0 else "a forward"
        yield Case(
            what=f"{what} of {network} at {side} px, batch {abs(batch)}",
            peer="memory given back", unit="ms", turns=3,
            ours=partial(asked, "kept", network, side, batch),
            theirs=partial(asked, "given-back", network, side, batch),
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "kept":
        keep_freed_memory()
    print(seconds(sys.argv[2], *map(int, sys.argv[3:])))
