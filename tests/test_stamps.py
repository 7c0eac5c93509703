"""Whether files are as they were: each is asked for once, those elsewhere several at a time."""

import os
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import write_classes, write_picture
from source_kinds import EXAMPLES, LABELS, RGB, csv, folder, hf_saved, npz, png, tar_shards

from tutelage.data import stamps, storage
from tutelage.data.examine import examine
from tutelage.data.fact_cache import FactCache
from tutelage.data.facts import Part
from tutelage.data.find import open_source
from tutelage.data.parts import labeled_images, list_parts, pool_images
from tutelage.data.source import Images
from tutelage.data.sources.arrays import Arrays
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.memory import as_source
from tutelage.data.stamps import AT_ONCE, sizes_of, stamps_of
from tutelage.errors import DataProblem
from tutelage.files import write_json
from tutelage.pipelines.manifest import read_manifest, write_manifest
from tutelage.robustness.published_images import PublishedImages
from tutelage.values import digest


@pytest.fixture
def asked(monkeypatch):
    """The addresses that storages are asked for, in their order."""
    found, real = [], storage.stamp

    def counting(address):
        found.append(address)
        return real(address)

    monkeypatch.setattr(storage, "stamp", counting)
    return found


@pytest.fixture
def elsewhere():
    """A folder of a storage that is not this machine's, as fsspec sees it."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/elsewhere", recursive=True)


def opened(write, root):
    root.mkdir()
    inside = write(root, None)
    return open_source(root / inside if isinstance(inside, str) else root)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_stamps_of_many_are_those_of_each(example, tmp_path):
    written = example.write(tmp_path, None)
    source = open_source(tmp_path / written) if isinstance(written, str) else as_source(written)
    names = source.listing("pool").names
    asked = stamps_of(source, names)
    assert asked.stamps == [source.stamp(name) for name in names]
    assert all(asked.here)


@pytest.mark.parametrize(
    ("write", "files"), [(folder, 12), (csv, 12), (npz, 1), (tar_shards, 3), (hf_saved, 1)]
)
def test_each_file_is_asked_for_once(write, files, tmp_path, asked, monkeypatch):
    monkeypatch.setattr(stamps, "SOME", 5)  # neighbors that are looked at one after the other
    source = opened(write, tmp_path / "data")
    names = source.listing("pool").names
    asked.clear()
    assert len(stamps_of(source, names).stamps) == 12
    assert len(asked) == files


def test_the_files_of_a_split_are_not_asked_for_with_each_image(tmp_path, asked):
    source = opened(hf_saved, tmp_path / "data")
    names = source.listing("pool").names
    asked.clear()
    assert len({source.stamp(name) for name in names}) == len(asked) == 1


def test_facts_are_looked_up_by_one_question_a_shard(tmp_path, asked):
    source = opened(tar_shards, tmp_path / "data")
    images, _ = pool_images(source)
    asked.clear()
    found = FactCache.of(source.address).look_up(images, range(12))
    assert [stamp for stamp, _ in found] == [storage.stamp(source.holders(n)[0])
                                             for n in images.names]  # fmt: skip
    assert len(asked) == 3 + 12


class Distant(Folder):
    """Files of another storage, which answers the first question alone, and others together."""

    def __init__(self, address):
        super().__init__(address)
        self.first, self.together = None, threading.Barrier(AT_ONCE)

    def where(self, name):
        return f"far://away/{name}"

    def stamp(self, name):
        if self.first is None:
            self.first = name
        else:
            self.together.wait(timeout=30)
        if name == "3":
            raise FileNotFoundError(name)
        return int(name), 1


def test_files_elsewhere_are_asked_for_side_by_side_and_missing_ones_are_none():
    names = [str(i) for i in range(2 * AT_ONCE + 1)]
    source = Distant("far://away")
    asked = stamps_of(source, names)
    assert not any(asked.here)
    assert asked.stamps == [None if name == "3" else (int(name), 1) for name in names]
    assert source.first == "0"


def test_sizes_are_those_of_the_files_and_a_missing_one_is_an_error(elsewhere):
    for row in range(3):
        elsewhere.pipe_file(f"/elsewhere/cats/{row}.png", bytes(10 + row))
    source = open_source("memory://elsewhere")
    assert sizes_of(source, ["cats/2.png", "cats/0.png"]) == [12, 10]
    with pytest.raises(FileNotFoundError, match=r"elsewhere/cats/3\.png is gone"):
        sizes_of(source, ["cats/0.png", "cats/3.png"])


def test_a_release_in_shards_is_told_from_others_by_one_question_a_shard(tmp_path, asked):
    source = opened(tar_shards, tmp_path / "data")
    suite = PublishedImages("sketch", source.address)
    assert len(suite._images) == 12
    asked.clear()
    content = suite.settings["content"]
    assert len(asked) == 3
    assert content == digest([[name, source.stamp(name)[0]] for name in suite._images.names])


def test_one_image_that_two_parquet_files_name_has_the_stamp_of_either(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    outside = write_picture(tmp_path / "one.png", 0)
    (tmp_path / "data").mkdir()
    for number in range(2):
        rows = [{"bytes": None, "path": str(outside)}] * (number + 1)
        table = pa.table({"image": pa.array(rows, kind), "label": ["cat"] * len(rows)})
        pq.write_table(table, tmp_path / "data" / f"{number}.parquet")
        os.utime(tmp_path / "data" / f"{number}.parquet", (number + 1, number + 1))
    os.utime(outside, (0, 0))
    source = open_source(tmp_path / "data")
    names = source.listing("pool").names
    found = stamps_of(source, names).stamps
    assert found == [source.stamp(name) for name in names]
    assert len(set(found)) == 2


def written(data: Path, **parts: Images) -> Path:
    """The manifest of these images, as a run that has read them writes it."""
    data.mkdir()
    facts = {name: Part(images, examine(images)) for name, images in parts.items()}
    write_json(data / "classes.json", list(parts["labeled"].classes))
    write_manifest(data, facts)
    return data


@pytest.fixture
def table(tmp_path, elsewhere):
    """A table of this machine with four images of another storage, and two of this one."""
    rows = []
    for row in range(6):
        path = f"{row}.png" if row > 3 else f"memory://elsewhere/{row}.png"
        rows.append(f"{path},{LABELS[row * 2]}")
        if row > 3:
            (tmp_path / path).write_bytes(png(row))
        else:
            elsewhere.pipe_file(f"/elsewhere/{row}.png", png(row))
    (tmp_path / "data.csv").write_text("\n".join(["path,label", *rows]))
    return tmp_path / "data.csv"


def test_images_elsewhere_that_a_table_here_names_are_not_asked_for_at_each_read(
    table, tmp_path, asked
):
    images, _ = labeled_images(open_source(table), "labeled")
    again = read_manifest(written(tmp_path / "run", labeled=images))["labeled"]
    asked.clear()
    assert [again.read(row) for row in range(6)] == [png(row) for row in range(6)]
    assert asked == [str(tmp_path / f"{row}.png") for row in (4, 5)]
    (tmp_path / "5.png").write_bytes(png(7))
    with pytest.raises(OSError, match="has changed since the command began"):
        again.read(5)


def test_an_image_elsewhere_that_has_changed_or_gone_is_refused_when_a_run_goes_on(
    table, tmp_path, elsewhere
):
    images, _ = labeled_images(open_source(table), "labeled")
    data = written(tmp_path / "run", labeled=images)
    elsewhere.pipe_file("/elsewhere/2.png", png(9))
    with pytest.raises(DataProblem, match=r"memory://elsewhere/2\.png has changed since"):
        read_manifest(data)
    elsewhere.rm_file("/elsewhere/2.png")
    with pytest.raises(DataProblem, match=r"memory://elsewhere/2\.png is gone since"):
        read_manifest(data)


def test_a_file_of_arrays_is_read_once_for_all_parts(tmp_path, monkeypatch):
    reads, real = [], Arrays._content

    def counting(self):
        if self._published is None:
            reads.append(self.address)
        return real(self)

    monkeypatch.setattr(Arrays, "_content", counting)
    path = str(tmp_path / "data.npz")
    np.savez(path, x_train=RGB[:8], y_train=LABELS[:8], x_test=RGB[8:], y_test=LABELS[8:])
    parts, _ = list_parts(path, test=path, pool=path)
    assert reads == [path]
    assert {name: len(images) for name, images in parts.items()} == {
        "labeled": 8, "test": 4, "pool": 8
    }  # fmt: skip
    data = written(tmp_path / "run", **parts)
    reads.clear()
    again = read_manifest(data)
    assert [raw.tolist() for raw in map(again["test"].read, range(4))] == RGB[8:].tolist()
    again["pool"].read(0)
    assert reads == [path]


def test_a_folder_elsewhere_is_listed_once_for_the_stamps(tmp_path, elsewhere, monkeypatch):
    for path in write_classes(tmp_path, {"a": 20, "b": 20}).rglob("*.png"):
        elsewhere.pipe_file(f"/elsewhere/{path.relative_to(tmp_path)}", path.read_bytes())
    source = open_source("memory://elsewhere")
    names = source.listing("labeled").names
    listed, real = [], storage.entries_below

    def slowly(address):
        listed.append(address)
        time.sleep(0.05)
        return real(address)

    monkeypatch.setattr(storage, "entries_below", slowly)
    assert all(size for size, _ in stamps_of(source, names).stamps)
    assert listed == ["memory://elsewhere"]
    cache = FactCache(tmp_path / "facts.parquet")  # memory: has none of its own
    monkeypatch.setattr(FactCache, "of", lambda address: cache)
    assert not any(facts.problem for facts in examine(Images(open_source(source.address), names)))
    assert listed == ["memory://elsewhere"] * 2
