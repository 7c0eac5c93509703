"""A model that attacks break as they should, with images for it."""

import torch
from torch import nn

from tutelage.data.pixels import InMemory
from tutelage.robustness.suite import Subject, answered, joined


class Prototypes(nn.Module):
    """Answers with the class whose picture an image is most like; smooth, and easily broken."""

    def __init__(self, classes=4, side=8, scale=1.0, seed=0):
        super().__init__()
        dice = torch.Generator().manual_seed(seed)
        pictures = 0.35 + 0.3 * torch.rand(classes, 3, side, side, generator=dice)
        self.pictures = nn.Parameter(pictures)
        self.scale = scale

    def forward(self, images):
        distances = (images[:, None] - self.pictures).square().flatten(2).sum(-1)
        return -self.scale * distances


def subject(module=None, *, count=24, rows=None, batch=64, scale=10.0):
    """A model and images around its pictures, some of them on the wrong side."""
    module = (module or Prototypes(scale=scale)).eval().requires_grad_(False)
    classes = len(module.pictures)
    labels = torch.arange(count) % classes
    dice = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 3, 8, 8, generator=dice) * 0.01
    # on the way to the next class's picture, each image a little further
    far = torch.linspace(0.3, 0.52, count)[:, None, None, None]
    mixed = (1 - far) * module.pictures[labels] + far * module.pictures[(labels + 1) % classes]
    images = ((mixed + noise).clamp(0, 1) * 255).round().to(torch.uint8)
    rows = torch.arange(count) if rows is None else torch.tensor(rows)
    images, labels = images[rows].permute(0, 2, 3, 1).contiguous(), labels[rows]
    found = Subject(
        module=module, classes=tuple("abcdefgh"[:classes]), size=8, pixels=InMemory(images),
        labels=labels, names=tuple(f"image {i}" for i in rows.tolist()), clean={}, batch=batch,
    )  # fmt: skip
    clean = joined([answered(found.logits(images), 1.0) for _, images in found.batches()])
    return Subject(**(vars(found) | {"clean": clean}))


def run(suite, model):
    """All cases in turn, as the pipeline does."""
    found = {}
    for case in suite.cases(model):
        found[case.key] = suite.run(case, model, found, lambda done: None)
    return found
