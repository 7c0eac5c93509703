"""Snow, frost, fog and spatter beside NumPy, SciPy and OpenCV, and the pieces they are made of."""

import re
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from benchmarks import reference_weather as reference
from scipy.ndimage import gaussian_filter

from tutelage.corruptions.corrupt import CORRUPTIONS, corrupt, truncated
from tutelage.corruptions.distances import UNIT, distances
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.edges import canny
from tutelage.corruptions.fog import fogged
from tutelage.corruptions.frost import frost
from tutelage.corruptions.levels import LEVELS, level
from tutelage.corruptions.plasma import plasma
from tutelage.corruptions.snow import snow, snowed
from tutelage.corruptions.spatter import boxed, embossed, equalized, spattered, with_mud, with_water
from tutelage.corruptions.textures import GROWTHS, SIDE, picture, textures

NAMES = ("snow", "frost", "fog", "spatter")
CPU = torch.device("cpu")


@pytest.fixture
def plain_opencv():
    """OpenCV by its own code, without Intel's library, whose distances are rounded otherwise."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(before)


def photos(count, size, seed=0):
    """Smooth colored images (B, H, W, 3) uint8 of full contrast."""
    dice = np.random.default_rng(seed)
    soft = gaussian_filter(dice.normal(size=(count, size, size, 3)), (0, 3, 3, 0))
    return ((soft * 3 + 0.5).clip(0, 1) * 255).astype(np.uint8)


def floats(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255


def layers(seed=0):
    """Gray images of many kinds: drops of several sizes, noise, plain ones, and odd shapes."""
    dice = np.random.default_rng(seed)
    found = [np.full((9, 9), 77, np.uint8), dice.integers(0, 256, (31, 45), dtype=np.uint8)]
    for size, sigma, cut in ((224, 4, 0.69), (224, 2, 0.68), (96, 1, 0.6), (64, 0.7, 0.7)):
        for sd in (0.1, 0.3):
            soft = gaussian_filter(dice.normal(0.65, sd, (size, size)), sigma, mode="nearest")
            found.append((np.where(soft < cut, 0, soft).clip(0, 1) * 255).astype(np.uint8))
    step = np.arange(60, dtype=np.uint8)[None] * 3 * np.ones((20, 1), np.uint8)
    return [*found, step, step.T.copy(), np.eye(40, dtype=np.uint8) * 255]


def batch(gray, dtype=torch.int16):
    return torch.from_numpy(gray)[None].to(dtype)


@pytest.mark.parametrize("index", range(len(layers())))
def test_edges_are_opencvs(index):
    for seed in range(3):
        gray = layers(seed)[index]
        for low, high in ((50, 150), (20, 700), (0, 0)):
            edges = canny(batch(gray), low, high)
            assert np.array_equal(edges[0].numpy() != 0, cv2.Canny(gray, low, high) > 0)


def test_weak_edges_belong_to_strong_ones_however_far_they_are():
    gray = np.zeros((40, 300), np.uint8)
    gray[20:] = 20  # weak along the whole image
    gray[20:, :3] = 200  # strong at its left end
    edges = canny(batch(gray), 50, 150)
    assert np.array_equal(edges[0].numpy() != 0, cv2.Canny(gray, 50, 150) > 0)
    assert (edges[0, :, 290] != 0).any()


def test_the_distance_of_every_offset_is_opencvs(plain_opencv):
    edges = np.zeros((61, 61), np.uint8)
    edges[30, 30] = 1
    found = distances(-batch(edges))[0].numpy() / UNIT
    assert np.array_equal(found, cv2.distanceTransform(1 - edges, cv2.DIST_L2, 5).clip(0, 20))
    assert found[30, 33] == 3
    assert found[0, 0] == 20


@pytest.mark.parametrize("index", range(len(layers())))
def test_distances_are_opencvs(index, plain_opencv):
    for seed in range(3):
        edges = cv2.Canny(layers(seed)[index], 50, 150)
        expected = cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5).clip(0, 20)
        found = distances(-(batch(edges) != 0).to(torch.int16))
        assert np.array_equal(found[0].numpy() / UNIT, expected)


def test_without_edges_all_is_far():
    assert (distances(torch.zeros(2, 30, 50, dtype=torch.int16)) == 20 * UNIT).all()


def test_edges_and_distances_do_not_depend_on_the_batch():
    every = torch.cat([batch(gray) for gray in layers() if gray.shape == (224, 224)])
    edges = canny(every, 50, 150)
    assert torch.equal(edges, torch.cat([canny(gray[None], 50, 150) for gray in every]))
    assert torch.equal(distances(edges), torch.cat([distances(one[None]) for one in edges]))


@pytest.mark.parametrize("index", range(len(layers())))
def test_pieces_of_spatter_are_opencvs(index):
    gray = layers()[index]
    even = cv2.equalizeHist(gray)
    assert np.array_equal(equalized(batch(gray, torch.int32))[0].numpy(), even)
    found = embossed(batch(gray))[0].numpy()
    assert np.array_equal(found, cv2.filter2D(gray, cv2.CV_8U, reference.EMBOSS))
    mean = (boxed(batch(gray))[0].numpy() + 4.5) // 9
    assert np.array_equal(mean, cv2.blur(gray, (3, 3)))


def test_histograms_of_a_batch_are_made_even_one_by_one():
    every = torch.randint(0, 200, (3, 20, 20), dtype=torch.int32)
    every[1] = 9
    every[2] //= 50
    assert torch.equal(equalized(every), torch.cat([equalized(one[None]) for one in every]))
    assert (equalized(every)[1] == 9).all()


def agree(images, expected, *, jumps=0.0):
    """To a gray level, as float32 can fall on the other side of a whole one, and that rarely.

    `jumps` is the share of values that may be elsewhere: where a threshold is met by chance.
    """
    found = truncated(images).permute(0, 2, 3, 1).numpy().astype(int)
    away = np.abs(found - np.stack(expected))
    assert (away > 1).mean() <= jumps
    assert (away > 0).mean() < 0.004


def normals(name, size, severity):
    mean, sd = level(name, severity, size)[:2]
    dice = np.random.default_rng(severity)
    return dice.normal(mean, sd, (2, 1, size, size)).astype(np.float32)


REFERENCE = [(size, severity) for size in (224, 96, 64, 32) for severity in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize(("size", "severity"), REFERENCE)
def test_snow_is_the_reference(size, severity):
    images, numbers = photos(2, size), level("snow", severity, size)
    layer = normals("snow", size, severity)
    angles = np.random.default_rng(severity).uniform(-135, -45, 2).astype(np.float32)
    found = snowed(floats(images), torch.from_numpy(layer), torch.from_numpy(angles), numbers)
    given = zip(images, layer[:, 0].astype(float), angles.astype(float), strict=True)
    agree(found, [reference.snow_of(one, numbers, *more) for one, *more in given], jumps=1e-4)


@pytest.mark.parametrize(("size", "severity"), REFERENCE)
def test_fog_is_the_reference(size, severity):
    images, numbers = photos(2, size), level("fog", severity, size)
    side = {96: 128, 224: 256}.get(size, size)
    dice = np.random.default_rng(severity)
    noise = dice.uniform(-1, 1, (2, side**2 - 1)).astype(np.float32)
    found = fogged(floats(images), torch.from_numpy(noise), numbers)
    given = zip(images, noise.astype(float), strict=True)
    agree(found, [reference.fog_of(one, numbers, its) for one, its in given])


@pytest.mark.parametrize(("size", "severity"), REFERENCE)
def test_spatter_is_the_reference(size, severity, plain_opencv):
    images, numbers = photos(2, size), level("spatter", severity, size)
    layer = normals("spatter", size, severity)
    found = spattered(floats(images), torch.from_numpy(layer), numbers)
    given = zip(images, layer[:, 0].astype(float), strict=True)
    expected = [reference.spatter_of(one, numbers, its) for one, its in given]
    agree(found, expected, jumps=0.01 if size < 96 else 0.001)


@pytest.mark.parametrize(("size", "severity"), [(224, 1), (224, 3), (64, 2), (32, 3)])
def test_drops_of_water_are_the_references_to_a_gray_level(size, severity, plain_opencv):
    images, (_, _, sigma, threshold, strength, _) = (
        photos(1, size),
        level("spatter", severity, size),
    )
    layer = normals("spatter", size, severity)[0, 0].astype(float)
    liquid = gaussian_filter(layer, sigma, mode="nearest")
    liquid[liquid < threshold] = 0
    drops = batch((liquid * 255).astype(np.int16))
    found = with_water(floats(images), drops, strength)
    agree(found, [reference.water_of(images[0], liquid, strength)])


@pytest.mark.parametrize("side", [2, 16, 64, 256])
def test_clouds_are_squares_and_diamonds(side):
    for decay in (1.4, 2.0, 3.0):
        noise = np.random.default_rng(side).uniform(-1, 1, (2, side**2 - 1)).astype(np.float32)
        found = plasma(torch.from_numpy(noise), side, decay).numpy()
        for one, its in zip(found, noise.astype(float), strict=True):
            np.testing.assert_allclose(one, reference.plasma(its, decay), atol=1e-5)
        assert found.min((1, 2)).tolist() == [0, 0]
        assert found.max((1, 2)).tolist() == [1, 1]


def test_fog_leaves_the_brightest_as_it_is():
    images, noise = torch.rand(3, 3, 64, 64) * 0.7, torch.rand(3, 64 * 64 - 1) * 2 - 1
    assert (fogged(images, noise, (1.5, 2.0)).amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()
    assert (fogged(torch.zeros(1, 3, 64, 64), noise[:1], (1.5, 2.0)) == 0).all()


def test_mud_is_a_bell_around_its_places():
    images, places = torch.rand(2, 3, 64, 64), (torch.rand(2, 1, 64, 64) < 0.9).float()
    found = with_mud(images, places, 1.5)
    for image, place, one in zip(images, places, found, strict=True):
        mud = gaussian_filter(place[0].double().numpy(), 1.5, mode="nearest")
        mud = torch.from_numpy(np.where(mud < 0.8, 0, mud))
        color = torch.from_numpy(reference.MUD)[:, None, None]
        torch.testing.assert_close(one.double(), image * (1 - mud) + color * mud, atol=1e-5, rtol=0)


def test_an_image_that_no_drop_fell_on_stays():
    images = torch.rand(1, 3, 32, 32)
    for numbers in (level("spatter", 1, 32), level("spatter", 4, 32)):
        assert torch.equal(spattered(images, torch.full((1, 1, 32, 32), 0.1), numbers), images)


def test_water_is_brightest_where_it_shines_most():
    images, layer = torch.zeros(1, 3, 64, 64), 0.65 + 0.3 * torch.randn(1, 1, 64, 64)
    shine = spattered(images, layer, level("spatter", 3, 64))
    assert shine[0].amax((1, 2)).tolist() == pytest.approx([0.6 * c / 255 for c in (175, 238, 238)])
    assert shine.min() >= 0


@pytest.mark.parametrize("size", [32, 64, 97, 224, 384])
@pytest.mark.parametrize("zoom", [1, 1.25, 1.75, 2.25, 2.5, 3, 4.5])
def test_only_what_was_drawn_is_seen_of_the_snow(size, zoom):
    """White everywhere, as the layer is: nothing of what was not drawn comes in."""
    images = torch.zeros(1, 3, size, size)
    found = snow(images, (2.0, 0.0, zoom, 0.9, 4, 2, 1.0), Draws(["a"], CPU))
    assert (found == 2).all()  # once each way


def test_snow_on_black_is_the_same_upside_down():
    images = torch.zeros(2, 3, 64, 64)
    found = snow(images, level("snow", 3, 64), Draws(["a", "b"], CPU))
    assert torch.equal(found, found.flip(2, 3))
    assert found.min() == pytest.approx(0.3 * 0.5)
    assert not torch.equal(found[0], found[1])


def test_frost_is_a_part_of_a_picture_times_its_weight():
    _, weight, scale = numbers = level("frost", 3, 32)
    found = frost(torch.zeros(40, 3, 32, 32), numbers, Draws(list(map(str, range(40))), CPU))
    ice = found.mul(255 / weight).round().to(torch.uint8)
    pictures = textures(scale)
    kinds = set()
    for one in ice:
        (place,) = [
            (kind, rows, columns)
            for kind, sheet in enumerate(pictures)
            for rows, columns in _places(torch.cat([torch.cat([sheet] * 2, 1)] * 2, 2), one)
        ]
        kinds.add(place)
    assert {kind for kind, _, _ in kinds} == set(range(5))
    assert len(kinds) == 40


def _places(sheet, part):
    """Where in a picture a part is: rows and columns."""
    side = sheet.shape[1] // 2
    rows, columns = (sheet[:, :side, :side] == part[:, :1, :1]).all(0).nonzero(as_tuple=True)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if torch.equal(sheet[:, row : row + 32, column : column + 32], part):
            yield row, column


def test_frost_covers_images_that_are_larger_than_the_picture():
    size = SIDE + 70
    found = frost(torch.zeros(1, 3, size, size), (1.0, 1.0, 1.0), Draws(["a"], CPU))
    assert torch.equal(found[..., :70, :], found[..., SIDE:, :])
    assert torch.equal(found[..., :70], found[..., SIDE:])
    assert found.amin() > 0


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_frost_is_the_reference(severity):
    images = photos(1, 64)
    numbers = level("frost", severity, 64)
    found = frost(floats(images), numbers, Draws(["a"], CPU))
    black = frost(torch.zeros(1, 3, 64, 64), (1.0, 1.0, numbers[2]), Draws(["a"], CPU))
    crop = black[0].mul(255).round().byte().permute(1, 2, 0).numpy()
    agree(found, [reference.frost_of(images[0], numbers, crop)])


def test_pictures_of_frost_are_bright_crystals_on_blue_gray():
    for sheet in textures(1.0):
        red, green, blue = sheet.float().mean((1, 2)).tolist()
        assert 90 < red < green < blue < 170
        spread = sheet.float().std()
        assert 35 < spread < 70
        coarse = torch.nn.functional.avg_pool2d(sheet.float(), 32).std()
        assert 0.25 < coarse / spread < 0.8  # patches and single crystals both
        gray = sheet.float().mean(0)
        inside = (gray[1:] - gray[:-1]).abs().mean()
        assert (gray[0] - gray[-1]).abs().mean() < 1.2 * inside  # no seam where it repeats


def test_pictures_of_frost_are_five_and_always_the_same():
    sheets = textures(1.0)
    assert sheets.shape == (5, 3, SIDE, SIDE)
    assert textures(0.2).shape == (5, 3, 192, 192)
    assert torch.equal(picture(GROWTHS[1]), sheets[1])
    means = sheets.float().mean((2, 3))
    assert all(not torch.equal(one, other) for one, other in pairwise(sheets))
    assert torch.allclose(textures(0.2).float().mean((2, 3)), means, atol=1)


def test_the_docs_save_the_pictures(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "robustness.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (code,) = [block for block in blocks if "textures" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "robustness.md", "exec"), {})
    assert len(list(tmp_path.glob("frost-*.png"))) == 5


@pytest.mark.parametrize("name", NAMES)
def test_weather_made_for_a_whole_batch_at_once_is_the_same(name):
    """As on an accelerator; sums of products may differ in their last bits."""
    images = floats(photos(4, 64))
    keys = list("abcd")
    for numbers in LEVELS[name][64]:
        every = CORRUPTIONS[name](images, numbers, Draws(keys, CPU))
        for image, key, one in zip(images, keys, every, strict=True):
            alone = CORRUPTIONS[name](image[None], numbers, Draws([key], CPU))[0]
            assert ((alone - one).abs() > 1e-5).float().mean() < 0.001


@pytest.mark.parametrize("name", NAMES)
def test_small_images_that_are_made_together_are_those_made_alone_to_the_last_bit(name):
    images = torch.from_numpy(photos(12, 32).transpose(0, 3, 1, 2).copy())
    keys = list("abcdefghijkl")
    for severity in (1, 2, 3, 4, 5):
        together = corrupt(images, name, severity, keys=keys)
        for row, key in enumerate(keys):
            alone = corrupt(images[row : row + 1], name, severity, keys=[key])
            assert torch.equal(alone, together[row : row + 1])
