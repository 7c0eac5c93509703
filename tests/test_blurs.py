"""Blurs beside the published formulas, which SciPy, scikit-image and OpenCV work out."""

import numpy as np
import pytest
import torch
from benchmarks import reference_blur
from skimage.filters import gaussian
from test_corruptions import keys, photos

from tutelage.corruptions.blur import defocused, disk, gaussian_blurred
from tutelage.corruptions.corrupt import corrupt, truncated
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.glass import glass_blur, origins
from tutelage.corruptions.levels import LEVELS, SEVERITIES, SIZES
from tutelage.corruptions.motion import motion_blurred, steps
from tutelage.corruptions.zoom import zoom_blur, zoomed, zooms

CLOSE = 1e-6  # of a range of 1; about 4e-7 is measured, which float32 has in such sums
CPU = torch.device("cpu")
EACH = pytest.mark.parametrize("size", SIZES)


def rough(size, count=1):
    """Images with everything in them (N, 3, S, S), all values from 0 to 1."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def plain(images):
    """The first image as the formulas take it (S, S, 3) float64."""
    return images[0].permute(1, 2, 0).double().numpy()


def distance(images, expected):
    return np.abs(plain(images) - expected).max()


@EACH
def test_gaussian_blur_is_that_of_scipy(size):
    for (sigma,) in LEVELS["gaussian_blur"][size]:
        expected = gaussian(plain(rough(size)), sigma=sigma, channel_axis=-1)
        assert distance(gaussian_blurred(rough(size), sigma), expected) < CLOSE


def test_gaussian_blur_takes_any_shape_and_sigma():
    image = torch.rand(1, 1, 70, 33, generator=torch.Generator().manual_seed(0))
    for sigma in (9.0, 0.05, 0.0):
        found = gaussian_blurred(image, sigma)
        expected = gaussian(image[0, 0].double().numpy(), sigma=sigma)
        assert np.abs(found[0, 0].numpy() - expected).max() < CLOSE


@EACH
def test_defocus_is_that_of_opencv(size):
    for radius, sigma in LEVELS["defocus_blur"][size]:
        assert np.abs(disk(radius, sigma) - reference_blur.disk(radius, sigma)).max() < 1e-7
        expected = reference_blur.defocused(plain(rough(size)), radius, sigma)
        assert distance(defocused(rough(size), radius, sigma), expected) < CLOSE


def test_disks_at_the_edge_of_their_grid_brighten_and_small_ones_are_a_point():
    sums = [disk(*level).sum() for level in LEVELS["defocus_blur"][224]]
    assert [round(one, 4) for one in sums] == [1, 1, 1, 1.0130, 1.0108]
    assert [round(disk(*level).max(), 3) for level in LEVELS["defocus_blur"][32][:3]] == [
        0.845, 0.619, 0.445,
    ]  # fmt: skip
    gray = torch.full((1, 3, 224, 224), 0.5)
    for (radius, sigma), total in zip(LEVELS["defocus_blur"][224], sums, strict=True):
        assert (defocused(gray, radius, sigma) - 0.5 * total).abs().max() < CLOSE


@EACH
def test_motion_blur_is_a_correlation_with_imagemagicks_kernel(size):
    angles = torch.tensor([-44.7, -90.0, 0.0, 13.2, 45.0, 171.3])
    images = rough(size, len(angles))
    for radius, sigma in LEVELS["motion_blur"][size]:
        found = motion_blurred(images, radius, sigma, angles)
        for row, angle in enumerate(angles.tolist()):
            expected = reference_blur.moved(plain(images[row : row + 1]), radius, sigma, angle)
            assert distance(found[row : row + 1], expected) < CLOSE


def test_motion_goes_by_whole_pixels_along_the_angle():
    assert steps(4, 0).tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]
    assert steps(4, 90).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert steps(4, -26.565).tolist() == [[0, 0, -1, -1], [0, 1, 2, 3]]


def test_the_angle_is_drawn_from_45_degrees_up_to_45_down():
    point = torch.zeros(40, 3, 64, 64, dtype=torch.uint8)
    point[:, :, 32, 50] = 255
    streaks = corrupt(point, "motion_blur", 5, keys=keys(40)).float().mean(1)
    across = torch.arange(64.0)
    rows = (streaks.sum(2) * across).sum(1) / streaks.sum((1, 2)) - 32
    columns = (streaks.sum(1) * across).sum(1) / streaks.sum((1, 2)) - 50
    assert (columns < 0).all()
    slopes = rows / columns
    assert (slopes.abs() <= 1.2).all()
    assert (slopes.max(), slopes.min()) > (torch.tensor(0.7), torch.tensor(-0.7))


@EACH
def test_zoom_blur_is_that_of_scipy(size):
    for level in LEVELS["zoom_blur"][size]:
        expected = reference_blur.zoomed(plain(rough(size)), level)
        found = zoom_blur(rough(size), level, Draws(keys(1), CPU))
        assert distance(found, expected) < CLOSE


def test_any_zoom_is_that_of_scipy():
    for factor in (1.004, 1.12, 2, 2.5, 3, 4.5):
        expected = reference_blur.enlarged(plain(rough(45)), factor)
        assert distance(zoomed(rough(45), factor), expected) < CLOSE


def test_lists_of_zooms_have_the_published_lengths():
    assert [len(zooms(*level)) for level in LEVELS["zoom_blur"][224]] == [12, 16, 11, 13, 11]
    for size in (64, 32):
        assert [len(zooms(*level)) for level in LEVELS["zoom_blur"][size]] == [7, 12, 16, 21, 26]


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_takes_from_the_same_pixel_as_the_published_loop(reach):
    height, width = 37, 29
    dice = np.random.default_rng(reach)
    sides = height - 2 * reach, width - 2 * reach
    moves = dice.integers(-reach, reach, size=(2, 2, *sides))
    found = origins(torch.from_numpy(moves), height, width, reach=reach)
    for row in range(2):
        pixels = np.arange(height * width).reshape(height, width, 1)
        # the loop goes from the last pixel to the first, and takes columns before rows
        backwards = moves[row].reshape(2, -1)[::-1, ::-1].T
        reference_blur.exchange(pixels, reach, iter(backwards))
        assert np.array_equal(found[row].numpy(), pixels.ravel())


def test_about_half_of_the_pixels_survive_a_pass_of_glass():
    moves = Draws(["a"], CPU).integers(-2, 2, 2, 220, 220)
    share = len(origins(moves, 224, 224, reach=2).unique()) / 224**2
    assert 0.5 < share < 0.6


@EACH
def test_glass_between_its_blurs_is_the_published_one(size):
    images = photos(1, size).float().div(255)
    for severity in SEVERITIES:
        sigma, reach, passes = LEVELS["glass_blur"][size][severity - 1]
        found = glass_blur(images, (sigma, reach, passes), Draws(["a"], CPU))
        draws = Draws(["a"], CPU)
        soft = truncated(gaussian_blurred(images, sigma))  # float64 cuts off some other levels
        pixels = plain(soft).astype(np.uint8)
        for _ in range(int(passes)):
            side = size - 2 * int(reach)
            moves = draws.integers(-int(reach), int(reach), 2, side, side)[0].numpy()
            reference_blur.exchange(pixels, int(reach), iter(moves.reshape(2, -1)[::-1, ::-1].T))
        assert distance(found, gaussian(pixels / 255.0, sigma=sigma, channel_axis=-1)) < CLOSE


def test_glass_leaves_images_that_are_too_small_for_an_exchange_to_the_blurs():
    images = torch.rand(2, 3, 4, 4)
    assert glass_blur(images, (0.5, 4, 1), Draws(keys(2), CPU)).shape == images.shape
