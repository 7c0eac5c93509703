"""Cutout and random erasing: where, how large, how often."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import smooth_batch

from tutelage.data.erasing import GRAY, boxes, cutout, erase


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.integers(4, 20))
def test_cutout_is_one_gray_rectangle_clipped_at_the_border(seed, side, size):
    images = torch.zeros(3, 3, size, size)
    out = cutout(images, dice(seed), side=side)
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
    out = cutout(torch.zeros(4000, 3, size, size), dice(), side=side)
    share = (out[:, 0] == GRAY).float().mean((1, 2))
    # along one axis the covered length is `side`, less what a uniform center loses: side^2 / 4
    assert share.mean().item() == pytest.approx((side - side**2 / 4) ** 2, abs=0.003)
    assert share.max().item() == pytest.approx(side**2, abs=0.02)
    assert share.min().item() == pytest.approx(side**2 / 4, abs=0.03)


def test_cutout_of_side_zero_and_equal_generators():
    images = smooth_batch(7)
    assert cutout(images, dice(), side=0.0) is images
    first, again = (cutout(images, dice(4), side=0.5) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, images)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60)])
def test_erased_boxes_have_timms_areas_and_aspects_and_lie_inside(height, width):
    top, left, rows, columns = boxes(4000, height, width, dice()).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    area = rows * columns / (height * width)
    assert area.min() > 0.01  # 0.02, rounded to whole pixels
    assert area.max() < 1 / 3 + 0.03
    if height == width:
        assert area.mean().item() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
        large = area > 0.1  # of which whole pixels blur the ratio little
        ratio = (rows[large] / columns[large]).log()
        assert ratio.abs().max() < math.log(1 / 0.3) + 0.15
        assert ratio.mean().abs() < 0.05
    for place, side, length in ((top, rows, height), (left, columns, width)):
        share = place / (length - side).clamp(min=1)
        assert share.mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("fill", ["noise", "color", "gray"])
def test_images_are_erased_as_often_as_is_said_and_in_one_box_alone(fill):
    images = torch.full((2000, 3, 16, 16), 2.0)  # no fill has this value
    out = erase(images, dice(), prob=0.25, fill=fill)
    inside = out != 2
    assert inside.flatten(1).any(1).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(inside, inside[:, :1].expand_as(inside))
    rows, columns = inside[:, 0].any(2), inside[:, 0].any(1)
    assert torch.equal(inside[:, 0], rows[:, :, None] & columns[:, None])
    values = out[inside]
    assert values.min() >= 0
    assert values.max() <= 1
    each = [len(image[:, where[0]].unique()) for image, where in zip(out, inside, strict=True)]
    most = {"noise": 16 * 16 * 3, "color": 3, "gray": 1}[fill]
    assert max(each) <= most
    assert max(each) > most / 4
    assert (values == GRAY).all() == (fill == "gray")


def test_erasing_is_seeded_and_leaves_its_input():
    images = smooth_batch(7, batch=16)
    before = images.clone()
    first, again, other = (erase(images, dice(seed), prob=0.8) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert erase(images, dice(), prob=0.0) is images


@pytest.mark.parametrize("sides", [(1, 1), (1, 5), (2, 2), (3, 40)])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_erasing_takes_images_of_any_shape_number_and_type(sides, count):
    images = torch.randint(256, (count, 3, *sides), dtype=torch.uint8, generator=dice())
    for kind in (images, images / 255):
        for out in (erase(kind, dice(), prob=1.0), cutout(kind, dice(), side=0.5)):
            assert out.shape == kind.shape
            assert out.dtype == kind.dtype
