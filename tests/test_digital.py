"""Colors, JPEG, pixels and elastic are those of the libraries that the authors use."""

from io import BytesIO

import cv2
import numpy as np
import pytest
import torch
from benchmarks.reference_digital import REFERENCE, elastic
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from tutelage.corruptions import compression
from tutelage.corruptions.color import brightened
from tutelage.corruptions.compression import jpeg_compression, pixelate
from tutelage.corruptions.corrupt import CORRUPTIONS, corrupt
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.elastic import affine_maps, elastic_transform
from tutelage.corruptions.levels import SEVERITIES, level
from tutelage.data.operations import as_float

CPU = torch.device("cpu")
SIDES = (224, 64, 32, 45)


def photos(side, number=2, seed=0):
    """Smooth colors (N, 3, S, S) uint8 with spots of black, gray, white and red."""
    rng = np.random.default_rng(seed)
    rough = gaussian_filter(rng.normal(size=(number, 3, side, side)), (0, 0, 2, 2))
    images = (np.clip(0.5 + rough / rough.std() / 3, 0, 1) * 255).astype(np.uint8)
    images[:, :, :4, :4], images[:, :, 4:8, :4], images[:, :, :4, 4:8] = 0, 100, 255
    images[:, :, 4:8, 4:8] = np.array([255, 0, 0])[:, None, None]
    return torch.from_numpy(images)


def elastic_fields(side, numbers, keys, severity=3):
    """What elastic_transform draws: how points move (B, 3, 2), and noise (B, 2, S, S)."""
    own = draws("elastic_transform", keys, severity)
    moved = own.uniform(3, 2, low=-numbers[2], high=numbers[2])
    return moved.numpy(), own.uniform(2, side, side, low=-1).numpy()


def draws(name, keys, severity=3):
    return Draws([f"0/{key}/{name}/{severity}" for key in keys], CPU)


def by_reference(images, name, numbers, severity):
    """The authors' libraries, image by image; nothing of these is drawn."""
    dice = np.random.default_rng(0)
    made = [REFERENCE[name](one, numbers, dice) for one in images.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["pixelate", "jpeg_compression"])
def test_what_pillow_makes_is_the_same_to_the_last_bit(name, side):
    images = photos(side)
    for severity in SEVERITIES:
        expected = by_reference(images, name, level(name, severity, side), severity)
        found = corrupt(images, name, severity, keys=["0", "1"])
        assert torch.equal(found, expected), severity


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturate"])
def test_colors_are_those_of_hsv_and_back_but_for_rounding(name, side):
    images = photos(side)
    for severity in SEVERITIES:
        expected = by_reference(images, name, level(name, severity, side), severity)
        found = corrupt(images, name, severity, keys=["0", "1"])
        apart = (found.int() - expected.int()).abs()
        assert apart.max() <= 1  # a whole level may lie a hair below itself, and is cut off
        # and is not off by a constant: where both have no whole level by chance, they agree
        assert (apart > 0).double().mean() < 0.3


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturate"])
def test_colors_before_rounding_are_exact_in_double_precision(name, severity):
    from skimage.color import hsv2rgb, rgb2hsv

    images = photos(40).double() / 255
    numbers = level(name, severity, 224)
    hsv = rgb2hsv(images.permute(0, 2, 3, 1).numpy())
    if name == "brightness":
        hsv[..., 2] = np.clip(hsv[..., 2] + numbers[0], 0, 1)
    elif name == "saturate":
        hsv[..., 1] = np.clip(hsv[..., 1] * numbers[0] + numbers[1], 0, 1)
    expected = hsv2rgb(hsv).transpose(0, 3, 1, 2)
    if name == "contrast":
        mean = images.numpy().mean((2, 3), keepdims=True)
        expected = mean + (images.numpy() - mean) * numbers[0]
    found = CORRUPTIONS[name](images, numbers, draws(name, "01"))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_brightness_of_black_is_gray_of_the_level():
    black = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    for severity, expected in zip(SEVERITIES, (25, 51, 76, 102, 127), strict=True):
        assert (corrupt(black, "brightness", severity, keys=["0"]) == expected).all()


def test_less_brightness_ends_at_black():
    images = as_float(photos(16))
    assert (brightened(images, -1.0) <= 1e-9).all()
    less = brightened(images, -0.2)
    torch.testing.assert_close(less.amax(1), (images.amax(1) - 0.2).clamp(0))


def test_a_summand_of_the_saturation_makes_gray_reddish():
    gray = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)
    red, green, blue = corrupt(gray, "saturate", 5, keys=["0"])[0, :, 0, 0].tolist()
    assert (red, green, blue) == (200, 160, 160)  # S of 0 becomes 0.2


@pytest.mark.parametrize("name", ["contrast", "pixelate", "elastic_transform"])
def test_a_gray_image_stays_as_it_is(name):
    gray = torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)
    for severity in SEVERITIES:
        assert torch.equal(corrupt(gray, name, severity, keys=["0"]), gray)


