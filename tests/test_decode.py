import numpy as np
import pytest
from images import listed, pixels
from PIL import Image

from tutelage.data.decode import SUFFIXES, decode, fit, read, to_rgb
from tutelage.data.pixels import decoded
from tutelage.errors import DataProblem

RED, GREEN, BLUE, BLACK, WHITE = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
)  # fmt: skip


def seen(path):
    """The pixels that `read` gives, as a nested list of tuples."""
    image = read(path.read_bytes())
    assert image.mode == "RGB"
    return [[image.getpixel((x, y)) for x in range(image.width)] for y in range(image.height)]


def saved(tmp_path, array, mode=None, name="a.png", **options):
    image = Image.fromarray(np.asarray(array)) if mode is None else array
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm", ".tga"])
def test_rgb_pixels_are_read_as_they_are(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    path = saved(tmp_path, pixels(0, 5), name=f"a{suffix}", **options)
    assert suffix in SUFFIXES
    assert np.array_equal(np.asarray(read(path.read_bytes())), pixels(0, 5))
    assert np.array_equal(decode(path.read_bytes(), 5), pixels(0, 5))


def test_transparency_lies_on_white(tmp_path):
    array = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    assert seen(saved(tmp_path, array)) == [[RED, WHITE, (204, 204, 204)]]


def test_gray_with_transparency_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[[10, 255], [10, 0], [0, 51]]], np.uint8), "LA")
    path = saved(tmp_path, image, "LA")
    with Image.open(path) as opened:
        assert opened.mode == "LA"
    assert seen(path) == [[(10, 10, 10), WHITE, (204, 204, 204)]]


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = np.array([[0, 7, 128, 255]], np.uint8)
    assert seen(saved(tmp_path, gray)) == [[(v, v, v) for v in (0, 7, 128, 255)]]


def palette_image():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_is_looked_up(tmp_path, suffix):
    path = saved(tmp_path, palette_image(), "P", f"a{suffix}")
    assert seen(path) == [[RED, GREEN, BLUE]]


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_transparent_color_of_a_palette_lies_on_white(tmp_path, suffix):
    path = saved(tmp_path, palette_image(), "P", f"a{suffix}", transparency=1)
    assert seen(path) == [[RED, WHITE, BLUE]]


def test_a_palette_with_partial_transparency_lies_on_white(tmp_path):
    path = saved(tmp_path, palette_image(), "P", transparency=bytes([255, 0, 102]))
    assert seen(path) == [[RED, WHITE, (153, 153, 255)]]


def test_a_transparent_gray_value_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 7, 9]], np.uint8))
    path = saved(tmp_path, image, "L", transparency=7)
    assert seen(path) == [[BLACK, WHITE, (9, 9, 9)]]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pbm", ".bmp"])
def test_one_bit_is_black_or_white(tmp_path, suffix):
    image = Image.new("1", (3, 1))
    image.putdata([0, 1, 0])
    assert seen(saved(tmp_path, image, "1", f"a{suffix}")) == [[BLACK, WHITE, BLACK]]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    path = saved(tmp_path, values, name=f"a{suffix}")
    assert [v[0] for v in seen(path)[0]] == [0, 1, 128, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_dark_image_of_sixteen_bits_stays_dark(tmp_path, suffix):
    values = np.array([[0, 100, 200, 257]], np.uint16)
    path = saved(tmp_path, values, name=f"a{suffix}")
    assert [v[0] for v in seen(path)[0]] == [0, 0, 1, 1]


def test_big_endian_sixteen_bits_are_read(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), np.array([0, 65535], ">u2").tobytes())
    path = saved(tmp_path, image, "I;16B", "a.tif")
    assert seen(path) == [[BLACK, WHITE]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 10.0, 255.0], [0, 10, 255]),
        ([0.0, 0.5, 1.02], [0, 128, 255]),  # a filter overshot
        ([0.0, 1.0, 1.0], [0, 1, 1]),
        ([0.5, 1.0, 1.2], [0, 1, 1]),
    ],
)
def test_float_images_of_either_scale_are_read(tmp_path, values, expected):
    path = saved(tmp_path, np.array([values], np.float32), name="a.tif")
    assert [v[0] for v in seen(path)[0]] == expected


