"""Tar shards as a source: addresses, samples, labels, splits, and what is wrong with them."""

import pickle
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import png, write_shards, write_tar

from tutelage.data import places
from tutelage.data.find import open_source
from tutelage.data.parts import list_parts
from tutelage.data.shard_names import braces, common_folder
from tutelage.data.sources import webdataset
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.webdataset import WebDataset
from tutelage.errors import DataProblem, UsageError


def opened(address):
    source = open_source(address)
    assert isinstance(source, WebDataset)
    return source


def sample(key, label=None, seed=0):
    found = {f"{key}.png": png(seed)}
    return found if label is None else found | {f"{key}.cls": str(label).encode()}


def test_every_form_of_address_gives_the_same_images(tmp_path):
    write_shards(tmp_path, [2, 3, 1])
    forms = [tmp_path, f"{tmp_path}/pool-{{0..2}}.tar", f"{tmp_path}/pool-*.tar",
             f"file://{tmp_path}/pool-{{0,1,2}}.tar"]  # fmt: skip
    listings = [opened(form).listing("pool") for form in forms]
    assert {listing.names for listing in listings} == {
        tuple(f"pool-{shard}.tar/{i:05d}.png" for i, shard in enumerate((0, 0, 1, 1, 1, 2)))
    }  # fmt: skip
    assert listings[0].splits is None
    one = opened(tmp_path / "pool-1.tar")
    assert one.listing("pool").names == tuple(f"pool-1.tar/{i:05d}.png" for i in (2, 3, 4))


def test_an_image_is_its_member_and_shards_lie_one_after_the_other(tmp_path):
    source = opened(write_shards(tmp_path, [2, 3]))
    names = [name for shard in source.shards() for name in source.names_in(shard)]
    assert tuple(names) == source.listing("pool").names
    assert [source.read(name) for name in names] == [png(i) for i in range(5)]
    assert source.where(names[0]) == f"{tmp_path}/pool-0.tar/00000.png"
    assert source.stamp(names[0])[0] == (tmp_path / "pool-0.tar").stat().st_size


