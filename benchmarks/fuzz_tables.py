"""Damaged tables of images and labels: valid ones to begin with, and how they are read."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.fuzz_images import encoded, is_read, pixels, read_source
from tutelage.data import label_parts, pool
from tutelage.data.fact_cache import FactCache, _table
from tutelage.data.facts import Facts
from tutelage.data.issues import Issue, write_issues
from tutelage.data.pool import StoredTargets
from tutelage.data.shard_labels import Parts
from tutelage.data.source import Source
from tutelage.data.sources.parquet_images import ParquetImages
from tutelage.data.sources.table import Table
from tutelage.deploy.labels_folder import Labels, totals
from tutelage.errors import TutelageError
from tutelage.files import write_json
from tutelage.labeling.label_columns import open_labels
from tutelage.labeling.select import select
from tutelage.labeling.select_parts import select_parts
from tutelage.progress import Screen
from tutelage.reports import tables
from tutelage.settings import Select

FACT_KINDS = (str, int, int, str, int, int, str, str, int, int, bool, bool, bool)


def csv_seeds(folder: Path) -> list[bytes]:
    """Tables as people save them: delimiters, quotes, and encodings."""
    rows = 'path,label,split,group\na/1.png,cat,train,g\n"b,2.png",dog,test,\n../x.png,cat,,h\n'
    texts = [rows, rows.replace(",", "\t"), rows.replace(",", ";"), "file;class\na.jpg;1\nb.jpg;2"]
    return [
        *(text.encode() for text in texts), rows.encode("utf-16"), b"\xef\xbb\xbf" + rows.encode(),
        "path,label\nGr\u00f6\u00dfe.png,\u732b\n".encode(),
    ]  # fmt: skip


def read_csv(data: bytes, folder: Path) -> bool:
    """As a table of paths and labels."""
    file = folder / "table.csv"
    file.write_bytes(data)
    return read_source(Table(str(file)))


def _parquet(table: pa.Table, **options: object) -> bytes:
    file = pa.BufferOutputStream()
    pq.write_table(table, file, **options)
    return file.getvalue().to_pybytes()


def parquet_seeds(folder: Path) -> list[bytes]:
    """Tables of paths, and of images as bytes and as Hugging Face writes them."""
    png = encoded(pixels(0, 8), "PNG")
    about = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "image": {"_type": "Image"}}
    noted = {"huggingface": json.dumps({"info": {"features": about}})}
    nested = pa.array([{"bytes": png, "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    found = [
        pa.table({"image": [png, png], "label": ["cat", "dog"], "split": ["train", "test"]}),
        pa.table({"image": nested, "label": [0, 1]}).replace_schema_metadata(noted),
        pa.table({"path": ["a.png", "b.png"], "label": ["cat", "dog"], "group": ["g", None]}),
        pa.table({"path": ["a.png", "b.png"] * 50, "label": [1.0, 2.0] * 50}),
    ]
    return [_parquet(table, compression=how) for table in found for how in ("none", "snappy")]


def read_parquet(data: bytes, folder: Path) -> bool:
    """As a table of images, or of paths."""
    file = folder / "images.parquet"
    file.write_bytes(data)
    source: Source = (
        ParquetImages(str(file)) if ParquetImages.claims(str(file)) else Table(str(file))
    )
    return read_source(source)


def _part() -> label_parts.LabelPart:
    probs = torch.tensor([[0.5, 0.25, 0.25]] * 4).half()
    return label_parts.LabelPart(
        0, ("a", "b", "c", "d"), torch.tensor([[0, 1, 2]] * 4, dtype=torch.int32), probs,
        torch.full((4,), 0.5), torch.arange(4.0),
        label_parts.About("t", ("x", "y", "z"), "s.tar"),
    )  # fmt: skip


def label_seeds(folder: Path) -> list[bytes]:
    """A part of labels, compressed and not."""
    data = label_parts.encoded(_part()).to_pybytes()
    return [data, _parquet(pq.read_table(io.BytesIO(data)), compression="none")]


def read_labels(data: bytes, folder: Path) -> bool:
    """As a pool's only part: whole, by columns, in portions, and as a student learns from it."""
    file = label_parts.part_path(folder, 0)
    file.write_bytes(data)
    readers: list[Callable[[], object]] = [
        lambda: label_parts.read_about(file),
        lambda: label_parts.read_columns(file, ["id", "label", "confidence", "energy"]),
        lambda: pool.from_parts([label_parts.read_part(file)]).labels,
        lambda: totals(folder, 1, 3),
        lambda: list(open_labels(folder).scan(tuple(label_parts.KINDS), len)),
        lambda: _learned(Parts(folder)),
    ]
    return False not in [is_read(reader) for reader in readers]  # each of them