@pytest.mark.parametrize("name", REFERENCE)
def test_an_image_does_not_depend_on_its_batch(name):
    images = photos(48, 5)
    keys = [f"image {i}" for i in range(5)]
    all_at_once = corrupt(images, name, 4, keys=keys)
    assert all_at_once.shape == images.shape
    assert all_at_once.dtype == torch.uint8
    before = images.clone()
    for row in (4, 0):
        alone = corrupt(images[row : row + 1], name, 4, keys=keys[row : row + 1])
        assert torch.equal(alone[0], all_at_once[row])
    assert torch.equal(images, before)


def test_jpeg_and_pixels_take_floats_as_well():
    images = photos(40)
    for corruption, numbers in ((jpeg_compression, (18,)), (pixelate, (0.4,))):
        of_bytes = corruption(images, numbers, Draws([], CPU))
        found = corruption(as_float(images), numbers, Draws([], CPU))
        assert torch.equal(found, as_float(of_bytes))


def test_jpeg_is_what_a_file_holds(monkeypatch):
    image = photos(50, 1)
    file = BytesIO()
    Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=10)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(jpeg_compression(image, (10,), Draws([], CPU))[0].numpy(), expected)
    monkeypatch.setattr(compression, "_fast", lambda: None)  # a torchvision without its operators
    assert np.array_equal(jpeg_compression(image, (10,), Draws([], CPU))[0].numpy(), expected)


@given(st.integers(4, 90), st.sampled_from((0.25, 0.3, 0.4, 0.5, 0.6, 0.65, 0.75, 0.85, 0.95)))
def test_pixels_of_any_size_are_those_of_pillow(side, share):
    image = photos(90, 1)[..., :side, : max(side - 1, 4)]
    _, _, h, w = image.shape
    small = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize(
        (int(w * share), int(h * share)), Image.Resampling.BOX
    )
    expected = np.asarray(small.resize((w, h), Image.Resampling.BOX)).astype(int)
    found = pixelate(image, (share,), Draws([], CPU))[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.05


@pytest.mark.parametrize("side", SIDES)
def test_elastic_is_scipys_but_for_the_coordinates_that_opencv_rounds(side):
    image = photos(side)
    for severity in SEVERITIES:
        numbers = level("elastic_transform", severity, side)
        fields = elastic_fields(side, numbers, "01", severity)
        floats = image.permute(0, 2, 3, 1).numpy() / 255
        expected = [elastic(one, numbers, *own) for one, *own in zip(floats, *fields, strict=True)]
        levels = torch.from_numpy(np.stack(expected).clip(0, 1) * 255).permute(0, 3, 1, 2)
        found = corrupt(image, "elastic_transform", severity, keys=["0", "1"])
        apart = (found - levels.to(torch.uint8).int()).abs().double()
        assert apart.max() <= 8, (side, severity, apart.max())
        assert apart.mean() < 0.3


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [64, 41])
def test_both_maps_of_elastic_are_exact(side, severity, monkeypatch):
    alpha, sigma, jitter = level("elastic_transform", severity, side)
    images = as_float(photos(side, 1)).double()

    def exact(floats, matrix, size, borderMode):
        """As OpenCV's, by SciPy, which has the same border under the name of mirror."""
        assert borderMode == cv2.BORDER_REFLECT_101
        inverse = np.linalg.inv(np.vstack((matrix, (0, 0, 1))))
        y, x = np.mgrid[: size[1], : size[0]]
        from_x, from_y, _ = np.tensordot(inverse, np.stack((x, y, np.ones_like(x))), 1)
        return np.stack(
            [map_coordinates(c, (from_y, from_x), order=1, mode="mirror") for c in floats.T.mT], -1
        )

    monkeypatch.setattr(cv2, "warpAffine", exact)
    numbers = (alpha, sigma, jitter)
    (moved,), (noise,) = elastic_fields(side, numbers, "a")
    expected = elastic(images[0].permute(1, 2, 0).numpy(), numbers, moved, noise)
    found = elastic_transform(
        images.float(), (alpha, sigma, jitter), draws("elastic_transform", "a")
    )
    # float32 coordinates of up to 64 pixels, times steps of at most 1 between pixels
    np.testing.assert_allclose(found[0].permute(1, 2, 0), np.clip(expected, 0, 1), atol=5e-5)


def test_the_affine_map_takes_the_moved_points_to_where_they_were():
    h, w, moved = 50, 60, torch.tensor([[[1.0, -2], [0.5, 3], [-1, 2]]])
    start = torch.tensor([[30 + 16.0, 25 + 16], [30 + 16, 25 - 16], [30 - 16, 25 - 16]])
    ends = torch.cat(((start + moved[0]).double(), torch.ones(3, 1)), 1)
    back = ends @ affine_maps(moved, h, w)[0].T
    pixels = (back + 1) / 2 * torch.tensor([w - 1, h - 1])
    torch.testing.assert_close(pixels, start.double(), atol=1e-9, rtol=0)


def test_points_moved_onto_a_line_do_no_harm():
    moved = torch.tensor([[[0.0, 0], [-8, 8], [0, 0]]])  # the middle point onto the diagonal
    maps = affine_maps(moved, 24, 24)
    assert maps.isfinite().all()