def test_addresses_elsewhere_are_read_alike(tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    for path in write_shards(tmp_path, [2, 2]).iterdir():
        files.pipe_file(f"/elsewhere/{path.name}", path.read_bytes())
    here = opened(tmp_path).listing("pool").names
    for address in ("elsewhere", "elsewhere/pool-{0..1}.tar", "elsewhere/*.tar"):
        source = WebDataset(f"memory://{address}")
        assert WebDataset.claims(source.address)
        assert source.listing("pool").names == here
        assert source.read(here[3]) == png(3)
    with pytest.raises(UsageError, match=r"1 of the 3 shards .* no memory://elsewhere/pool-2\.tar"):
        WebDataset("memory://elsewhere/pool-{0..2}.tar").shards()


def test_labels_are_those_of_the_sample(tmp_path):
    write_tar(tmp_path / "a.tar", {
        **sample("x/1", 1), **sample("x/2", "0"), "x/3.jpg": b"", "x/3.json": b'{"label": 2}',
        "x/4.jpg": b"", "x/4.json": b'{"label": 9}', "x/4.cls": b"10\n",
    })  # fmt: skip
    listing = opened(tmp_path / "a.tar").listing("labeled")
    assert listing.labels == ("1", "0", "2", "10")
    assert listing.classes == ("0", "1", "2", "10")


@pytest.mark.parametrize(("file", "text"), [
    ("classes.txt", "dog\ncat\n"),
    ("dataset_info.json", '{"features": {"label": {"names": ["dog", "cat"]}}}'),
    ("_info.json", '{"label_names": ["dog", "cat"]}'),
])  # fmt: skip
def test_class_names_beside_the_shards_name_the_numbers(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    write_tar(tmp_path / "a.tar", sample("1", 1) | sample("2", 0) | sample("3", "dog"))
    listing = opened(tmp_path).listing("labeled")
    assert (listing.labels, listing.classes) == (("cat", "dog", "dog"), ("dog", "cat"))
    assert listing.issues == ()


def test_a_label_that_is_no_class_is_fatal_and_names_its_image(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    write_tar(tmp_path / "a.tar", sample("1", 2) | sample("2", "catt"))
    fatal = [i for i in opened(tmp_path).listing("labeled").issues if i.severity == "fatal"]
    assert [issue.path for issue in fatal] == [f"{tmp_path}/a.tar/{n}.png" for n in (1, 2)]
    assert "did you mean cat?" in fatal[1].detail


def test_a_class_named_twice_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ndog\n")
    write_tar(tmp_path / "a.tar", sample("1", 0))
    with pytest.raises(DataProblem, match="names 'dog' twice"):
        opened(tmp_path).listing("labeled")


def test_images_without_labels_and_broken_labels_are_counted(tmp_path):
    broken = sample("4") | {"4.json": b"{"} | sample("5") | {"5.json": b'{"label": [1]}'}
    write_tar(tmp_path / "a.tar", sample("1", 0) | sample("2", 1) | sample("3") | broken)
    parts, issues = list_parts(tmp_path)
    assert len(parts["labeled"]) == 2
    said = [(i.kind, i.path.rpartition("/")[2]) for i in issues if i.severity == "dropped"]
    assert sorted(said) == [
        *(("broken label", f"{number}.json") for number in (4, 5)),
        *(("no label", f"{number}.png") for number in (3, 4, 5)),
    ]


@pytest.mark.parametrize("names", [
    ("train/0.tar", "valid/0.tar", "test/0.tar"), ("train-00.tar", "val-00.tar", "test-00.tar"),
])  # fmt: skip
def test_splits_are_understood_by_folder_and_by_name(tmp_path, names):
    for number, name in enumerate(names):
        write_tar(tmp_path / name, sample(f"{number}a", "x", number)
                  | sample(f"{number}b", "y", number))  # fmt: skip
    parts, _ = list_parts(tmp_path, pool=tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {
        "labeled": 2, "val": 2, "test": 2, "pool": 2,
    }  # fmt: skip
    assert parts["test"].names[0].startswith(names[2])


def test_shards_of_one_split_alone_are_what_they_are_asked_for(tmp_path):
    write_tar(tmp_path / "train-00.tar", sample("1", "x") | sample("2", "y"))
    parts, issues = list_parts(tmp_path, pool=tmp_path / "train-00.tar")
    assert (len(parts["labeled"]), len(parts["pool"]), issues) == (2, 2, [])


def test_masks_of_a_sample_are_no_images_but_dots_in_names_are_harmless(tmp_path):
    write_tar(tmp_path / "a.tar", {
        "1.jpg": b"", "1.mask.png": b"", "2021.05.01.jpg": b"", "2021.05.02.jpg": b"",
        "./d/3.JPEG": b"", ".hidden/4.jpg": b"", "__MACOSX/5.jpg": b"", "6.txt": b"",
    })  # fmt: skip
    source = opened(tmp_path / "a.tar")
    members = ("1.jpg", "2021.05.01.jpg", "2021.05.02.jpg", "d/3.JPEG")
    listing = source.listing("pool")
    assert listing.names == tuple(f"a.tar/{member}" for member in members)
    assert sorted(issue.detail for issue in listing.issues) == [
        "1 further images of samples are passed over", "1 members are no images by their suffix",
        "2 hidden members are passed over",
    ]  # fmt: skip
    assert source.read("a.tar/d/3.JPEG") == b""


def test_of_a_name_that_is_there_twice_the_last_counts_and_it_is_said(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("2.png", png(2)), ("1.png", png(3))])
    source = opened(tmp_path / "a.tar")
    assert source.listing("pool").names == ("a.tar/2.png", "a.tar/1.png")
    assert source.read("a.tar/1.png") == png(3)
    assert source.listing("pool").issues[0].kind == "twice in a shard"


def test_a_damaged_shard_is_fatal_and_named(tmp_path):
    write_shards(tmp_path, [2, 2])
    path = tmp_path / "pool-1.tar"
    path.write_bytes(path.read_bytes()[:700])
    issues = opened(tmp_path).listing("pool").issues
    assert [(i.severity, i.path) for i in issues] == [("fatal", str(path))]
    with pytest.raises(OSError, match=r"pool-1\.tar is damaged at byte"):
        opened(tmp_path).read("pool-1.tar/00002.png")


def test_what_is_gone_is_an_oserror_that_names_it(tmp_path):
    source = opened(write_shards(tmp_path, [2, 2]))
    for name in ("pool-0.tar/9.png", "pool-7.tar/1.png"):
        with pytest.raises(FileNotFoundError, match=r"9\.png|pool-7\.tar"):
            source.read(name)
    (tmp_path / "pool-1.tar").unlink()
    with pytest.raises(FileNotFoundError):
        source.read("pool-1.tar/00002.png")
    with pytest.raises(FileNotFoundError):
        source.stamp("pool-1.tar/00002.png")


def test_wrong_addresses_are_refused_with_what_to_do(tmp_path):
    write_shards(tmp_path, [1, 1])
    for address, said in [
        ("pool-9.tar", r"there is no .*pool-9\.tar; did you mean pool-"),
        ("pool-{0..3}.tar", r"2 of the 4 shards .* are missing, there is no .*pool-2\.tar"),
        ("pool-{3..1}.tar", "runs backward"),
        ("pool-{a..c}.tar", "is no range"),
        ("x-*.tar", r"no tar shard matches .*x-\*\.tar"),
        ("x.tar.gz", "is no|there is no"),
    ]:
        with pytest.raises(UsageError, match=said):
            opened(f"{tmp_path}/{address}").shards()
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"x\.tar\.gz is a compressed tar.*decompress it"):
        opened(tmp_path).shards()


def test_shards_without_images_are_fatal(tmp_path):
    write_tar(tmp_path / "a.tar", {})
    (issue,) = opened(tmp_path).listing("pool").issues
    assert issue.severity == "fatal"
    assert "WebDataset" in issue.detail


def test_folders_of_images_with_a_tar_beside_them_stay_folders(tmp_path):
    write_tar(tmp_path / "backup.tar", {})
    (tmp_path / "cat").mkdir()
    assert isinstance(open_source(tmp_path), Folder)
    (tmp_path / "pool").mkdir()
    write_tar(tmp_path / "pool" / "backup.tar", {})
    (tmp_path / "pool" / "1.png").write_bytes(png(1))
    assert isinstance(open_source(tmp_path / "pool"), Folder)


@pytest.mark.parametrize(("addresses", "root"), [
    (["d/pool/1.tar", "d/pool-more/2.tar", "d/pool/sub/3.tar"], "d"),
    (["d/pool/1.tar", "d/pool/sub/3.tar"], "d/pool"),
    (["/a/1.tar", "/b/2.tar"], ""),
    (["1.tar", "sub/2.tar"], ""),
    (["s3://one/1.tar", "s3://two/1.tar"], ""),
    (["s3://one/a/1.tar", "s3://one/b/1.tar"], "s3://one"),
])  # fmt: skip
def test_all_shards_lie_below_their_common_folder(addresses, root):
    assert common_folder(addresses) == root


def test_braces_are_those_of_the_shell():
    assert braces("x-{08..10}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar"]
    assert braces("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    assert len(braces("pool-{000000..029999}.tar")) == 30_000


def test_threads_that_begin_with_a_shard_read_its_headers_once(tmp_path, monkeypatch):
    asked, real = [], webdataset.read_index

    def counting(address, *more):
        asked.append(address)
        time.sleep(0.05)
        return real(address, *more)

    monkeypatch.setattr(webdataset, "read_index", counting)
    source = opened(write_shards(tmp_path, [8, 8]))
    names = [name for shard in source.shards() for name in source.names_in(shard)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.read, names)) == [png(i) for i in range(16)]
    other = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(other.read, names))
    assert len(asked) == 4


@pytest.mark.parametrize("name", ["[1]", "a*", "what?", "{0..2}", "{x}"])
def test_a_folder_or_tar_whose_name_looks_like_a_pattern_is_itself(tmp_path, name):
    root = write_shards(tmp_path / name, [2, 1])
    assert len(opened(root).listing("pool").names) == 3
    one = (root / "pool-0.tar").rename(root / f"{name}.tar")
    assert opened(one).listing("pool").names == tuple(f"{name}.tar/{i:05d}.png" for i in range(2))


def test_a_folder_elsewhere_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    for path in write_shards(tmp_path, [1, 2]).iterdir():
        files.pipe_file(f"/odd [1]/{path.name}", path.read_bytes())
    assert len(WebDataset("memory://odd [1]").shards()) == 2


@given(st.lists(st.text(max_size=9), unique=True, max_size=40), st.text(max_size=9))
@pytest.mark.parametrize("clashing", [False, True])
def test_places_are_those_of_a_table_by_name(clashing, names, other):
    numbers = np.arange(len(names), dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        if clashing:
            patch.setattr(places, "_hashes", lambda names: [len(name) % 3 for name in names])
        found = places.Places(names, 7 * numbers, numbers)
        assert len(found) == len(names)
        expected = {name: (7 * i, i) for i, name in enumerate(names)}
        for name in [*names, *([] if clashing and len(names) < 7 else [other])]:
            assert found.get(name) == expected.get(name)


def test_places_take_24_bytes_an_image_however_long_its_name():
    names, count = [f"{'folder/' * 20}{i:09d}.jpg" for i in range(50_000)], 50_000
    tracemalloc.start()
    try:
        numbers = np.arange(count, dtype=np.int64)
        before = tracemalloc.get_traced_memory()[0]
        held = places.Places(names, numbers, numbers)
        assert tracemalloc.get_traced_memory()[0] - before < 25 * count
    finally:
        tracemalloc.stop()
    assert held.get(names[77]) == (77, 77)


def test_the_headers_that_a_listing_has_read_are_not_read_again(tmp_path, monkeypatch):
    asked, real = [], webdataset.read_index
    monkeypatch.setattr(webdataset, "read_index", lambda *a: asked.append(a[0]) or real(*a))
    source = opened(write_shards(tmp_path, [3, 3, 3, 3]))
    names = source.listing("pool").names
    for name in names[::5] * 3 + names:
        source.read(name)
    assert len(asked) == 4


def test_a_pool_of_which_not_all_places_are_remembered_is_said_to_be_slow(tmp_path, monkeypatch):
    source = opened(write_shards(tmp_path, [3, 3]))
    assert source.listing("pool").issues == ()
    monkeypatch.setattr(webdataset, "REMEMBERED", 5)
    (issue,) = source.listing("pool").issues
    assert (issue.severity, issue.kind) == ("note", "many images")
    assert "has 6 images, and the places of 5 are" in issue.detail


def test_places_that_were_asked_for_long_ago_are_forgotten(tmp_path, monkeypatch):
    source = opened(write_shards(tmp_path, [3, 3, 3]))
    monkeypatch.setattr(webdataset, "REMEMBERED", 6)
    for name in source.listing("pool").names:
        source.read(name)
    assert list(source._places) == ["pool-1.tar", "pool-2.tar"]


def test_a_source_is_read_by_threads_and_sent_to_processes(tmp_path):
    source = pickle.loads(pickle.dumps(opened(write_shards(tmp_path, [20, 20]))))
    names = source.listing("pool").names
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(source.read, names)) == [png(i) for i in range(40)]
