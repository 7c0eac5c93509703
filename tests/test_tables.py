"""Tables as people have them: encodings, delimiters, names of columns, and what is said of each."""

import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images import write_picture

from tutelage.data.find import open_source
from tutelage.data.parts import labeled_images, list_parts, pool_images
from tutelage.data.sources.memory import as_source
from tutelage.errors import DataProblem

PLAIN = "path,label\na.png,cat\nb.png,dog\n"


@pytest.fixture
def table(tmp_path):
    """Writes a table beside two images and opens it."""
    write_picture(tmp_path / "a.png", 1)
    write_picture(tmp_path / "b.png", 2)

    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_source(path)

    return write


def rows(source, part="labeled"):
    listing = source.listing(part)
    return list(zip(listing.names, listing.labels, strict=True))


def kinds(issues, severity=None):
    return [issue.kind for issue in issues if severity in (None, issue.severity)]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        gzip.compress(PLAIN.encode()),
        PLAIN + "\n\n,\n",
        'label, path \n"cat", a.png\n dog,"b.png"\n',
        'path, label\n"a.png", "cat"\n"b.png", "dog"\n',
        ",path,label,\n0,a.png,cat,\n1,b.png,dog,\n",
        'path,label,"note, or two"\na.png,cat,"x, y\nz"\nb.png,dog,\n',
    ],
    ids=["plain", "crlf", "cr", "bom", "utf-16", ";", "tab", "|", "gzip", "blank lines", "spaces",
         "spaces before quotes", "index", "line break in quotes"],
)  # fmt: skip
def test_a_table_is_read_however_it_was_saved(table, content):
    assert rows(table(content)) == [("a.png", "cat"), ("b.png", "dog")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("path,label\n", "no rows below its header"),
        ("path,label\n,cat\n", "none with a path"),
        (PLAIN.encode() + "ü.png,caf".encode() + b"\xe9\n", r"no UTF-8 at line 4 \(byte 0xe9"),
        ("path,label\na.png,cat\nb,1.png,dog\n", "3 fields at line 3, where the header names 2"),
        ('path,label\n"a.png,cat\n', "can't be read at line 2"),
        ("path,path\na,b\n", "column 'path' twice"),
        ("name,kind\na.png,cat\n", "columns 'name', 'kind', of which none is a path"),
        ("a.png,cat\nb.png,dog\n", "columns 'a.png', 'cat', of which none is a path"),
        ("path,kind\na.png,cat\n", "of which none is a label: name it one of label, class"),
        (b"\x1f\x8bnot really", "broken gzip"),
        (b"path,label\na\0.png,cat\n", "zero byte at line 2"),
    ],
)
def test_a_broken_table_is_said_with_its_line_and_the_layout(table, content, said):
    source = table(content)
    with pytest.raises(DataProblem, match=said) as caught:
        source.listing("labeled")
    assert source.layout in str(caught.value)
    _, issues = labeled_images(source, "labeled")
    assert kinds(issues, "fatal") == ["broken source"]


@pytest.mark.parametrize(
    "header", ["image,class", "File_Name,Target", "filepath,category", "img path,Label"]
)
def test_other_names_of_columns_are_understood_and_said(table, header):
    source = table(PLAIN.replace("path,label", header))
    images, issues = labeled_images(source, "labeled")
    assert images.classes == ("cat", "dog")
    assert kinds(issues) == ["columns"]
    assert f"{header.split(',')[0]!r} as path" in issues[0].detail


def test_numbers_are_their_text_and_stand_in_their_order(table):
    content = "path,label\n" + "".join(f"{i}.png,{i}\n" for i in (10, 9, 2, 2000))
    assert table(content).listing("labeled").classes == ("2", "9", "10", "2000")
    frame = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "label": [1, 2, None]})
    assert rows(as_source(frame)) == [("a.png", "1"), ("b.png", "2"), ("c.png", "")]


