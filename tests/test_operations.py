"""Every operation against Pillow on the same 8-bit images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import smooth_batch
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment
from torchvision.transforms.v2 import functional as vision

from tutelage.data import operations
from tutelage.data.operations import GEOMETRIC, GRAY, IDENTITY, NAMES, OF_COLOR, apply, as_bytes

HEIGHT, WIDTH = 24, 30
FACTORS = [0.0, 0.1, 0.37, 0.73, 1.0, 1.18, 1.9, 4.96]
AMOUNTS = {  # for each operation a list that reaches to both ends, and beyond
    "rotate": [-81.0, -30.0, 0.0, 7.0, 90.0, 135.0],
    "shear_x": [-0.99, -0.3, 0.0, 0.1, 0.81],
    "shear_y": [-0.99, -0.3, 0.0, 0.1, 0.81],
    "translate_x": [-1.3, -0.3, 0.0, 0.11, 0.45],
    "translate_y": [-1.3, -0.3, 0.0, 0.11, 0.45],
    "brightness": FACTORS,
    "contrast": FACTORS,
    "color": FACTORS,
    "sharpness": FACTORS,
    "posterize": [0.0, 1.0, 2.0, 4.0, 7.0, 8.0, 10.0],
    "solarize": [0.0, 0.5, 25.6, 128.0, 255.0, 255.5, 256.0, 691.0],
    "solarize_add": [0.0, 33.0, 110.0, 128.0, 200.0, 297.0],
    "autocontrast": [0.0],
    "equalize": [0.0],
    "invert": [0.0],
    "cutout": [0.0, 0.3, 1.0, 2.5],
    "identity": [0.0],
}
CASES = [(name, amount) for name, amounts in AMOUNTS.items() for amount in amounts]


def rough_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (4, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)


def narrow_batch(seed):
    """Images that use few gray levels, down to one and two."""
    images = rough_batch(seed)
    images[0] = 50 + images[0] // 4
    images[1] = 99 + images[1] // 128
    images[2] = 77
    images[3, 0] = 0
    return images


def smooth():
    return as_bytes(smooth_batch(1, side=WIDTH)[:, :, :HEIGHT])


BATCHES = {"smooth": smooth(), "rough": rough_batch(2), "narrow": narrow_batch(3)}


def to_pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pillow(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def apply_one(name, images, amount):
    """The operation on all images, with one amount or one for each."""
    amounts = torch.as_tensor(amount).expand(len(images))
    choice = torch.full((1, len(images)), NAMES.index(name))
    return apply(images, choice, amounts[None], torch.full((1, len(images), 2), 0.5))


def black(image):
    return Image.new("RGB", image.size)


ORACLES = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    "posterize": lambda image, bits: (
        ImageOps.posterize(image, min(8, int(bits))) if bits else black(image)
    ),
    "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
    "solarize_add": lambda image, levels: auto_augment.solarize_add(image, int(levels)),
    "autocontrast": lambda image, amount: ImageOps.autocontrast(image),
    "equalize": lambda image, amount: ImageOps.equalize(image),
    "invert": lambda image, amount: ImageOps.invert(image),
}
# Gray levels. Pillow cuts the decimals off; where a product of floats is a whole number but for its
# last bit, that can be one level.
ALLOWED = {"autocontrast": 1, "brightness": 1, "contrast": 1, "color": 1, "sharpness": 1}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("name", "amount"), [case for case in CASES if case[0] in ORACLES])
def test_operations_of_color_are_pillows(name, amount, batch):
    images = BATCHES[batch]
    ours = apply_one(name, images, amount)
    theirs = torch.stack([from_pillow(ORACLES[name](to_pillow(i), amount)) for i in images])
    apart = (ours.int() - theirs.int()).abs()
    assert apart.max() <= ALLOWED.get(name, 0)
    assert (apart > 0).float().mean() < 0.02  # and that is rare


def test_every_operation_of_color_has_an_oracle():
    assert set(ORACLES) == set(OF_COLOR)
    assert set(AMOUNTS) == set(NAMES)


def matrix(name, amount):
    """Pillow's (a, b, c, d, e, f): where in the input an output pixel comes from."""
    x, y, angle = WIDTH / 2, HEIGHT / 2, math.radians(amount)
    cos, sin = math.cos(angle), math.sin(angle)
    return {
        "rotate": (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y),
        "shear_x": (1, amount, -amount * y, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, -amount * x),
        "translate_x": (1, 0, amount * WIDTH, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount * HEIGHT),
    }[name]


