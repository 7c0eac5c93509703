"""AutoAugment on whole batches: a learned list of pairs of operations, one pair an image.

Paper: Cubuk et al. 2019, AutoAugment (arXiv 1805.09501). Lists and strengths are read from the
libraries that hold them: `v0`, EfficientNet's for ImageNet, from timm; the paper's for ImageNet,
CIFAR-10 and SVHN from torchvision. Deviations of the operations: operations.py.
"""

from functools import cache

import torch
from timm.data.auto_augment import auto_augment_policy_v0
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from tutelage.data.draws import rand, randint
from tutelage.data.magnitudes import TF, TIMM_SHIFT, Rules, growing
from tutelage.data.operations import IDENTITY, NAMES, apply

POLICIES = ("v0", "imagenet", "cifar10", "svhn")
ALIKE = {"translate_y_rel": "translate_y", "auto_contrast": "autocontrast"}

# v0: EfficientNet's strengths, and timm's shift, a share of the side
V0: Rules = {**TF, "translate_y": TIMM_SHIFT}
# the paper's shifts, 150 of 331 pixels
PAPER: Rules = {
    **growing(
        shear=0.3, shift=(150 / 331, 150 / 331), degrees=30, factor=0.9, bits=4, threshold=255
    ),
    "invert": TF["invert"],
}


def _plain(name: str) -> str:
    """ShearX -> shear_x."""
    words = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)
    return ALIKE.get(words[1:], words[1:])


@cache
def pairs(policy: str) -> tuple[tuple[tuple[str, float, float], ...], ...]:
    """(operation, probability, level) of both operations of each pair."""
    if policy == "v0":
        rows = auto_augment_policy_v0({})
        return tuple(tuple((_plain(o.name), o.prob, o.magnitude / 10) for o in row) for row in rows)
    found = AutoAugment(AutoAugmentPolicy(policy)).policies
    return tuple(tuple((_plain(n), p, (m or 0) / 9) for n, p, m in row) for row in found)


@cache
def _tables(policy: str) -> tuple[Tensor, Tensor, Tensor]:
    """Operations (2, P), probabilities (2, P), and amounts (2, 2, P), for sign -1 and 1."""
    rules = V0 if policy == "v0" else PAPER
    rows = list(zip(*pairs(policy), strict=True))
    level = [[torch.tensor(one[2], dtype=torch.float64) for one in row] for row in rows]
    choice = torch.tensor([[NAMES.index(name) for name, _, _ in row] for row in rows])
    prob = torch.tensor([[p for _, p, _ in row] for row in rows])
    amounts = [
        [[rules[one[0]](at, torch.tensor(sign)) for one, at in zip(row, ats, strict=True)]
         for row, ats in zip(rows, level, strict=True)]
        for sign in (-1.0, 1.0)
    ]  # fmt: skip
    return choice, prob, torch.tensor(amounts)


def autoaugment(images: Tensor, generator: torch.Generator, *, policy: str) -> Tensor:
    """One pair of operations an image: (B, 3, H, W), float in [0, 1] or uint8."""
    choice, prob, amounts = _tables(policy)
    drawn = randint(0, choice.shape[1], (len(images),), generator=generator)
    sign = randint(0, 2, (2, len(images)), generator=generator, axis=1)
    skipped = rand(2, len(images), generator=generator, axis=1) >= prob[:, drawn]
    slot = torch.arange(2)[:, None]
    amount = amounts[sign, slot, drawn]
    return apply(images, choice[:, drawn].masked_fill(skipped, IDENTITY), amount)