def test_rows_without_a_label_or_path_are_left_out_by_name(table):
    source = table("path,label\na.png,cat\nb.png,\n,dog\na/c.png\nd.png,dog\n")
    images, issues = labeled_images(source, "labeled")
    assert images.names == ("a.png", "d.png")
    assert sorted(kinds(issues, "dropped")) == ["no label", "no label", "no path"]
    assert any("line 4" in issue.path for issue in issues)


def test_a_path_that_is_listed_twice_is_one_image(table):
    source = table("path,label\na.png,cat\n./a.png,cat\nb.png,dog\nb.png,cat\nc.png,dog\n")
    images, issues = labeled_images(source, "labeled")
    assert images.names == ("a.png", "c.png")
    assert kinds(issues, "note") == ["listed twice"]
    assert kinds(issues, "dropped") == ["two classes", "two classes"]


def test_a_path_in_two_splits_is_judged_on_and_not_trained_on(table):
    source = table(
        "path,label,split\na.png,cat,train\na.png,cat,test\nb.png,dog,train\nc.png,cat,train\n"
    )
    parts, issues = list_parts(source.address)
    assert parts["labeled"].names == ("b.png", "c.png")
    assert parts["test"].names == ("a.png",)
    assert "two splits" in kinds(issues, "dropped")


def test_paths_of_windows_are_understood(table, tmp_path):
    write_picture(tmp_path / "deep" / "c.png", 3)
    source = table("path,label\ndeep\\c.png,cat\na.png,dog\n")
    images, issues = labeled_images(source, "labeled")
    assert images.names == ("deep/c.png", "a.png")
    assert source.read("deep/c.png") == (tmp_path / "deep" / "c.png").read_bytes()
    assert kinds(issues) == ["backslashes"]


def test_paths_are_seen_from_the_table_or_absolute(table, tmp_path, monkeypatch):
    elsewhere = write_picture(tmp_path / "else where" / "ü.png", 3)
    monkeypatch.chdir("/")
    source = table(f"path,label\na.png,cat\n{elsewhere},dog\nfile://{elsewhere}x,dog\n")
    images, _ = labeled_images(source, "labeled")
    assert images.places == [str(tmp_path / "a.png"), str(elsewhere), f"{elsewhere}x"]
    assert source.read(images.names[1]) == elsewhere.read_bytes()
    with pytest.raises(FileNotFoundError):
        source.read(images.names[2])


def test_groups_and_splits_come_along_unless_they_are_empty(table):
    listing = table("path,label,split,group\na.png,cat,,p1\nb.png,dog,,\n").listing("labeled")
    assert listing.groups == ("p1", "")
    assert listing.splits is None
    images, _ = pool_images(table("file,group\na.png,p1\nb.png,p2\n", "pool.csv"))
    assert images.groups == ("p1", "p2")


def test_an_unknown_split_is_fatal_and_named(table):
    source = table("path,label,split\na.png,cat,train\nb.png,dog,holdout\n")
    _, issues = list_parts(source.address)
    assert kinds(issues, "fatal") == ["unknown split"]
    assert "'holdout'" in next(i.detail for i in issues if i.severity == "fatal")


def test_a_parquet_table_reads_its_own_columns_alone(tmp_path):
    nested = pa.array([{"x": 1}, {"x": 2}])
    kinds_of = pa.array(["cat", "dog"]).dictionary_encode()
    content = {"path": ["a.png", "b.png"], "label": kinds_of, "other": nested}
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    assert rows(open_source(tmp_path / "t.parquet")) == [("a.png", "cat"), ("b.png", "dog")]


def test_a_parquet_table_without_labels_names_its_columns(tmp_path):
    pq.write_table(pa.table({"path": ["a.png"], "score": [1.0]}), tmp_path / "t.parquet")
    with pytest.raises(DataProblem, match="'path', 'score', of which none is a label"):
        open_source(tmp_path / "t.parquet").listing("labeled")
