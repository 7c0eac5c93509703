"""The memory that a training step really takes on a CPU, over what its shapes say at least.

python -m benchmarks.step_memory [NETWORK SIDE IMAGES frozen|moving]

Without arguments all of WORK, each in a process of its own: the peak of resident memory in three
steps of labels alone, less what the process held before, over `least_bytes`. The loader is not in
it. From this comes ROOM of pipelines/room.py.
"""

import subprocess
import sys

import torch

from benchmarks.journal import machine
from benchmarks.resident import held
from tutelage.core import Batch, Clock, Labeled, Stage
from tutelage.learner import Learner, choose_device
from tutelage.methods.method import State
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import Net, build
from tutelage.networks.freeze import Freeze, freeze
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim
from tutelage.speed.training_memory import least_bytes

WORK = (
    ("tf_efficientnet_lite0", 160, 160, "frozen"), ("tf_efficientnet_lite0", 96, 320, "frozen"),
    ("tf_efficientnet_lite0", 160, 64, "moving"), ("efficientnet_b0", 224, 64, "frozen"),
    ("resnet18", 160, 320, "frozen"), ("resnet18", 224, 64, "moving"),
    ("resnet50", 224, 64, "frozen"), ("mobilenetv3_large_100", 224, 64, "frozen"),
    ("vit_tiny_patch16_224", 224, 64, "frozen"), ("convnext_atto", 224, 64, "frozen"),
)  # fmt: skip


def measure(network: str, side: int, images: int, norms: str) -> tuple[int, int]:
    """Bytes that the shapes say, and those that were taken."""
    choose_device("cpu")  # which sets how freed memory is kept
    net = Net(name=network, num_classes=10, img_size=side, small_stem=False)
    recipe = Recipe(
        net=net, method=Supervised(), noise=Noise(),
        stages=(Stage(steps=10, size=side, magnitude=5.0),),
        optim=Optim().resolved(batch_norm=True, pretrained=True), batch=images,
        freeze=Freeze(norms=norms == "frozen"),
    )  # fmt: skip
    least = least_bytes(recipe)
    before = held("VmRSS")
    module = build(net)
    freeze(module, recipe.freeze)
    state = State(Learner(module, recipe.optim))
    pixels = torch.rand(images, 3, side, side)
    batch = Batch(Labeled(pixels, torch.eye(10)[torch.arange(images) % 10]), None)
    for step in range(3):
        recipe.method.step(state, batch, Clock(step, 10))
    return least, held("VmHWM") - before


def main() -> None:
    """One case for the parent, or the table of all."""
    if len(sys.argv) > 1:
        network, side, images, norms = sys.argv[1:]
        print(*measure(network, int(side), int(images), norms))
        return
    print("| network | side | images | batch norm | by shapes, GB | taken, GB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in WORK:
        words = [sys.executable, "-m", "benchmarks.step_memory", *map(str, case)]
        least, taken = map(int, subprocess.check_output(words, text=True).split())
        network, side, images, norms = case
        print(
            f"| {network} | {side} | {images} | {norms} | {least / 1e9:.2f} | {taken / 1e9:.2f} | "
            f"{taken / least:.2f} |",
            flush=True,
        )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
