"""Every operation against Pillow on 8-bit images, one level of gray being 1 / 255."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import smooth_batch
from PIL import Image, ImageEnhance, ImageOps

from tutelage.data.randaugment import GRAY, OPERATIONS, cutout, randaugment

LEVELS = [-1.0, -0.7, -0.3, 0.0, 0.2, 0.5, 0.9, 1.0]
SIDE = 24
GEOMETRIC = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def to_pillow(image):
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def from_pillow(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def rough_batch(seed, batch=4, side=SIDE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, 3, side, side), generator=generator) / 255


def narrow_batch(seed):
    """Images that use few gray levels, down to one and two."""
    images = rough_batch(seed)
    images[0] = 0.2 + images[0] * 0.3
    images[1] = images[1].round() / 255 + 99 / 255
    images[2] = 77 / 255
    images[3, 0] = 0
    return (images * 255).round() / 255


BATCHES = {"smooth": smooth_batch(1), "rough": rough_batch(2), "narrow": narrow_batch(3)}


def steps_apart(name, images, level, oracle):
    """Largest distance to the oracle in gray levels, over all images of the batch."""
    ours = OPERATIONS[name](images.clone(), torch.full((len(images),), level))
    theirs = torch.stack([from_pillow(oracle(to_pillow(image))) for image in images])
    return ((ours - theirs).abs() * 255).max().item()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancers_are_pillows(name, level, batch):
    # Pillow rounds the smoothed or gray image, multiplies that by up to 0.9, and cuts decimals off.
    allowed = 1.0 if name == "brightness" else 1.5
    enhance = ENHANCERS[name]
    apart = steps_apart(
        name, BATCHES[batch], level, lambda image: enhance(image).enhance(1 + 0.9 * level)
    )
    assert apart < allowed


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("level", LEVELS)
def test_posterize_is_exactly_pillows(level, batch):
    bits = 8 - round(4 * abs(level))
    apart = steps_apart(
        "posterize", BATCHES[batch], level, lambda image: ImageOps.posterize(image, bits)
    )
    assert apart < 1e-3


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("level", LEVELS)
def test_solarize_is_exactly_pillows(level, batch):
    threshold = 256 * (1 - abs(level))  # the reference code's scale, which at level 0 is no change
    apart = steps_apart(
        "solarize", BATCHES[batch], level,
        lambda image: ImageOps.solarize(image, math.ceil(round(threshold, 3))),
    )  # fmt: skip
    assert apart < 1e-3


@pytest.mark.parametrize("batch", BATCHES)
def test_equalize_is_exactly_pillows(batch):
    assert steps_apart("equalize", BATCHES[batch], 1.0, ImageOps.equalize) < 1e-3


@pytest.mark.parametrize("batch", BATCHES)
def test_autocontrast_is_pillows_before_it_cuts_decimals_off(batch):
    assert steps_apart("autocontrast", BATCHES[batch], 1.0, ImageOps.autocontrast) < 1.001


def matrix(name, level):
    """Pillow's (a, b, c, d, e, f): where in the input an output pixel comes from."""
    middle, angle = SIDE / 2, math.radians(30 * level)
    cos, sin = math.cos(angle), math.sin(angle)
    shift, shear = 0.3 * level * SIDE, 0.3 * level
    return {
        "rotate": (cos, -sin, middle * (1 - cos + sin), sin, cos, middle * (1 - cos - sin)),
        "shear_x": (1, shear, -shear * middle, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, -shear * middle),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }[name]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operations_are_pillows_affine_transform_in_the_interior(name, level):
    images = BATCHES["smooth"]
    how = (Image.Transform.AFFINE, matrix(name, level), Image.Resampling.BILINEAR)
    marker = Image.new("L", (SIDE, SIDE), 255).transform((SIDE, SIDE), *how)
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    a, b, c, d, e, f = matrix(name, level)
    source = np.stack([a * x + b * y + c, d * x + e * y + f])
    interior = torch.from_numpy(((source > 1) & (source < SIDE - 1)).all(0))
    assert interior.float().mean() > 0.4
    assert np.asarray(marker)[interior].min() == 255
    ours = OPERATIONS[name](images, torch.full((4,), level))
    for image, moved in zip(images, ours, strict=True):
        theirs = from_pillow(to_pillow(image).transform((SIDE, SIDE), *how))
        apart = ((theirs - moved).abs() * 255)[:, interior]
        assert apart.max() < 1.01  # Pillow rounds to 8 bits


@pytest.mark.parametrize("name", GEOMETRIC)
def test_what_a_geometric_operation_uncovers_is_gray(name):
    moved = OPERATIONS[name](torch.ones(2, 3, SIDE, SIDE), torch.tensor([1.0, -1.0]))
    assert torch.allclose(moved.amin((1, 2, 3)), torch.tensor(GRAY))
    assert moved.max() == 1


def test_a_shift_by_level_one_is_three_tenths_of_the_side():
    image = torch.zeros(1, 3, 20, 20)
    image[:, :, :, 10] = 1
    moved = OPERATIONS["translate_x"](image, torch.ones(1))
    assert moved[0, 0, 5].argmax() == 4
    turned = OPERATIONS["translate_y"](image.transpose(2, 3), torch.ones(1))
    assert torch.allclose(turned.transpose(2, 3), moved)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"autocontrast", "equalize"}))
