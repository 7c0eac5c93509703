"""A machine without memory or open files: no sound image is dropped, no file called damaged."""

import errno
import os
import resource
import subprocess
import sys

import pyarrow as pa
import pytest
import torch
import toy
from PIL import Image

from tutelage.data import decode, label_parts, memory
from tutelage.data.examine import examine
from tutelage.data.label_parts import Portion
from tutelage.data.pixels import OnDisk
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.errors import DataProblem, Exhausted
from tutelage.labeling.fetch import Fetcher

CPU = torch.device("cpu")
LACKING = [
    MemoryError(),
    OSError("out of memory error when reading image file"),  # Pillow's decoders
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
]


@pytest.fixture
def images(tmp_path) -> Images:
    toy.write_toy(tmp_path, pool=3)
    source = Folder(str(tmp_path / "pool"))
    return Images(source, source.listing("pool").names)


def failing(monkeypatch, error: Exception, *, room: bool) -> None:
    """No image can be decoded."""

    def opened(raw):
        raise error

    monkeypatch.setattr("tutelage.data.examine.opened", opened)
    monkeypatch.setattr(decode, "opened", opened)
    monkeypatch.setattr(memory, "_has_room", lambda size: room)


def fetched(images: Images):
    with Fetcher(images.source, 16, threads=1) as fetch:
        names = tuple(images.names)
        return fetch(Portion(0, "", names), torch.arange(len(names)))()


@pytest.mark.parametrize("error", LACKING, ids=repr)
def test_where_memory_or_files_are_lacking_no_image_is_dropped(images, monkeypatch, error):
    failing(monkeypatch, error, room=False)
    for read in (
        lambda: examine(images),
        lambda: fetched(images),
        lambda: OnDisk(images, 16, CPU).at(torch.arange(1)),
    ):
        with pytest.raises(Exhausted, match=r"000\.png could not be .*run the same command again"):
            read()


def test_a_damaged_image_that_asks_for_any_amount_of_memory_is_dropped(images, monkeypatch):
    failing(monkeypatch, MemoryError(), room=True)
    assert [fact.problem for fact in examine(images)] == ["MemoryError: "] * 3
    assert len(fetched(images)[1]) == 3
    with pytest.raises(DataProblem, match=r"000\.png can't be read"):
        OnDisk(images, 16, CPU).at(torch.arange(1))


def test_sound_labels_are_not_called_damaged(tmp_path, monkeypatch):
    def read(path):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr(label_parts.pq, "read_metadata", read)
    monkeypatch.setattr(memory, "_has_room", lambda size: False)
    with pytest.raises(Exhausted, match="for lack of memory") as found:
        label_parts.read_about(tmp_path / "part-00000.parquet")
    assert "delete" not in str(found.value)


def test_too_many_open_files_are_said(images):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)  # the lowest number that is free
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, before[1]))
    try:
        with pytest.raises(Exhausted, match=r"Too many open files; raise the limit"):
            examine(images)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


REAL = """
import resource, sys
from tutelage.data.examine import examine
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
source = Folder(sys.argv[1])
images = Images(source, source.listing("pool").names)
examine(images)  # all modules and threads are there
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 100 * 2**20  # threads fit, two copies of 48 MB do not
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    print([fact.problem for fact in examine(Images(Folder(sys.argv[2]), ("large.png",)))])
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_real_lack_of_memory_is_told_from_a_damaged_image(images, tmp_path):
    large = tmp_path / "large"
    large.mkdir()
    Image.new("RGB", (4000, 4000)).save(large / "large.png")
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(tmp_path / "pool"), str(large)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith(f"Exhausted {large / 'large.png'} could not be read"), done


NO_THREAD = """
import threading
from tutelage import cli

class Poor(threading.Thread):
    def _bootstrap(self):
        raise MemoryError

cli._call = lambda verb, words: Poor().start()
cli.main(["train"])
"""


def test_a_thread_that_finds_no_memory_to_begin_ends_the_command():
    done = subprocess.run(
        [sys.executable, "-c", NO_THREAD], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("tutelage: out of memory (for a thread): ")
