"""Offsets of a tar's members, against Python's own tarfile."""

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import write_tar

from tutelage.data import tar_index
from tutelage.data.tar_index import read_index
from tutelage.errors import DataProblem

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
PIECE = st.text("abcé日 .-_", min_size=1, max_size=60).filter(lambda s: s.strip(". ") != "")
NAMES = st.lists(PIECE, min_size=1, max_size=6).map("/".join)
CONTENTS = st.one_of(st.binary(max_size=40), st.integers(500, 1600).map(lambda n: b"x" * n))


def expected(path, **more):
    with tarfile.open(path, **more) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]


def found(path):
    index = read_index(str(path))
    return list(zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True))


@given(st.dictionaries(NAMES, CONTENTS, max_size=6), st.sampled_from(FORMATS), st.booleans())
def test_every_offset_is_that_of_tarfile(tmp_path_factory, members, kind, folders):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    with tarfile.open(path, "w", format=kind, encoding="utf-8") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            try:
                tar.addfile(info, io.BytesIO(content))
            except ValueError:  # ustar can't hold the name
                continue
            if folders:
                inside = tarfile.TarInfo("folder")
                inside.type = tarfile.DIRTYPE
                tar.addfile(inside)
    assert found(path) == expected(path)


@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=12))
def test_members_of_any_size_are_found_whatever_is_read_at_once(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    write_tar(path, [(f"{i}.jpg", b"j" * size) for i, size in enumerate(sizes)])
    assert found(path) == expected(path)


def test_a_size_in_base_256_is_read(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a": b"12345", "b": b"6"})
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert found(path) == expected(path) == [("a", 512, 5), ("b", 1536, 1)]


def test_links_are_the_file_that_they_lead_to(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a/1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        for name, target, kind in (
            ("b/2.jpg", "a/1.jpg", tarfile.LNKTYPE),
            ("b/3.jpg", "../a/1.jpg", tarfile.SYMTYPE),
            ("b/4.jpg", "gone.jpg", tarfile.SYMTYPE),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    assert found(tmp_path / "x.tar") == [(n, 512, 3) for n in ("a/1.jpg", "b/2.jpg", "b/3.jpg")]


def test_tars_behind_one_another_lose_nothing(tmp_path):
    one = write_tar(tmp_path / "1.tar", {"a": b"1"}).read_bytes()
    two = write_tar(tmp_path / "2.tar", {"b": b"22"}).read_bytes()
    (tmp_path / "x.tar").write_bytes(one + two)
    assert found(tmp_path / "x.tar") == expected(tmp_path / "x.tar", ignore_zeros=True)
    assert len(found(tmp_path / "x.tar")) == 2


def test_wanted_contents_come_along(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.jpg": b"j" * 5000, "a.cls": b"7", "b.cls": b"8"})
    assert read_index(str(path), lambda n: n.endswith(".cls")).contents == {
        "a.cls": b"7", "b.cls": b"8",
    }  # fmt: skip


@given(st.integers(0, 3 * 1024 - 1))
def test_a_tar_that_is_cut_off_anywhere_is_refused_with_its_name_and_place(tmp_path_factory, at):
    path = tmp_path_factory.mktemp("tar") / "cut.tar"
    write_tar(path, {"a.jpg": b"j" * 600, "b.jpg": b"k" * 200})  # 1536 + 1024 bytes, end at 2560
    path.write_bytes(path.read_bytes()[: min(at, 2560)])
    with pytest.raises(DataProblem, match=r"cut\.tar is damaged at byte [\d,]+ of [\d,]+"):
        read_index(str(path))


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_changed_byte_of_a_header_is_noticed(tmp_path_factory, at, change):
    path = tmp_path_factory.mktemp("tar") / "odd.tar"
    data = bytearray(write_tar(path, {"a.jpg": b"j" * 600, "b.jpg": b"k"}).read_bytes())
    start = 1536 + at
    data[start] ^= change
    path.write_bytes(data)
    problem = None
    try:
        index = found(path)
    except DataProblem as error:
        problem = error
    if problem is not None:
        assert "odd.tar is damaged at byte 1,536" in str(problem)
    else:  # the sum's own bytes may be written in several ways
        assert 148 <= at < 156
        assert index == [("a.jpg", 512, 600), ("b.jpg", 2048, 1)]


def test_broken_pax_records_and_endless_names_are_damage(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("é" * 90))
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[512:515] = b"???"
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataProblem, match="pax records"):
        read_index(str(tmp_path / "x.tar"))


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(gzip.compress(b"anything"))
    with pytest.raises(DataProblem, match=r"x\.tar is compressed \(gzip\).*decompress it"):
        read_index(str(path))


def test_a_tar_that_is_gone_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_index(str(tmp_path / "x.tar"))


def test_a_tar_at_an_address_is_read_by_ranges(tmp_path):
    import fsspec

    path = write_tar(tmp_path / "x.tar", {f"{i}.jpg": b"j" * 3000 for i in range(20)})
    files = fsspec.filesystem("memory")
    files.pipe_file("/index/x.tar", path.read_bytes())
    assert found("memory://index/x.tar") == found(path)


def test_headers_far_apart_are_read_without_what_lies_between(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{i}.jpg": b"j" * 300_000 for i in range(10)})
    asked = []

    def read(offset, count):
        asked.append(count)
        return path.read_bytes()[offset : offset + count]

    window = tar_index._Window(read, path.stat().st_size)
    index = tar_index._Walk(str(path), window, lambda name: False).index()
    assert len(index.names) == 10
    assert sum(asked) < 0.1 * path.stat().st_size
