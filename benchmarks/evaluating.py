"""`tutelage evaluate` beside a bare loop that decodes, asks the network and counts.

Ours also looks at each image for what a check finds, makes intervals and calibration, and keeps
every answer. The first time nothing is known of the images; again: what the check found is
remembered. JPEGs in class folders; wall time.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import tutelage
from benchmarks.check import forget
from benchmarks.paired import Case, wall
from benchmarks.views import photos
from tutelage.data.pixels import THREADS
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.networks.build import Net, build

COUNT, SIDE, BATCH = 1500, 64, 64
CLASSES = tuple(f"class {i}" for i in range(10))


def write_classes(folder: Path, images: Tensor, classes: Sequence[str], suffix: str) -> None:
    """Images (N, S, S, 3) uint8 as files, as many of each class."""
    for number, image in enumerate(images.numpy()):
        place = folder / classes[number % len(classes)] / f"{number:05d}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)


def bare(module: nn.Module, folder: Path) -> float:
    """The accuracy."""
    files = sorted(folder.glob("*/*.jpg"))
    right = 0

    def pixels(file: Path) -> torch.Tensor:
        return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)

    with ThreadPoolExecutor(THREADS) as threads, torch.inference_mode():
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            images = torch.stack(list(threads.map(pixels, some))).float().div_(255)
            found = module(images).argmax(1).tolist()
            right += sum(
                CLASSES[one] == file.parent.name for one, file in zip(found, some, strict=True)
            )
    return right / len(files)


def ours(model: Path, folder: Path, *, anew: bool) -> float:
    """The same by the verb, with all that it does besides."""
    if anew:
        forget()
    with contextlib.redirect_stdout(io.StringIO()):
        found = tutelage.evaluate(model, data=str(folder), device="cpu")
    return found.accuracy.right / found.accuracy.total


def cases(folder: Path) -> Iterator[Case]:
    """A small network, beside which all else shows."""
    images, model = folder / "images", folder / "model"
    write_classes(images, photos(COUNT, SIDE), CLASSES, "jpg")
    net = Net(name="test_resnet", num_classes=len(CLASSES), img_size=SIDE)
    save_model(model, Model(build(net).eval(), net, CLASSES, SIDE), "for a benchmark")
    module = load_model(model).module
    assert ours(model, images, anew=True) == bare(module, images)
    for what, anew in (("the first time", True), ("again", False)):
        yield Case(
            what=f"evaluate, test_resnet, JPEGs of {SIDE} px, {what}", peer="a bare loop",
            unit="ms an image", turns=5,
            ours=lambda anew=anew: 1e3 * wall(lambda: ours(model, images, anew=anew)) / COUNT,  # type: ignore[misc]
            theirs=lambda: 1e3 * wall(lambda: bare(module, images)) / COUNT,
        )  # fmt: skip
