from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tutelage.core import Stage
from tutelage.data.operations import as_float
from tutelage.data.views import VIEWS, center, plain, strong, weak
from tutelage.settings import Noise


def stage(size=16, magnitude=0.0, cutout=0.0):
    return Stage(steps=1, size=size, magnitude=magnitude, cutout=cutout)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(seed=0, count=6, side=16):
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=dice(seed))


def coordinates(count=64, side=16):
    """Images whose red is the row and whose green is the column of each pixel."""
    row = torch.arange(side, dtype=torch.uint8)[:, None].expand(side, side)
    image = torch.stack([row, row.T, torch.full_like(row, 7)])
    return image[None].repeat(count, 1, 1, 1)


def test_the_plain_view_draws_nothing_and_changes_nothing_at_the_canvas_size():
    generator = dice()
    before = generator.get_state()
    out = plain(batch(), generator, stage(), Noise())
    assert torch.equal(out, batch().float() / 255)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("canvas", "size", "top"), [(18, 16, 1), (19, 16, 1), (37, 32, 2)])
def test_a_larger_canvas_is_cropped_to_its_center(canvas, size, top):
    images = batch(side=canvas)
    expected = images[:, :, top : top + size, top : top + size].float() / 255
    assert torch.equal(center(images, size), expected)


def test_a_smaller_canvas_is_resized():
    out = center(batch(side=8), 16)
    expected = functional.interpolate(batch(side=8).float() / 255, (16, 16), mode="bilinear")
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("flip", [True, False])
def test_every_row_and_column_of_the_weak_view_comes_from_the_input_in_order(flip):
    out = (weak(coordinates(), dice(), stage(), Noise(flip=flip)) * 255).round().long()
    assert (out[:, 2] == 7).all()
    rows, columns = out[:, 0], out[:, 1]
    assert (rows == rows[:, :, :1]).all()  # one row of the input in each row of the output
    assert (columns == columns[:, :1]).all()
    flipped = 0
    for row, column in zip(rows[:, :, 0], columns[:, 0], strict=True):
        assert (row.diff() == 1).sum() >= 11  # a shift by at most 2, then up to 2 mirrored rows
        assert (row.diff().abs() == 1).all()  # the edge itself comes once
        mirrored = (column.diff() == -1).sum() >= 11
        assert mirrored or (column.diff() == 1).sum() >= 11
        flipped += int(mirrored)
    assert 15 < flipped < 49 if flip else flipped == 0


def test_the_weak_views_shifts_reach_an_eighth_and_cover_all_directions():
    out = (weak(coordinates(400), dice(), stage(), Noise(flip=False)) * 255).round().long()
    shifts = {(int(image[0, 8, 8]) - 8, int(image[1, 8, 8]) - 8) for image in out}
    assert shifts == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_a_resized_crop_without_flip_never_mirrors():
    size = 80
    images = coordinates(64, size)
    for flip in (False, True):
        noise = Noise(crop="resized", flip=flip)
        columns = (weak(images, dice(1), stage(size), noise) * 255)[:, 1, size // 2]
        mirrored = (columns[:, -1] < columns[:, 0]).sum().item()
        assert mirrored == 0 if not flip else 15 < mirrored < 49


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.05, 1), st.sampled_from([(24, 16), (16, 24), (16, 16)]))
def test_a_resized_crop_keeps_shape_and_range_and_stays_inside(seed, area, sides):
    canvas, size = sides
    out = weak(
        coordinates(8, canvas), dice(seed), stage(size), Noise(crop="resized", min_area=area)
    )
    assert out.shape == (8, 3, size, size)
    assert torch.allclose(out[:, 2] * 255, torch.tensor(7.0), atol=1e-3)  # no border comes in
    assert out.min() >= 0
    assert out.max() * 255 <= canvas - 1 + 1e-3


def test_a_resized_crop_keeps_at_least_its_smallest_area():
    side = 100
    noise = Noise(crop="resized", min_area=0.5, flip=False)
    out = weak(coordinates(200, side), dice(), stage(side), noise) * 255
    height = (out[:, 0, -1, 50] - out[:, 0, 0, 50] + 1) / side
    width = (out[:, 1, 50, -1] - out[:, 1, 50, 0] + 1) / side
    area = height * width
    assert area.min() > 0.40  # 0.5, less what the aspect ratio's clipping takes
    assert area.max() > 0.95
    assert ((width / height) < 4 / 3 + 0.03).all()
    assert ((width / height) > 3 / 4 - 0.03).all()


def test_a_crop_of_the_whole_image_is_the_image():
    images = batch(side=80)
    generator = dice(3)
    noise = Noise(crop="resized", min_area=1.0, flip=False)
    out = weak(images, generator, stage(80), noise)
    squares = torch.rand(5, len(images), generator=dice(3))[1].sub(0.5).abs() < 1e-6
    assert out.shape == (6, 3, 80, 80)
    assert torch.allclose(out[squares], images[squares].float() / 255, atol=1e-4)