NO_TIFF = b"Exif\0\0garbage"
ODD_TAG = NO_TIFF[:6] + bytes.fromhex(  # orientation 6, and text where a unit's number should be
    "49492a0008000000 0200 120103000100000006000000 280102000300000061620000 00000000"
)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(("exif", "size"), [(NO_TIFF, (32, 16)), (ODD_TAG, (16, 32))])
def test_an_image_whose_exif_can_not_be_read_is_decoded(tmp_path, suffix, exif, size):
    pixels = np.kron(np.array([[RED, BLUE]], np.uint8), np.ones((16, 16, 1), np.uint8))
    path = saved(tmp_path, pixels, name=f"a{suffix}", exif=exif)
    assert read(path.read_bytes()).size == size
    assert decode(path.read_bytes(), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("values", [[-1.0, 1.0], [0.0, 70000.0], [0.0, float("nan")]])
def test_values_of_no_known_scale_are_refused(tmp_path, values):
    path = saved(tmp_path, np.array([values], np.float32), name="a.tif")
    with pytest.raises(OSError, match="fit no known range"):
        read(path.read_bytes())


def test_cmyk_is_turned_into_colors(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    path = saved(tmp_path, image, "CMYK", "a.jpg", quality=95)
    with Image.open(path) as opened:
        assert opened.mode == "CMYK"
    red = np.asarray(read(path.read_bytes())).reshape(-1, 3).mean(0)
    assert red[0] > 240
    assert red[1:].max() < 15
    assert np.allclose(decode(path.read_bytes(), 16).reshape(-1, 3).mean(0), red, atol=2)


CORNERS = np.array([[RED, GREEN], [BLUE, WHITE], [BLACK, RED]], np.uint8)  # upright, 2 wide 3 high
STORED = {  # how a camera stores it under each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_turned_as_exif_says(tmp_path, orientation, suffix):
    large = np.kron(CORNERS, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    path = saved(
        tmp_path, np.ascontiguousarray(STORED[orientation](large)), name=f"a{suffix}", exif=exif,
        **options,
    )  # fmt: skip
    upright = np.asarray(read(path.read_bytes()))
    assert upright.shape == (48, 32, 3)
    middles = upright[8::16, 8::16].astype(int)
    assert np.abs(middles - CORNERS).max() <= (4 if suffix == ".jpg" else 0)
    square = decode(path.read_bytes(), 32).astype(int)  # the center, from row 8 to row 40
    assert np.abs(square[16, [8, 24]] - CORNERS[1]).max() <= (4 if suffix == ".jpg" else 0)


def test_the_shorter_side_is_resized_and_the_center_kept(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = RED
    wide[:, :40] = GREEN
    path = saved(tmp_path, wide)
    assert (decode(path.read_bytes(), 40) == RED).all()
    small = decode(path.read_bytes(), 20)
    assert small.shape == (20, 20, 3)
    assert (small[:, 2:-2] == RED).all()


def test_a_jpeg_decoded_at_a_small_size_looks_like_the_whole_resized(tmp_path):
    soft = Image.fromarray(pixels(3, 8)).resize((256, 256), Image.Resampling.BICUBIC)
    path = saved(tmp_path, soft, "RGB", "a.jpg", quality=95)
    whole = np.asarray(fit(read(path.read_bytes()), 32)).astype(int)
    assert np.abs(decode(path.read_bytes(), 32).astype(int) - whole).mean() < 2


def test_an_image_of_the_right_size_is_not_resampled():
    image = Image.fromarray(pixels(0, 8))
    assert fit(image, 8) is image


def test_the_first_frame_of_an_animation_is_the_image(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert seen(tmp_path / "a.gif")[0][0] == RED


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix):
    path = saved(tmp_path, pixels(0, 64), name=f"a{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataProblem, match=rf"a\{suffix}"):
        decoded(listed([path]), 0, 32)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for name in ("a.png", "b.png"):
        with pytest.raises(DataProblem, match=name):
            decoded(listed([tmp_path / name]), 0, 32)


def test_rgb_stays_rgb():
    image = Image.fromarray(pixels(0, 8))
    assert np.array_equal(np.asarray(to_rgb(image)), pixels(0, 8))
