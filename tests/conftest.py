"""What several tests need: a tiny network and folders of images."""

from pathlib import Path
from uuid import uuid4

import pytest
import toy
from hypothesis import settings
from images import write_classes, write_pool

from tutelage.networks.build import Net

settings.register_profile("same", deadline=None, derandomize=True)  # alike on every machine
settings.load_profile("same")


@pytest.fixture
def tiny() -> Net:
    """A network of a third of a million weights, for 32-pixel images of 3 classes."""
    return Net(name="test_resnet", num_classes=3, img_size=32, small_stem=True)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """labeled/ with cat and dog (6 each), test/ (3 each) and pool/ (8), no image twice."""
    write_classes(tmp_path / "labeled", {"cat": 6, "dog": 6}, first=0)
    write_classes(tmp_path / "test", {"cat": 3, "dog": 3}, first=100)
    write_pool(tmp_path / "pool", 8, first=200)
    return tmp_path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labeled/ and test/ with the four classes of toy.py, and pool/; for tests that only read."""
    return toy.write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def no_old_facts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts of images are remembered within a test, and not beyond."""
    folder = tmp_path_factory.getbasetemp() / "facts" / uuid4().hex  # made where it is needed
    monkeypatch.setenv("TUTELAGE_CACHE", str(folder))
