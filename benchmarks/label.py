"""How close `tutelage label` comes to a bare loop over images that are decoded already.

The bare loop is `for batch in batches: model(batch.float() / 255)` over uint8 batches in memory.
Ours begins with uint8 arrays in memory or with files on disk, and ends with Parquet parts on disk:
it reads, decodes, makes floats, asks, takes the top classes and the energy, packs, writes and sums
up. Wall time.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.paired import Case
from benchmarks.views import photos
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.sources.folder import Folder
from tutelage.deploy.label_files import label_files
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.frozen import AT_ONCE
from tutelage.networks.build import Net, build
from tutelage.progress import Screen

NUM_CLASSES, SIDE = 100, 64


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
    """Seconds of the bare loop."""
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            module(batch.float().div_(255))
    return time.perf_counter() - start


def ours(model: Path, source: Source, folder: Path) -> float:
    """Seconds from the first image to the last part and its sum, without loading the model."""
    out = Path(tempfile.mkdtemp(dir=folder))
    done = label_files(model, source, out, device="cpu", precision="fp32", screen=Screen())
    return float(done["seconds"])


def cases(folder: Path) -> Iterator[Case]:
    """Two networks; arrays, and for the small one, beside which decoding shows, JPEGs."""
    for name, count in (("test_resnet", 2048), ("resnet18", 512)):
        images = photos(count, SIDE).numpy()
        net = Net(name=name, num_classes=NUM_CLASSES, img_size=SIDE)
        classes = tuple(f"class {i}" for i in range(NUM_CLASSES))
        model = folder / name
        save_model(model, Model(build(net).eval(), net, classes, SIDE), "for a benchmark")
        module = load_model(model).module
        batches = list(torch.from_numpy(images).permute(0, 3, 1, 2).split(AT_ONCE))
        sources: dict[str, Source] = {"decoded arrays": Arrays(images)}
        if name == "test_resnet":
            sources["JPEG files"] = write_files(folder / f"{name}-jpg", images, "jpg")
        for kind, source in sources.items():
            yield Case(
                what=f"{name}, {kind} of {SIDE} px", peer="a bare loop over arrays",
                unit="ms an image",
                ours=lambda m=model, s=source, n=count: 1e3 * ours(m, s, folder) / n,  # type: ignore[misc]
                theirs=lambda m=module, b=batches, n=count: 1e3 * bare(m, b) / n,  # type: ignore[misc]
            )  # fmt: skip