def test_without_magnitude_and_cutout_strong_is_weak():
    images = batch()
    noise = Noise()
    assert torch.equal(
        strong(images, dice(2), stage(), noise), weak(images, dice(2), stage(), noise)
    )


def test_strong_disturbs_more_than_weak_and_is_seeded():
    images, noisy = batch(), stage(magnitude=10, cutout=0.5)
    first, again, other = (strong(images, dice(seed), noisy, Noise()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, weak(images, dice(1), stage(), Noise()))
    gray = (first == 0.5).all(1).float().mean((1, 2))
    assert gray.min() > 0.05


POLICIES = [
    Noise(), Noise(scale="timm", op_prob=0.5, magnitude_std=0.5), Noise(scale="tf"),
    Noise(policy="autoaugment"), Noise(policy="autoaugment:cifar10"),
    Noise(policy="trivialaugment"), Noise(erase=0.9), Noise(erase=0.9, erase_fill="color"),
    Noise(policy="timm:rand-m9-mstd0.5-inc1"), Noise(policy="torchvision:randaugment"),
]  # fmt: skip


@pytest.mark.parametrize("noise", POLICIES, ids=lambda n: f"{n.policy}-{n.scale}-{n.erase_fill}")
@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_every_policy_is_seeded_and_different_from_the_weak_view(noise, crop):
    images, noisy = batch(count=12), stage(magnitude=9)
    noise = replace(noise, crop=crop)
    first, again, other = (strong(images, dice(seed), noisy, noise) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, weak(images, dice(1), noisy, noise))
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1


def test_policies_give_results_of_their_own():
    images, noisy = batch(count=12), stage(magnitude=9)
    made = [strong(images, dice(1), noisy, noise) for noise in POLICIES]
    assert len({one.numpy().tobytes() for one in made}) == len(POLICIES)


def test_the_magnitude_is_that_of_randaugment_alone():
    images = batch()
    for policy in ("autoaugment", "trivialaugment"):
        still, strongest = (
            strong(images, dice(1), stage(magnitude=m), Noise(policy=policy)) for m in (0, 10)
        )
        assert torch.equal(still, strongest)


def test_erasing_comes_before_cutout():
    images = batch(count=64)
    out = strong(images, dice(), stage(cutout=1.0), Noise(erase=1.0))
    gray = (out == 0.5).all(1).float().mean((1, 2))
    assert gray.mean() > 0.5  # as without erasing: nothing is put over it


@pytest.mark.parametrize("crop", ["pad", "resized"])
@pytest.mark.parametrize("sides", [(16, 24), (20, 9), (1, 3)])
@pytest.mark.parametrize("name", VIEWS)
def test_images_that_are_not_square_and_batches_without_any_are_taken(name, sides, crop):
    for count in (0, 1, 5):
        images = torch.randint(256, (count, 3, *sides), dtype=torch.uint8, generator=dice())
        out = VIEWS[name](images, dice(), stage(16, magnitude=9, cutout=0.4), Noise(crop=crop))
        assert out.shape == (count, 3, 16, 16)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("crop", ["pad", "resized"])
@pytest.mark.parametrize(("canvas", "size"), [(16, 16), (16, 24), (37, 32), (1, 4), (3, 3)])
def test_every_view_has_the_stages_size_and_leaves_its_input(name, crop, canvas, size):
    images = batch(side=canvas)
    before = images.clone()
    out = VIEWS[name](images, dice(), stage(size, magnitude=7, cutout=0.4), Noise(crop=crop))
    assert out.shape == (6, 3, size, size)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(images, before)


def test_floats_are_uint8_over_255():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_float(values), torch.arange(256) / 255)


def test_objects_look_as_large_in_resized_crops_as_fixres_says():
    """E[sqrt(area)] = 2/3 (1 - a^1.5) / (1 - a), which is 0.7082 for areas from a = 0.08 (Touvron
    et al. 2019, arXiv 1906.06423); a crop that would leave the image is a little smaller."""
    ramp = torch.linspace(40, 215, 64).round().to(torch.uint8)
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)])
    noise = Noise(crop="resized", min_area=0.08, flip=False)
    dice = torch.Generator().manual_seed(0)
    seen = weak(images.expand(3000, 3, 64, 64), dice, stage(size=32), noise)
    whole = (215 - 40) / 255 * 31 / 32  # from the first to the last pixel of an image of 32
    width = (seen[:, 0, 16, 31] - seen[:, 0, 16, 0]) / whole
    height = (seen[:, 1, 31, 16] - seen[:, 1, 0, 16]) / whole
    expected = 2 / 3 * (1 - 0.08**1.5) / (1 - 0.08)
    assert expected == pytest.approx(0.7082, abs=1e-4)
    assert (width * height).sqrt().mean() == pytest.approx(expected, abs=0.02)
