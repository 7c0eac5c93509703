"""What holds for each corruption of ImageNet-C."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.corruptions.corrupt import CORRUPTIONS, corrupt
from tutelage.corruptions.levels import SEVERITIES, SIZES
from tutelage.corruptions.levels import level as numbers_of
from tutelage.corruptions.workers import threads as step_threads
from tutelage.corruptions.workers import workers
from tutelage.errors import UsageError

ALL = pytest.mark.parametrize("name", CORRUPTIONS)
DRAWN = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur",
    "snow", "frost", "fog", "spatter", "elastic_transform",
)  # fmt: skip


def photos(count, size, seed=0):
    """Soft images with all gray levels (N, 3, S, S) uint8."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    soft = functional.interpolate(coarse * 1.4 - 0.2, (size, size), mode="bicubic")
    return soft.clamp(0, 1).mul(255).byte()


def keys(count):
    return [f"cat/{row}.png" for row in range(count)]


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@ALL
def test_bytes_of_the_same_shape_come_out_and_what_goes_in_stays(name):
    for size in (224, 64, 45, 32):
        images = photos(1, size)
        kept = images.clone()
        for severity in SEVERITIES if size in SIZES[1:] else (1, 5):
            found = corrupt(images, name, severity, keys=keys(1))
            assert found.dtype == torch.uint8
            assert found.shape == images.shape
            assert found.is_contiguous()
            assert not torch.equal(found, images)
            assert torch.equal(images, kept)


@ALL
def test_severity_0_is_the_image(name):
    images = photos(2, 32)
    assert torch.equal(corrupt(images, name, 0, keys=keys(2)), images)


@ALL
@pytest.mark.usefixtures("threads")
def test_an_image_is_the_same_to_the_last_bit_in_any_batch_and_by_any_number_of_threads(name):
    images = photos(5, 40)
    together = corrupt(images, name, 3, keys=keys(5))
    order = [4, 1, 3]
    some = corrupt(images[order], name, 3, keys=[keys(5)[row] for row in order])
    assert torch.equal(some, together[order])
    torch.set_num_threads(2)
    assert torch.equal(corrupt(images, name, 3, keys=keys(5)), together)


@ALL
def test_randomness_follows_from_the_seed_and_the_image(name):
    same = photos(1, 32).expand(2, -1, -1, -1)
    one, other = corrupt(same, name, 3, keys=keys(2), seed=1)
    again = corrupt(same, name, 3, keys=keys(2), seed=2)[0]
    assert torch.equal(one, other) == (name not in DRAWN)
    assert torch.equal(one, again) == (name not in DRAWN)


@pytest.mark.parametrize(
    ("name", "severity", "count", "said"),
    [
        ("gausian_noise", 1, 2, "did you mean gaussian_noise"),
        ("fog", 6, 2, "severity 6 of fog: give 1 to 5"),
        ("fog", -1, 2, "severity -1"),
        ("fog", 1, 3, "3 keys for 2 images"),
    ],
)
def test_what_there_is_not_is_refused(name, severity, count, said):
    with pytest.raises(UsageError, match=said):
        corrupt(photos(2, 32), name, severity, keys=keys(count))


@ALL
def test_an_empty_batch_stays_empty(name):
    assert corrupt(photos(1, 32)[:0], name, 3, keys=[]).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    "name", ["gaussian_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate", "contrast"]
)
def test_gray_stays_gray_when_it_is_blurred(name):
    for size, level in ((224, 128), (64, 77), (32, 201)):
        gray = torch.full((1, 3, size, size), level, dtype=torch.uint8)
        for severity in SEVERITIES:
            assert torch.equal(corrupt(gray, name, severity, keys=keys(1)), gray)


@pytest.mark.parametrize("pool", [workers, step_threads])
def test_workers_have_one_core_each_and_other_threads_as_many_as_before(pool):
    def number():
        torch.rand(100_000).exp()
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert set(pool().map(lambda _: number(), range(10))) == {1}
        with ThreadPoolExecutor(1) as other:
            assert other.submit(number).result() == 3
        assert number() == 3
    finally:
        torch.set_num_threads(before)


class OnDevice:
    """Draws on a device, of which nothing matters but shape and kind."""

    def uniform(self, *shape, low=0.0, high=1.0):
        return torch.zeros(2, *shape, device="cuda")


class NoDoubles(TorchDispatchMode):
    """Devices without double precision, as those of Apple."""

    def __torch_dispatch__(self, operation, types, given=(), more=None):
        found = operation(*given, **(more or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor) and one.device.type != "cpu":
                assert one.dtype != torch.float64, operation
        return found


@pytest.mark.parametrize("name", ["fog", "elastic_transform"])
@pytest.mark.parametrize("size", [32, 64])
def test_a_device_needs_no_doubles(name, size):
    corrupt(photos(2, size), name, 3, keys=keys(2))  # so that what is remembered is real
    with FakeTensorMode(allow_non_fake_inputs=True), NoDoubles():
        images = torch.rand(2, 3, size, size, device="cuda")
        found = CORRUPTIONS[name](images, numbers_of(name, 3, size), OnDevice())
    assert (found.device.type, found.dtype) == ("cuda", torch.float32)
    assert found.shape == images.shape
