"""Tables, tars and Parquet files that are damaged, or were made to do harm."""

import io
import json
import random
import tarfile
import time
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from shards import png, write_tar

from tutelage.data import label_parts, tar_index
from tutelage.data.class_names import same_word
from tutelage.data.columns import in_order
from tutelage.data.delimited import parse
from tutelage.data.find import open_source
from tutelage.data.parquet_schema import layout_of
from tutelage.data.tar_index import read_index
from tutelage.errors import DataProblem, TutelageError

NUMBER = "9" * 5000  # Python makes no number of so many digits


def test_labels_of_thousands_of_digits_are_said_and_not_met(tmp_path):
    members = {"1.png": png(1), "1.cls": NUMBER.encode(), "2.png": png(2), "2.cls": b"4"}
    members |= {"3.png": png(3), "3.json": b"[" * 5000}
    write_tar(tmp_path / "a.tar", members)
    found = open_source(tmp_path).listing("labeled")
    assert found.labels == ("", "4", "")
    assert sum(issue.kind == "broken label" for issue in found.issues) == 2
    assert in_order([NUMBER, "4"]) == ("4", NUMBER)


def test_a_class_name_of_a_million_letters_takes_no_time():
    start = time.monotonic()
    assert list(same_word(("x" * 10**6, "y" * 10**6))) == []
    assert time.monotonic() - start < 1


def test_a_size_of_thousands_of_digits_in_a_tar_is_damage(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        about = tarfile.TarInfo("1.png")
        about.pax_headers = {"size": NUMBER}
        tar.addfile(about)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    with pytest.raises(DataProblem, match="damaged"):
        read_index(str(tmp_path / "a.tar"))


def test_a_label_file_of_any_size_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_index, "LARGEST_WANTED", 100)
    path = write_tar(tmp_path / "a.tar", {"1.json": b"x" * 5000})
    assert len(read_index(str(path), lambda name: True).contents["1.json"]) == 100


def test_text_that_is_no_utf_8_in_parquet_is_said(tmp_path):
    for column, address in (("path", "table.parquet"), ("image", "images.parquet")):
        text = pa.array([b"\xff\xfe", b"b"]).view(pa.string())
        values = pa.array([b"x", b"y"]) if column == "image" else pa.array(["a", "b"])
        pq.write_table(pa.table({column: values, "label": text}), tmp_path / address)
        with pytest.raises(DataProblem, match=r"utf-8|can't be read"):
            open_source(tmp_path / address).listing("labeled")


def test_a_path_with_a_zero_byte_is_a_file_that_is_missing(tmp_path):
    table = pa.table({"path": ["a\0b.png"], "label": ["cat"]})
    pq.write_table(table, tmp_path / "table.parquet")
    source = open_source(tmp_path / "table.parquet")
    for ask in (source.read, source.stamp):
        with pytest.raises(FileNotFoundError, match="zero byte"):
            ask(source.listing("pool").names[0])


def test_features_that_are_lists_are_no_classes():
    """As Hugging Face notes sequences of its older versions."""
    about = {"info": {"features": {"label": [{"dtype": "int64"}], "image": [1]}}}
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    layout = layout_of(schema.with_metadata({"huggingface": json.dumps(about)}))
    assert layout is not None
    assert layout.classes == ()


def damaged(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice((1, 2, 5))):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.randrange(len(data))] if dice.random() < 0.1 else data)


def tar_of(form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in (("1.png", png(1)), ("1.cls", b"0"), ("x" * 120 + ".png", png(2))):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return out.getvalue()


def parquet_of(columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


KINDS = {
    "gnu.tar": tar_of(tarfile.GNU_FORMAT), "pax.tar": tar_of(tarfile.PAX_FORMAT),
    "images.parquet": parquet_of({"image": [png(1), png(2)], "label": ["a", "b"]}),
    "table.parquet": parquet_of({"path": ["a.png", "b.png"], "label": ["a", "b"]}),
    "table.csv": b'path,label\n"a,1.png",cat\nb.png,dog\n',
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=100)
@given(seed=some.integers(0, 2**32))
def test_a_damaged_file_is_read_or_refused_in_our_words(tmp_path_factory, name, seed):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damaged(KINDS[name], random.Random(seed)))
    with suppress(TutelageError):
        source = open_source(path)
        for image in source.listing("labeled").names:
            with suppress(OSError):
                source.read(image)


@settings(max_examples=300)
@given(some.text(alphabet='ab,;\t"\n\r\0 path', max_size=60))
def test_any_text_is_a_table_or_refused(text):
    with suppress(DataProblem):
        table = parse(text.encode())
        assert all(len(column) == len(table.lines) for column in table.columns.values())


@settings(max_examples=100)
@given(seed=some.integers(0, 2**32))
def test_a_damaged_part_of_labels_is_read_or_refused(tmp_path_factory, seed):
    import torch

    part = label_parts.LabelPart(
        0, ("a", "b"), torch.zeros(2, 1, dtype=torch.int32), torch.ones(2, 1).half(),
        torch.ones(2), torch.ones(2), label_parts.About("t", ("x",)),
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "part-00000.parquet"
    path.write_bytes(damaged(label_parts.encoded(part).to_pybytes(), random.Random(seed)))
    for read in (label_parts.read_part, label_parts.read_about):
        with suppress(DataProblem):
            read(path)