@pytest.mark.parametrize("batch", BATCHES)
def test_level_zero_changes_nothing(name, batch):
    images = BATCHES[batch]
    assert torch.allclose(OPERATIONS[name](images.clone(), torch.zeros(4)), images, atol=1e-5)


@settings(max_examples=25)
@given(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 1000), st.floats(-1, 1))
def test_operations_keep_the_range_the_shape_and_their_input(name, seed, level):
    images = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    before = images.clone()
    out = OPERATIONS[name](images, torch.tensor([level, -level, 1.0]))
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_image_is_treated_alike_in_any_company(name):
    images, levels = torch.cat(list(BATCHES.values())), torch.linspace(-1, 1, 12)
    together = OPERATIONS[name](images, levels)
    alone = torch.cat([OPERATIONS[name](images[i : i + 1], levels[i : i + 1]) for i in range(12)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_smallest_images_are_taken_too(name, side):
    out = OPERATIONS[name](torch.rand(2, 3, side, side), torch.tensor([1.0, -1.0]))
    assert out.shape == (2, 3, side, side)
    assert torch.isfinite(out).all()


def test_equal_generators_give_equal_images_and_others_do_not():
    images = smooth_batch(5, batch=16)
    before = images.clone()
    first, again, other = (
        randaugment(images, torch.Generator().manual_seed(seed), magnitude=9) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)


def test_images_of_a_batch_get_different_operations():
    images = smooth_batch(5, batch=1).expand(64, -1, -1, -1)
    out = randaugment(images, torch.Generator().manual_seed(0), magnitude=9)
    assert len({image.numpy().tobytes() for image in out}) > 40


def test_one_operation_is_drawn_as_often_as_another():
    # a gray ramp, on which each operation, and each sign where it matters, has its own result
    ramp = (torch.arange(256).reshape(1, 1, 16, 16) / 255).repeat(1, 3, 1, 1)
    ramp = ((ramp * torch.tensor([0.9, 0.7, 0.4])[:, None, None] + 0.05) * 255).round() / 255
    signed = [(name, sign) for name in OPERATIONS for sign in (0.5, -0.5)]
    known = torch.cat([OPERATIONS[name](ramp, torch.tensor([sign])) for name, sign in signed])
    out = randaugment(
        ramp.expand(2800, -1, -1, -1), torch.Generator().manual_seed(3), magnitude=5, num_ops=1
    )
    exact = "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(out.flatten(1), known.flatten(1), compute_mode=exact).min(1)
    assert nearest.values.max() < 1e-4
    drawn = [signed[index] for index in nearest.indices.tolist()]
    names = [name for name, _ in drawn]
    counts = [names.count(name) for name in OPERATIONS]
    assert sum(counts) == 2800
    assert min(counts) > 200 - 5 * math.sqrt(200)
    assert max(counts) < 200 + 5 * math.sqrt(200)
    for name in (*GEOMETRIC, *ENHANCERS):  # where the sign matters, both come equally often
        assert abs(drawn.count((name, 0.5)) - counts[list(OPERATIONS).index(name)] / 2) < 40


def test_no_operation_gives_the_images_back():
    images = smooth_batch(6)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(randaugment(images, generator, magnitude=9, num_ops=0), images)


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.integers(4, 20))
def test_cutout_is_one_gray_rectangle_clipped_at_the_border(seed, side, size):
    images = torch.zeros(3, 3, size, size)
    out = cutout(images, torch.Generator().manual_seed(seed), side=side)
    for image in out:
        inside = image[0] == GRAY
        assert torch.equal(image, inside.float().mul(GRAY).expand(3, -1, -1))
        rows, columns = inside.any(1), inside.any(0)
        assert torch.equal(inside, rows[:, None] & columns[None])
        for line in (rows, columns):
            index = line.nonzero()[:, 0]
            assert len(index) == 0 or index[-1] - index[0] + 1 == len(index)
            clipped = bool(line[0] or line[-1])
            assert len(index) <= side * size + 1
            assert clipped or len(index) >= side * size - 1


def test_cutouts_mean_area_is_that_of_a_square_clipped_at_the_border():
    size, side = 32, 0.5
    out = cutout(torch.zeros(4000, 3, size, size), torch.Generator().manual_seed(0), side=side)
    share = (out[:, 0] == GRAY).float().mean((1, 2))
    # along one axis the covered length is `side`, less what a uniform center loses: side^2 / 4
    assert share.mean().item() == pytest.approx((side - side**2 / 4) ** 2, abs=0.003)
    assert share.max().item() == pytest.approx(side**2, abs=0.02)
    assert share.min().item() == pytest.approx(side**2 / 4, abs=0.03)


def test_cutout_of_side_zero_and_equal_generators():
    images = smooth_batch(7)
    assert cutout(images, torch.Generator().manual_seed(0), side=0.0) is images
    first, again = (cutout(images, torch.Generator().manual_seed(4), side=0.5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, images)