def _learned(parts: Parts) -> None:
    """All that a student asks of a shard's labels."""
    found = parts.count(["s.tar"])
    its = parts.read(0, "s.tar")
    assert found.images[0] == len(its.names) == len(its.copies) == len(its.top_probs)
    if its.names:
        parts.name(0, 0)
    top = torch.from_numpy(its.top_classes).long(), torch.from_numpy(its.top_probs).float()
    used = torch.from_numpy(its.copies) > 0
    rows = torch.arange(int(used.sum()))
    StoredTargets(top[0][used], top[1][used], len(found.classes), soft=True).at(rows)


def selection_seeds(folder: Path) -> list[bytes]:
    """A part of a selection, compressed and not, and its selection.json."""
    _select(folder)
    part = label_parts.part_path(folder / "selected", 0)
    return [
        part.read_bytes(), _parquet(pq.ParquetFile(part).read(), compression="none"),
        (folder / "selected" / "selection.json").read_bytes(),
    ]  # fmt: skip


def _select(folder: Path) -> Path:
    labels = folder / "labels"
    if not labels.exists():
        label_parts.write_part(labels, 0, label_parts.encoded(_part()))
        write_json(labels / "labels.json", {})
    rule = Select(threshold=0.1, per_class=2)
    return select_parts(labels, folder / "selected", rule, screen=Screen()).folder


def read_selection(data: bytes, folder: Path) -> bool:
    """Beside whole labels: as a student reads it, and as `select` goes on with it."""
    whole, out = folder / "whole", folder / "selected"
    if not whole.exists():
        _select(folder)
        out.rename(whole)
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(whole, out)
    name = "part-00000.parquet" if data.startswith(b"PAR1") else "selection.json"
    (out / name).write_bytes(data)
    readers = [lambda: _learned(Parts(folder / "labels", out)), lambda: _select(folder)]
    return False not in [is_read(reader) for reader in readers]  # each of them


def pool_seeds(folder: Path) -> list[bytes]:
    """A run's table of labels: as the teacher gave them, and selected."""
    table = pool.from_parts([_part()])
    pool.save(folder / "a.parquet", table)
    pool.save(folder / "b.parquet", select(table, Select(threshold=0.1, per_class=2)))
    found = [(folder / name).read_bytes() for name in ("a.parquet", "b.parquet")]
    plain = [_parquet(pq.read_table(io.BytesIO(data)), compression="none") for data in found]
    return [*found, *plain]


def read_pool(data: bytes, folder: Path) -> bool:
    """Load it, and what a student asks of it."""
    file = folder / "01-student.parquet"
    file.write_bytes(data)
    try:
        table = pool.load(file)
        if table.copies is None:
            table = select(table, Select(threshold=0.1, per_class=2))
    except TutelageError:
        return False
    tables.balance_rows(table)
    tables.reason_rows(table)
    if len(table.rows()):
        table.targets(soft=True).at(torch.arange(1))
    return True


def fact_seeds(folder: Path) -> list[bytes]:
    """What is remembered of two images, compressed and not."""
    known = {"/a.png": ((5, 7), Facts("c", 3, 4)), "/b.png": ((6, 8), Facts("", 0, 0, "bad"))}
    table = _table(known)
    return [_parquet(table, compression=how) for how in ("zstd", "none")]


def read_facts(data: bytes, folder: Path) -> bool:
    """What the cache knows afterwards has the kinds that it should have."""
    file = folder / "facts.parquet"
    file.write_bytes(data)
    known = FactCache(file).known
    for where, (stamp, facts) in known.items():
        values = [where, *stamp, *astuple(facts)]
        assert all(type(value) is kind for value, kind in zip(values, FACT_KINDS, strict=True))
    return bool(known)


def issue_seeds(folder: Path) -> list[bytes]:
    """Rows of issues.csv."""
    bad = Issue("dropped", "unreadable", "pool", "/x/a,b.png", 'is "no" image')
    write_issues(folder / "issues.csv", [bad, Issue("note", "splits", "pool", "/x", "left out")])
    return [(folder / "issues.csv").read_bytes()]


def read_issue_file(data: bytes, folder: Path) -> bool:
    """As `label` reads the one of its earlier start."""
    (folder / "issues.csv").write_bytes(data)
    labels = Labels(folder, Table(str(folder / "t.csv")), [], readable=True)
    try:
        labels.write_issues([])
    except TutelageError:
        return False
    return True
