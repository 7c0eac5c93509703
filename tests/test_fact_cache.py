import os
import threading
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import picture, write_classes, write_picture

from tutelage.data import examine as examining
from tutelage.data import fact_cache
from tutelage.data.check import survey
from tutelage.data.examine import examine
from tutelage.data.fact_cache import FactCache, cache_folder
from tutelage.data.facts import Facts
from tutelage.data.find import open_source
from tutelage.data.source import Images
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.memory import as_source


class Counted(Folder):
    """A folder that counts its reads."""

    def __init__(self, address):
        super().__init__(str(address))
        self.reads = []

    def read(self, name):
        self.reads.append(name)
        return super().read(name)


def age(folder):
    """Make all files an hour old: just written ones are not remembered."""
    for path in folder.rglob("*.*"):
        if not path.is_symlink():
            os.utime(path, ns=(0, time.time_ns() - 3600 * 10**9 + hash(path.name) % 1000))


@pytest.fixture
def root(tmp_path):
    write_classes(tmp_path / "data", {"cat": 9, "dog": 9})
    age(tmp_path / "data")
    return tmp_path / "data"


def look(root):
    source = Counted(root)
    images = Images(source, tuple(sorted(source.listing("pool").names)))
    facts = examine(images)
    return facts, len(source.reads)


def only_file():
    (path,) = cache_folder().iterdir()
    return path


def test_what_did_not_change_is_not_read_again_and_its_facts_are_the_same(root):
    first, reads = look(root)
    assert reads == 18
    assert look(root) == (first, 0)
    assert all(isinstance(fact, Facts) and fact.look for fact in first)


def test_a_changed_file_alone_is_read_again(root):
    before, _ = look(root)
    path = root / "cat" / "0003.png"
    picture(999).save(path)
    age(root / "cat")
    os.utime(path, ns=(0, time.time_ns() - 10**10))
    after, reads = look(root)
    assert reads >= 1
    assert [a == b for a, b in zip(before, after, strict=True)].count(False) == 1
    assert look(root) == (after, 0)


def test_another_size_or_time_is_another_file(root):
    look(root)
    path = root / "dog" / "0010.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert look(root)[1] == 1


def test_a_file_that_may_still_change_within_its_time_is_not_remembered(root):
    picture(50).save(root / "cat" / "new.png")
    assert look(root)[1] == 19
    assert look(root)[1] == 1


def test_unreadable_files_are_tried_again(root):
    path = root / "cat" / "0001.png"
    path.write_bytes(b"")
    age(root)
    assert look(root)[1] == 18
    facts, reads = look(root)
    assert reads == 1
    assert facts[1].problem


@pytest.mark.parametrize("damage", ["torn", "text", "empty", "other columns", "a folder"])
def test_a_damaged_cache_is_made_anew(root, damage):
    first, _ = look(root)
    path = only_file()
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "other columns":
        pq.write_table(pq.read_table(path).drop_columns(["look"]), path)
    elif damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text("no Parquet" if damage == "text" else "")
    assert look(root) == (first, 18)
    assert look(root) == (first, 18 if damage == "a folder" else 0)


def test_another_version_or_decoder_reads_all_again(root, monkeypatch):
    look(root)
    monkeypatch.setattr(fact_cache, "VERSION", "2")
    assert look(root)[1] == 18


def test_a_cache_that_can_not_be_written_is_done_without(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file" / "cache"))
    first, reads = look(root)
    assert reads == 18
    assert look(root) == (first, 18)


def test_many_writers_at_once_leave_a_whole_file(root):
    look(root)
    caches = [FactCache.of(str(root)) for _ in range(8)]
    for cache in caches:
        cache.is_new = True
    threads = [threading.Thread(target=cache.save) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert look(root)[1] == 0
    assert len(list(cache_folder().iterdir())) == 1


def test_stopped_in_the_middle_what_was_read_is_kept(root, monkeypatch):
    monkeypatch.setattr(examining, "AT_ONCE", 1)
    heard = []

    def advance(done):
        heard.append(done)
        if len(heard) == 5:
            raise KeyboardInterrupt

    source = Counted(root)
    with pytest.raises(KeyboardInterrupt):
        examine(Images(source, source.listing("pool").names), advance)
    assert look(root)[1] <= 13


def test_the_oldest_files_go_where_all_together_are_too_large(root, tmp_path, monkeypatch):
    look(root)
    old = only_file()
    os.utime(old, ns=(0, 1))
    write_classes(tmp_path / "other", {"cat": 5}, first=500)
    age(tmp_path / "other")
    monkeypatch.setattr(fact_cache, "MOST_BYTES", old.stat().st_size + 100)
    look(tmp_path / "other")
    assert not old.exists()
    assert look(tmp_path / "other")[1] == 0
    assert look(root)[1] == 18


def test_images_that_were_not_asked_for_go_where_one_source_has_too_many(root, monkeypatch):
    look(root)
    for path in (root / "dog").iterdir():
        path.unlink()
    picture(70).save(root / "cat" / "more.png")
    age(root)
    monkeypatch.setattr(fact_cache, "MOST_IMAGES", 12)
    look(root)
    assert pq.read_metadata(only_file()).num_rows == 10


def test_the_folder_follows_the_variables_and_images_in_memory_have_none(monkeypatch, tmp_path):
    assert FactCache.of("memory:1").path is None
    assert FactCache.of("").path is None
    monkeypatch.delenv("TUTELAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tutelage"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "tutelage"


def _stamps(source):
    return [source.stamp(name) for name in source.listing("labeled").names]


def _changed(before, after):
    return [row for row, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]


@pytest.fixture
def outside(tmp_path):
    """Eight images, and rows that name them."""
    for number in range(8):
        write_picture(tmp_path / "images" / f"{number}.png", number)
        os.utime(tmp_path / "images" / f"{number}.png", (10**9, 10**9))
    return [{"bytes": None, "path": f"images/{i}.png"} for i in range(8)]


def test_an_image_that_a_parquet_file_only_names_is_read_again_where_it_changes(outside, tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    outside[0] = {"bytes": (tmp_path / "images" / "0.png").read_bytes(), "path": "0.png"}
    table = pa.table({"image": pa.array(outside, kind), "label": ["cat", "dog"] * 4})
    pq.write_table(table, tmp_path / "data.parquet")
    os.utime(tmp_path / "data.parquet", (10**9, 10**9))
    address = str(tmp_path / "data.parquet")
    stamps = _stamps(open_source(address))
    survey(address)
    (tmp_path / "images" / "0.png").write_bytes(b"not used")
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    found = survey(address).issues
    assert [issue.path[-1] for issue in found if issue.kind == "unreadable"] == ["3"]
    assert _changed(stamps, _stamps(open_source(address))) == [3]


def test_an_image_that_a_data_set_only_names_is_known_to_have_changed(outside, tmp_path):
    names = [str(tmp_path / row["path"]) for row in outside]
    rows = datasets.Dataset.from_dict({"image": names, "label": ["cat", "dog"] * 4})
    source = as_source(rows.cast_column("image", datasets.Image()))
    stamps = _stamps(source)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    assert _changed(stamps, _stamps(source)) == [3]
