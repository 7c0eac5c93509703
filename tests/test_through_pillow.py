"""timm's and torchvision's own augmentations: as they are, seeded by the generator, and alone."""

import random

import numpy as np
import pytest
import torch
from images import smooth_batch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torchvision import transforms

from tutelage.data.operations import as_bytes
from tutelage.data.through_pillow import TORCHVISION, through_pillow

NAMES = [
    "timm:rand-m9-mstd0.5-inc1", "timm:rand-m10-n3-p1", "timm:rand-m9-tweights", "timm:v0",
    "timm:v0r-mstd0.5", "timm:original", "timm:originalr", "timm:3a", "timm:augmix-m5-w4-d2",
    "timm:augmix-b1", *(f"torchvision:{name}" for name in TORCHVISION),
]  # fmt: skip


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_equal_generators_give_equal_images_and_no_state_is_touched(name):
    images = as_bytes(smooth_batch(1, batch=24))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, again, other = (through_pillow(images, dice(s), name=name) for s in (1, 1, 2))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, images)
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("name", NAMES)
def test_the_process_s_states_do_not_matter(name):
    images = as_bytes(smooth_batch(1, batch=8))
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        results.append(through_pillow(images, dice(), name=name))
    assert torch.equal(*results)


def test_timms_images_are_timms():
    images = as_bytes(smooth_batch(1, batch=8))
    options = {"translate_const": int(24 * 0.45), "img_mean": (128, 128, 128)}
    transform = rand_augment_transform("rand-m7-n2", options)
    seeds = torch.randint(2**32, (8,), generator=dice()).tolist()
    theirs = []
    for image, seed in zip(images, seeds, strict=True):
        random.seed(seed)
        np.random.seed(seed)
        theirs.append(np.asarray(transform(Image.fromarray(image.permute(1, 2, 0).numpy()))))
    ours = through_pillow(images, dice(), name="timm:rand-m7-n2")
    assert torch.equal(ours, torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2))


def test_torchvisions_images_are_torchvisions():
    images = as_bytes(smooth_batch(1, batch=8))
    seeds = torch.randint(2**32, (8,), generator=dice()).tolist()
    theirs = []
    with torch.random.fork_rng():
        for image, seed in zip(images, seeds, strict=True):
            torch.manual_seed(seed)
            made = transforms.TrivialAugmentWide()(Image.fromarray(image.permute(1, 2, 0).numpy()))
            theirs.append(np.asarray(made))
    ours = through_pillow(images, dice(), name="torchvision:trivialaugment")
    assert torch.equal(ours, torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2))


def test_floats_other_shapes_and_no_image_are_taken():
    for shape in ((0, 3, 8, 8), (2, 3, 1, 1), (2, 3, 2, 9)):
        images = torch.rand(*shape, generator=dice())
        out = through_pillow(images, dice(), name="torchvision:randaugment")
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert not len(out) or (out.min() >= 0 and out.max() <= 1)
