"""Photos on their way into batches: decoding, crops, memory, and waiting."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import listed
from PIL import Image

from tutelage.core import Dice, Stage, generator
from tutelage.data import decode as decoding
from tutelage.data import memory as memory_module
from tutelage.data.buffers import LARGE, Buffers
from tutelage.data.crops import ATTEMPTS, box, cut
from tutelage.data.decode import decode, whole
from tutelage.data.loader import Batches
from tutelage.data.memory import MOST, Memory, available, free_bytes, memory_for, said
from tutelage.data.operations import as_float
from tutelage.data.pixels import OnDisk, how_held
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.errors import UsageError
from tutelage.progress import MUCH, WORTH_SECONDS, Wait
from tutelage.settings import Noise
from tutelage.training_settings import num_bytes

CPU = torch.device("cpu")
CANVAS, SIZE = 110, 96


def photo(seed, width=150, height=120):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_jpeg(image, **how):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **how)
    return file.getvalue()


class Counting(Folder):
    """Counts how often each file is read."""

    def __init__(self):
        super().__init__("")
        self.reads = []

    def read(self, name):
        self.reads.append(name)
        return super().read(name)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        wide = photo(seed, width=130 + 20 * seed)
        (root / f"{seed}.jpg").write_bytes(as_jpeg(wide))
    return sorted(root.iterdir())


def photo_batches(files, memory=0, views=("weak", "strong"), source=None, stages=None):
    images = Images(source or Folder(""), tuple(map(str, files)))
    disk = OnDisk(images, CANVAS, CPU, Memory(memory))
    stages = stages or [Stage(steps=6, size=SIZE, magnitude=9.0)]
    count = torch.arange(len(files))
    return Batches(
        LabeledSet(disk, count, len(files)), PoolSet(disk, count, torch.ones_like(count)),
        stages=stages, views=("strong", views), batch=3, ratio=1, noise=Noise(), seed=0,
    )  # fmt: skip


def tensors(batch):
    return [batch.labeled.images, *batch.pool().views.values()]


@pytest.mark.parametrize("how", [{}, {"subsampling": 0}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("size", [(150, 120), (97, 131), (1, 1)])
def test_a_jpeg_has_pillows_pixels(how, size):
    raw = as_jpeg(photo(0, *size), **how)
    expected = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    assert decoding._fast_jpeg() is not None
    assert np.array_equal(decoding._jpeg(raw), expected)
    assert np.array_equal(whole(raw, CANVAS), expected)


def test_a_jpeg_that_is_cut_off_fails_as_pillow_says():
    raw = as_jpeg(photo(0))
    with pytest.raises(OSError, match="truncated"):
        decode(raw[: len(raw) // 2], CANVAS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("side", "expected"), [(100, 100), (219, 219), (220, 110), (900, 113)])
def test_a_photo_is_halved_as_long_as_it_covers_the_canvas(kind, side, expected):
    file = io.BytesIO()
    photo(1, side + side // 2, side).save(file, kind)
    made = whole(file.getvalue(), CANVAS)
    assert made.shape[0] == pytest.approx(expected, abs=1)
    assert made.shape[1] == pytest.approx(expected * 1.5, abs=2)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 999), st.floats(0.05, 1))
def test_a_box_lies_in_the_image_and_has_the_area_and_shape_that_are_asked(high, wide, seed, area):
    draws = np.random.default_rng(seed).random((4, ATTEMPTS)).tolist()
    top, left, rows, columns = box(high, wide, draws, min_area=area)
    assert 0 <= top <= top + rows <= high
    assert 0 <= left <= left + columns <= wide
    assert rows >= 1
    assert columns >= 1
    if min(rows, columns) > 10:
        assert 0.75 * 0.9 < columns / rows < 4 / 3 * 1.1
    tried = any(abs(rows * columns / (high * wide) - a) < 0.1 for a in np.linspace(area, 1, 99))
    assert tried or max(high, wide) > 1.3 * min(high, wide) or min(high, wide) < 20


def test_a_box_that_never_fits_is_the_center():
    draws = np.full((4, ATTEMPTS), 0.999).tolist()
    assert box(100, 400, draws, min_area=0.9) == (0, 133, 100, 133)
    assert box(400, 100, draws, min_area=0.9) == (133, 0, 133, 100)


def test_crops_come_from_all_of_the_rectangle_and_are_mirrored_half_the_time():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3)).copy()
    plan = cut(200, generator(0, Dice.LABELED_VIEW, 0), size=32, min_area=0.1, flip=True)
    made = torch.stack([plan.of(row, ramp) for row in range(200)])
    assert made.shape == (200, 3, 32, 32)
    assert made.min() <= 5  # the left end, which no center square of 100 shows
    assert made.max() >= 194
    mirrored = (made[:, 0, 16, 0] > made[:, 0, 16, -1]).sum()
    assert 70 < mirrored < 130
    plain = cut(200, generator(0, Dice.LABELED_VIEW, 0), size=32, min_area=0.1, flip=False)
    assert not any(plain.mirrored)


@pytest.mark.parametrize("memory", [0, 150_000, MOST], ids=["none", "some", "all"])
def test_batches_of_photos_depend_on_the_step_alone_whatever_is_kept(files, memory):
    calm = [tensors(photo_batches(files).at(step)) for step in range(6)]
    made = photo_batches(files, memory)
    for step in (0, 1, 2, 5, 4, 4, 0):
        for one, other in zip(tensors(made.at(step)), calm[step], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(calm[0][1], calm[0][2])


def test_weak_and_strong_come_from_one_decoding_and_what_is_kept_is_not_read_again(files):
    source = Counting()
    made = photo_batches(files, 0, source=source)
    made._make(0)
    assert len(source.reads) == 3 + 3  # labels and pool, once each
    kept = Counting()
    made = photo_batches(files, MOST, source=kept)
    for step in range(6):
        made._make(step)
    assert sorted(kept.reads) == sorted(map(str, files))
    pixels = made.labeled.pixels
    assert pixels.memory.used == sum(one.nbytes for one in pixels.kept.values()) > 0
    pixels.forget()
    assert pixels.memory.used == 0


def test_earlier_stages_decode_smaller_and_let_go_of_it(files):
    stages = [
        Stage(steps=2, size=SIZE // 2, crop=SIZE, magnitude=0.0),
        Stage(steps=2, size=SIZE, magnitude=0.0),
    ]
    made = photo_batches(files, MOST, stages=stages)
    first = made._make(0)
    pixels = made.labeled.pixels
    assert {key[1] for key in pixels.kept} == {math.ceil(CANVAS / 2)}
    assert first.labeled.images.shape[-1] == SIZE // 2
    made._make(2)
    assert {key[1] for key in pixels.kept} == {CANVAS}


def test_the_plain_view_of_a_photo_is_the_square_that_is_evaluated(files):
    made = photo_batches(files, MOST, views=("plain", "strong"))
    part = made.at(0).pool()
    squares = np.stack([decode(files[row].read_bytes(), CANVAS) for row in part.rows])
    top = (CANVAS - SIZE) // 2
    inner = torch.from_numpy(squares).permute(0, 3, 1, 2)[:, :, top:, top:][..., :SIZE, :SIZE]
    assert torch.equal(part.views["plain"], inner / 255)


def test_large_batches_of_floats_are_uint8_over_255():
    images = torch.randint(256, (40, 3, 224, 224), dtype=torch.uint8)
    assert torch.equal(as_float(images), images / 255)


def test_memory_is_used_again_only_once_nobody_holds_it():
    buffers = Buffers()
    shape = (LARGE // 4,)
    first = buffers.empty(shape, torch.float32)
    view, where = first[5:], first.data_ptr()
    assert where % 64 == 0
    del first
    other = buffers.empty(shape, torch.float32)
    assert other.data_ptr() != where  # a view of it is still there
    del view
    assert buffers.empty(shape, torch.float32).data_ptr() == where


def test_memory_is_taken_up_to_its_limit():
    memory = Memory(100)
    assert memory.take(60)
    assert not memory.take(41)
    memory.give(60)
    assert memory.take(100)
    assert 2**20 < available() < 2**50
    assert 0 < memory_for("auto").limit <= MOST
    assert memory_for("0").limit == 0


@pytest.mark.parametrize(("limit", "used", "total"), memory_module.CGROUPS)
def test_files_that_were_read_do_not_use_up_a_container(tmp_path, monkeypatch, limit, used, total):
    monkeypatch.setattr(memory_module, "CGROUP", tmp_path)
    monkeypatch.setattr(memory_module, "MEMINFO", tmp_path / "meminfo")
    assert free_bytes() is None
    assert 2**20 < available() < 2**50
    (tmp_path / "meminfo").write_text("MemTotal: 90000 kB\nMemAvailable:    80000 kB\n")
    assert free_bytes() == 80000 * 1024
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("9000000\n")
    (tmp_path / used).write_text("8000000\n")
    assert available() == 1_000_000
    counts = f"anon 5\n{total}inactive_file 5000000\n{total}active_file 1000000\n"
    (tmp_path / limit).with_name("memory.stat").write_text(counts)
    assert available() == 7_000_000
    (tmp_path / limit).write_text("max\n")
    assert available() == 80000 * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("2GB", 2 * 10**9), ("500 MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("7k", 7000)],
)
def test_amounts_of_memory_are_read(text, expected):
    assert num_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "2 GBs", "GB"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(UsageError, match="500MB or 2GB"):
        num_bytes(text)


def test_how_images_are_held_is_said(files):
    assert said(12_288) == "12 kB"
    assert said(2.1e9) == "2.1 GB"
    held = OnDisk(listed(files), CANVAS, CPU, Memory(10**9))
    assert "kept up to 1.0 GB" in how_held(held, held.memory)
    assert "kept" not in how_held(OnDisk(listed(files), CANVAS, CPU), Memory(0))


def test_waiting_is_warned_of_once_and_only_where_it_is_much():
    wait, long = Wait(), WORTH_SECONDS / MUCH
    assert wait.add(0.1, 3 * long) is None
    assert wait.add(0.9, 0.2 * long) is None
    said_now = wait.add(0.9, 2 * long)
    assert said_now is not None
    assert "--memory" in said_now
    assert wait.add(0.9, 2 * long) is None
    assert Wait().add(1.0, WORTH_SECONDS - 1) is None
