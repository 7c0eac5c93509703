"""A step of FlexMatch whose weak view is asked alone, beside one that shows all views together.

Both are this package's step on the same images and a network whose batch norm keeps its statistics,
so that both learn the same; "theirs" is told that the network mixes images, as batch norm in
training does, and as the reference codes have it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.paired import Case, wall
from tutelage.core import Batch, Clock, Labeled, Unlabeled
from tutelage.learner import Learner, choose_device
from tutelage.methods.flexmatch import FlexMatch
from tutelage.methods.method import State
from tutelage.networks.build import Net, build
from tutelage.networks.freeze import Freeze, freeze
from tutelage.settings import Optim

RATIO, CLASSES = 4, 10
WORK = (("tf_efficientnet_lite0", 96, 16), ("resnet18", 96, 16))


def step(network: str, side: int, labels: int, *, together: bool) -> Callable[[], object]:
    """One step of a network with new weights, again and again."""
    method, pool = FlexMatch(), RATIO * labels
    net = Net(name=network, num_classes=CLASSES, img_size=side, small_stem=False)
    module = build(net)
    freeze(module, Freeze(norms=True))
    optim = Optim().resolved(batch_norm=True, pretrained=True)
    state = State(Learner(module, optim), None, method.memory(CLASSES, pool))
    state.student.mixes_images = together
    targets = torch.eye(CLASSES)[torch.arange(labels) % CLASSES]
    views = {name: torch.rand(pool, 3, side, side) for name in method.unlabeled_views}
    labeled = Labeled(torch.rand(labels, 3, side, side), targets)
    batch = Batch(labeled, Unlabeled(torch.arange(pool), views, None))
    return lambda: method.step(state, batch, Clock(500, 1000))


def cases(folder: Path) -> Iterator[Case]:
    """A mobile network and a plain one."""
    choose_device("cpu")
    for network, side, labels in WORK:
        ours, theirs = (step(network, side, labels, together=one) for one in (False, True))
        yield Case(
            what=f"a step of FlexMatch, {network} at {side} px, {labels} labels and {RATIO} times "
            "the pool",
            peer="all views in one pass", unit="s", turns=5,
            ours=partial(wall, ours), theirs=partial(wall, theirs),
        )  # fmt: skip