@pytest.mark.parametrize(("name", "amount"), [case for case in CASES if case[0] in GEOMETRIC])
def test_geometric_operations_are_pillows_affine_transform_in_the_interior(name, amount):
    # at the border Pillow repeats the edge for half a pixel, where here it fades into gray
    images = BATCHES["smooth"]
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    a, b, c, d, e, f = matrix(name, amount)
    source = np.stack([a * x + b * y + c, d * x + e * y + f])
    sides = np.array([WIDTH, HEIGHT])[:, None, None]
    interior = torch.from_numpy(((source > 1) & (source < sides - 1)).all(0))
    outside = torch.from_numpy(((source < -1) | (source > sides + 1)).any(0))
    assert interior.float().mean() > 0.3 or abs(amount) > 0.5
    ours = apply_one(name, images, amount)
    how = (Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    theirs = torch.stack(
        [from_pillow(to_pillow(i).transform((WIDTH, HEIGHT), *how)) for i in images]
    )
    apart = (ours.int() - theirs.int()).abs()[..., interior]
    assert apart.numel() == 0 or apart.max() <= 1  # both round to 8 bits
    assert (ours[..., outside] == GRAY).all()


def test_rotations_turn_as_torchvisions_do_on_images_of_any_shape():
    images = BATCHES["smooth"]
    theirs = vision.rotate(
        images.float(), 20.0, vision.InterpolationMode.BILINEAR, fill=float(GRAY)
    )
    ours = apply_one("rotate", images, 20.0).float()
    apart = (ours - theirs).abs()
    assert apart.quantile(0.85) < 0.6  # rounded, but for the border, where torchvision blends twice


@pytest.mark.parametrize("name", GEOMETRIC)
def test_what_a_geometric_operation_uncovers_is_gray(name):
    moved = apply_one(name, torch.full((1, 3, 24, 24), 255, dtype=torch.uint8),
                      30.0 if name == "rotate" else 0.3)  # fmt: skip
    assert moved.min() == GRAY
    assert moved.max() == 255


def test_a_shift_is_a_share_of_the_side():
    image = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    image[:, :, :, 10] = 255
    moved = apply_one("translate_x", image, 0.3)
    assert moved[0, 0, 5].argmax() == 4
    turned = apply_one("translate_y", image.transpose(2, 3), 0.3)
    assert torch.equal(turned.transpose(2, 3), moved)


@settings(max_examples=60)
@given(
    st.sampled_from(CASES), st.integers(0, 1000), st.booleans(),
    st.sampled_from([(9, 9), (1, 1), (2, 2), (1, 7), (5, 2), (3, 3), (16, 4)]), st.integers(0, 3),
)  # fmt: skip
def test_operations_keep_range_shape_type_and_input(case, seed, floats, sides, count):
    images = torch.rand(count, 3, *sides, generator=torch.Generator().manual_seed(seed))
    images = images if floats else as_bytes(images)
    before = images.clone()
    out = apply_one(case[0], images, case[1])
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert not len(out) or (out.min() >= 0 and out.max() <= (1 if floats else 255))
    assert torch.equal(images, before)


def test_an_image_is_treated_alike_in_any_company():
    images = torch.cat(list(BATCHES.values())).repeat(12, 1, 1, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(CASES), (2, len(images)), generator=generator)
    choice = torch.tensor([NAMES.index(name) for name, _ in CASES])[drawn]
    amount = torch.tensor([amount for _, amount in CASES])[drawn]
    centers = torch.rand(2, len(images), 2, generator=generator)
    together = apply(images, choice, amount, centers)
    for i in range(0, len(images), 3):
        one = slice(i, i + 1)
        alone = apply(images[one], choice[:, one], amount[:, one], centers[:, one])
        assert torch.equal(alone, together[one])


def test_operations_follow_one_another():
    images = BATCHES["smooth"]
    names = ("rotate", "invert", "posterize")
    choice = torch.tensor([[NAMES.index(name)] * 4 for name in names])
    amount = torch.tensor([[30.0], [0.0], [3.0]]).expand(3, 4)
    step = images
    for name, value in zip(names, amount[:, 0], strict=True):
        step = apply_one(name, step, value)
    assert torch.equal(apply(images, choice, amount), step)


def test_nothing_drawn_is_a_copy():
    images = BATCHES["rough"]
    for slots in (0, 2):
        out = apply(images, torch.full((slots, 4), IDENTITY), torch.zeros(slots, 4))
        assert torch.equal(out, images)
        assert out.data_ptr() != images.data_ptr()


def test_the_order_in_memory_does_not_matter():
    images = BATCHES["rough"].contiguous(memory_format=torch.channels_last)
    for name, amount in CASES:
        assert torch.equal(
            apply_one(name, images, amount), apply_one(name, images.contiguous(), amount)
        )


def test_large_images_get_the_same_one_by_one(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 24, 20), dtype=torch.uint8, generator=generator)
    choice = torch.randint(len(NAMES), (3, 24), generator=generator)
    amount = 2 * torch.rand(3, 24, generator=generator)
    centers = torch.rand(3, 24, 2, generator=generator)
    batched = apply(images, choice, amount, centers)
    monkeypatch.setattr(operations, "PIECE", 24 * 20)
    before = images.clone()
    assert torch.equal(apply(images, choice, amount, centers), batched)
    assert torch.equal(images, before)
