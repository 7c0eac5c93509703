"""How close `tutelage label` comes to a bare loop over images that are decoded already.

python -m benchmarks.label [--images 4096] [--side 64] [--model test_resnet resnet18] [--turns 5]

The bare loop over decoded images is `for batch in batches: model(batch.float() / 255)` over uint8
batches in memory; over floats, `model(batch)` alone, as if they lay in memory as the network wants
them, which takes four times the room of the images. Ours begins with uint8 arrays in memory
or with JPEG or PNG files on disk, and ends with Parquet parts on disk: it reads, decodes,
makes floats, asks, takes the top classes and the energy, packs, writes and sums up. Both in turn,
wall time; medians, and quartiles of the ratio of each turn.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.journal import machine
from benchmarks.views import photos
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.sources.folder import Folder
from tutelage.deploy.label_files import label_files
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.labeling.answers import BATCH
from tutelage.networks.build import Net, build
from tutelage.progress import Screen

BARE = "bare loop"
NUM_CLASSES = 100


class Arrays(Source):
    """Decoded images in memory."""

    layout = "arrays"

    def __init__(self, images: NDArray[np.uint8]) -> None:
        """Take images (N, S, S, 3)."""
        super().__init__("arrays")
        self.images = images

    @classmethod
    def claims(cls, address: str) -> bool:
        """Never: it is made here."""
        return False

    def listing(self, part: str) -> Listing:
        """All images by number."""
        return Listing(tuple(map(str, range(len(self.images)))))

    def read(self, name: str) -> Raw:
        """Pixels."""
        return self.images[int(name)]

    def where(self, name: str) -> str:
        """The number."""
        return name

    def stamp(self, name: str) -> tuple[int, int]:
        """Nothing that changes."""
        return 0, 0


def write_files(folder: Path, images: NDArray[np.uint8], suffix: str) -> Folder:
    """The images as files of a format."""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06d}.{suffix}")
    return Folder(str(folder))


def bare(module: nn.Module, batches: list[torch.Tensor]) -> float:
    """Seconds of the bare loop, over floats or bytes."""
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            module(batch if batch.is_floating_point() else batch.float().div_(255))
    return time.perf_counter() - start


def ours(model: Path, source: Source, folder: Path) -> float:
    """Seconds from the first image to the last part and its sum, without loading the model."""
    out = Path(tempfile.mkdtemp(dir=folder))
    done = label_files(model, source, out, device="cpu", precision="fp32", screen=Screen())
    return float(done["seconds"])


def compare(name: str, given: argparse.Namespace, folder: Path) -> None:
    """Print the rates and ratios of one network."""
    images = photos(given.images, given.side).numpy()
    net = Net(name=name, num_classes=NUM_CLASSES, img_size=given.side)
    model = folder / name
    classes = tuple(f"class {i}" for i in range(NUM_CLASSES))
    save_model(model, Model(build(net).eval(), net, classes, given.side), "for a benchmark")
    module = load_model(model).module
    decoded = torch.from_numpy(images).permute(0, 3, 1, 2)
    batches = list(decoded.split(BATCH))
    ready = [
        (batch.float() / 255).contiguous(memory_format=torch.channels_last) for batch in batches
    ]
    sources: dict[str, Source] = {"arrays in memory": Arrays(images)}
    for suffix in given.files:
        sources[f"{suffix} files"] = write_files(folder / f"{name}-{suffix}", images, suffix)
    arms: dict[str, Callable[[], float]] = {
        BARE: lambda: bare(module, batches), "over floats": lambda: bare(module, ready)
    }  # fmt: skip
    for kind, source in sources.items():
        arms[kind] = lambda its=source: ours(model, its, folder)
    times: dict[str, list[float]] = {kind: [] for kind in arms}
    for _ in range(given.turns + 1):
        for kind, run in arms.items():
            times[kind].append(run())
    print(f"\n{name}, {given.images:,} images of {given.side} px, {NUM_CLASSES} classes:")
    for kind, (_, *seen) in times.items():  # the first turn warms up
        line = f"  {kind:<18} {given.images / statistics.median(seen):9,.0f} images/s"
        if kind != BARE:
            both = zip(times[BARE][1:], seen, strict=True)
            low, middle, high = statistics.quantiles([one / own for one, own in both], n=4)
            line += f"   {middle:.3f} of the bare loop ({low:.3f} to {high:.3f})"
        print(line, flush=True)


def main() -> None:
    """Print medians, and quartiles of the ratios of each turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--model", nargs="+", default=["test_resnet", "resnet18"])
    parser.add_argument("--files", nargs="*", default=["jpg", "png"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.model:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, given, Path(folder))
    print(f"\n{given.turns} turns; {machine()}")


if __name__ == "__main__":
    main()
