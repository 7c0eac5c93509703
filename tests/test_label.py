import pytest
import torch
from torch import nn

from tutelage.data import label_parts
from tutelage.data.label_parts import read_part
from tutelage.data.pixels import InMemory
from tutelage.data.pool import from_parts
from tutelage.errors import RunMismatch
from tutelage.evaluation.accuracy import predict
from tutelage.labeling.label import label_pool


class Asked(nn.Module):
    """A linear teacher that counts how many images it was asked for."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(3 * 8 * 8, 4)
        self.images = 0

    def forward(self, images):
        self.images += len(images)
        return self.linear(images.flatten(1))


CLASSES = tuple("abcd")
NAMES = tuple(f"{row}.png" for row in range(10))


@pytest.fixture
def pool():
    generator = torch.Generator().manual_seed(0)
    return InMemory(torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8, generator=generator))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(label_parts, "PART", 4)


def test_a_pool_in_parts_has_the_answers_of_one_pass(tmp_path, pool):
    table = label_pool(Asked(), pool, NAMES, CLASSES, tmp_path, size=8)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"part-0000{number}.parquet" for number in range(3)
    ]
    probs = predict(Asked(), pool, 8)
    assert table.names == NAMES
    assert torch.allclose(table.confidence, probs.amax(-1), atol=1e-6)
    assert torch.equal(table.labels, probs.argmax(-1))
    parts = [read_part(path) for path in sorted(tmp_path.glob("part-*.parquet"))]
    assert torch.equal(from_parts(parts).top_probs, table.top_probs)


def test_a_second_run_asks_nothing_and_changes_no_file(tmp_path, pool):
    label_pool(Asked(), pool, NAMES, CLASSES, tmp_path, size=8)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    teacher = Asked()
    label_pool(teacher, pool, NAMES, CLASSES, tmp_path, size=8)
    assert teacher.images == 0
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}


def test_only_the_part_that_is_missing_is_made(tmp_path, pool):
    whole = label_pool(Asked(), pool, NAMES, CLASSES, tmp_path, size=8)
    (tmp_path / "part-00001.parquet").unlink()
    teacher, heard = Asked(), []
    again = label_pool(teacher, pool, NAMES, CLASSES, tmp_path, size=8, advance=heard.append)
    assert teacher.images == 4
    assert torch.equal(again.top_probs, whole.top_probs)
    assert again.names == whole.names


def test_labels_of_another_teacher_or_of_other_images_are_refused(tmp_path, pool):
    label_pool(Asked(), pool, NAMES, CLASSES, tmp_path, size=8)
    with pytest.raises(RunMismatch, match=r"part-00000\.parquet was written by another teacher"):
        label_pool(Asked(seed=1), pool, NAMES, CLASSES, tmp_path, size=8)
    with pytest.raises(RunMismatch):
        label_pool(Asked(), pool, NAMES[::-1], CLASSES, tmp_path, size=8)
