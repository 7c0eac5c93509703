"""Files of labels, selections, runs and settings that others damaged: one of our errors, by name.

Each case was found by `make fuzz`.
"""

import io
import json
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from label_tables import from_probs
from shards import write_labels, write_selection
from test_report import write_run

from tutelage.data import label_parts, pool
from tutelage.data.fact_cache import FactCache, _table
from tutelage.data.facts import Facts
from tutelage.data.parquet_schema import statistics_of
from tutelage.data.shard_labels import Parts
from tutelage.data.sources.table import Table
from tutelage.deploy.labels_folder import Labels, totals
from tutelage.deploy.teacher_check import recorded_accuracy
from tutelage.errors import Damaged, DataProblem, TutelageError, UsageError
from tutelage.evaluation.kept import Kept
from tutelage.files import read_parquet, write_json
from tutelage.labeling.label_columns import open_labels
from tutelage.labeling.select_parts import select_parts
from tutelage.pipelines.manifest import read_manifest
from tutelage.pipelines.trial import read_right
from tutelage.progress import Screen, read_metrics, waited
from tutelage.reports.page import write_report
from tutelage.robustness.corrupted_arrays import CorruptedArrays
from tutelage.run import content_of, read_run, remember_environment
from tutelage.searching.journal import Journal
from tutelage.settings import Select
from tutelage.values import load_yaml, parse_yaml

NO_CLASSES = [b"", b"{}", b"[[1]]", b"[1]", b"null", b"[" * 3000, b"9" * 5000, b"\xff"]


def changed(file, *, about=None, **columns):
    """Write a Parquet file again with other metadata, and other columns."""
    table = pq.ParquetFile(file).read()
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    if about is not None:
        metadata = {**(table.schema.metadata or {}), **about}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, file)


def not_utf8(rows):
    """Text as only a damaged file has it."""
    return pa.array([b"\xff"] * rows, pa.binary()).view(pa.string())


@pytest.fixture
def labels(tmp_path):
    """A folder with the labels of one shard of three images."""
    return write_labels(tmp_path / "labels", {"s.tar": ["a", "b", "c"]}, classes=["x", "y"])


@pytest.fixture
def table(tmp_path):
    """A run's table of labels."""
    path = tmp_path / "01-student.parquet"
    pool.save(path, from_probs(("a", "b"), torch.tensor([[0.9, 0.1]] * 2), ("x", "y"), "t"))
    return path


@pytest.mark.parametrize("text", NO_CLASSES, ids=lambda text: text[:9])
def test_metadata_without_a_list_of_classes_is_no_table_of_labels(text, labels, table):
    part = label_parts.part_path(labels, 0)
    changed(table, about={b"classes": text})
    changed(part, about={b"classes": text})
    with pytest.raises(DataProblem, match=r"01-student\.parquet is no label table"):
        pool.load(table)
    for read in (
        lambda: label_parts.read_about(part), lambda: label_parts.read_part(part),
        lambda: Parts(labels).count(["s.tar"]), lambda: Parts(labels).read(0, "s.tar"),
        lambda: open_labels(labels),
    ):  # fmt: skip
        with pytest.raises(DataProblem, match="part-00000"):
            read()


ODD_TABLES = {
    "names that are no text": {"path": not_utf8(2)},
    "a name that is missing": {"path": pa.array(["a", None])},
    "a class that is none": {"classes": pa.array([[0, 2]] * 2)},
    "a class below 0": {"classes": pa.array([[0, -1]] * 2)},
    "lists of two lengths": {"classes": pa.array([[0, 1], [0]])},
    "a probability that is none": {"probs": pa.array([[float("nan"), 0.1]] * 2)},
    "a probability above 1": {"probs": pa.array([[7.0, 0.1]] * 2)},
    "text for numbers": {"probs": pa.array(["a", "b"])},
}


@pytest.mark.parametrize("odd", ODD_TABLES.values(), ids=ODD_TABLES)
def test_a_table_of_labels_with_odd_values_is_refused(odd, table):
    changed(table, **odd)
    with pytest.raises(DataProblem, match=r"01-student\.parquet is no label table"):
        pool.load(table)


def test_copies_that_are_no_counts_are_refused(tmp_path):
    chosen = pa.array([1, -1], pa.int32())
    path = tmp_path / "a.parquet"
    one = from_probs(("a", "b"), torch.tensor([[0.9, 0.1]] * 2), ("x", "y"), "t")
    pool.save(path, one)
    full = pq.read_table(path).append_column("copies", chosen).append_column("reason", [["k", "k"]])
    pq.write_table(full, path)
    with pytest.raises(DataProblem, match="copies are no counts"):
        pool.load(path)


def test_a_footer_of_two_types_is_refused_where_arrow_would_end_the_process():
    def footer(its):
        chunk = SimpleNamespace(physical_type=its, statistics="what Arrow tells")
        group = SimpleNamespace(column=lambda at: chunk)
        said = SimpleNamespace(physical_type="INT64", path="id")
        schema = SimpleNamespace(column=lambda at: said)
        return SimpleNamespace(row_group=lambda at: group, schema=schema)

    assert statistics_of(footer("INT64"), 0, 0) == "what Arrow tells"
    with pytest.raises(ValueError, match="id is INT64, and UNKNOWN in a group"):
        statistics_of(footer("UNKNOWN"), 0, 0)


ODD_PARTS = {
    "classes of no class": {"classes": pa.array([[0, 9]] * 3, pa.list_(pa.int32(), 2))},
    "probabilities of no size": {
        "probs": pa.array([[np.float16(9), np.float16(0)]] * 3, pa.list_(pa.float16(), 2))
    },
    "names that are no text": {"path": not_utf8(3)},
    "a label that is missing": {"label": pa.array([0, None, 1], pa.int32())},
    "labels with a point": {"label": pa.array([0.0, 1.0, 0.0])},
}


@pytest.mark.parametrize("odd", ODD_PARTS.values(), ids=ODD_PARTS)
def test_a_part_of_labels_with_odd_values_is_refused_by_who_learns_from_it(odd, labels):
    changed(label_parts.part_path(labels, 0), **odd)
    with pytest.raises(DataProblem, match="part-00000"):
        Parts(labels).read(0, "s.tar")


def test_ids_that_are_no_numbers_and_labels_of_no_class_are_refused(labels):
    part = label_parts.part_path(labels, 0)
    changed(part, label=pa.array([0, 5, 1], pa.int32()))
    with pytest.raises(DataProblem, match="part-00000"):
        totals(labels, 1, 2)
    changed(part, id=pa.array([0.5, 1.5, 2.5]))
    with pytest.raises(DataProblem, match="part-00000"):
        open_labels(labels)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff", b"[" * 3000, b"null"])
def test_a_selection_that_does_not_say_of_which_labels_is_refused(text, labels, tmp_path):
    out = write_selection(tmp_path / "selected", [[1, 1, 0]])
    changed(label_parts.part_path(out, 0), about={b"labels": text})
    with pytest.raises(DataProblem, match=r"selected/part-00000\.parquet"):
        Parts(labels, out).count(["s.tar"])


@pytest.mark.parametrize("content", [[], "x", None, 3, {"rule": 3}])
def test_a_selection_json_of_something_else_is_refused(content, labels, tmp_path):
    out = tmp_path / "selected"
    select_parts(labels, out, Select(threshold=0.1, per_class=1), screen=Screen())
    write_json(out / "selection.json", content)
    with pytest.raises(UsageError, match="selection"):
        select_parts(labels, out, Select(threshold=0.1, per_class=1), screen=Screen())
    if not isinstance(content, dict):
        with pytest.raises(Damaged, match="select anew"):
            Parts(labels, out).count(["s.tar"])


def test_remembered_facts_of_another_kind_are_forgotten(tmp_path):
    path, facts = tmp_path / "facts.parquet", _table({"/a.png": ((5, 7), Facts("c", 3, 4))})
    pq.write_table(facts, path)
    assert FactCache(path).known
    for column in (not_utf8(1), pa.array([None], pa.string()), pa.array([3.0])):
        at = facts.schema.get_field_index("content")
        pq.write_table(facts.set_column(at, "content", column), path)
        assert FactCache(path).known == {}


@pytest.mark.parametrize("text", [b"kind,path\nunreadable,/a\n", b'kind\n"x', b"\xff\n\xfe", b"\0"])
def test_an_issues_csv_that_somebody_changed_is_written_anew(text, tmp_path):
    (tmp_path / "issues.csv").write_bytes(text)
    labels = Labels(tmp_path, Table(str(tmp_path / "t.csv")), [], readable=True)
    labels.write_issues(["a.png"])
    assert b"could not be read" in (tmp_path / "issues.csv").read_bytes()


def test_what_a_run_json_lacks_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    whole = json.loads((run / "run.json").read_text())
    for content in ([], {}, whole | {"stages": []}, whole | {"verb": None},
                    whole | {"stages": {"evaluate": {}}}):  # fmt: skip
        write_json(run / "run.json", content)
        for read in (
            lambda: read_run(run),
            lambda: write_report(run),
            lambda: content_of(run, "selftrain", {}),
            lambda: recorded_accuracy(run),
        ):
            with pytest.raises(Damaged, match=r"run\.json is damaged"):
                read()


ODD_FILES = {
    "data/issues.csv": b"x,y\n1,2\n", "data/classes.json": b"3", "environment.json": b"3",
    "data/sources.json": b"3", "labels/01-student.parquet": b"PAR1",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_run_with_a_file_of_something_else_has_no_page_and_says_so(name, tmp_path):
    run = write_run(tmp_path / "run")
    write_report(run)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(ODD_FILES[name])
    with pytest.raises(TutelageError, match="run"):
        write_report(run)


@pytest.mark.parametrize("rounds", [3, [3], [{"name": "00-baseline"}], [{"test": {"right": "x"}}]])
def test_a_verdict_of_something_else_is_said_to_be_damaged(rounds, tmp_path):
    run = write_run(tmp_path / "run")
    content = json.loads((run / "run.json").read_text())
    content["stages"]["evaluate"]["rounds"] = rounds
    write_json(run / "run.json", content)
    with pytest.raises(Damaged, match="run"):
        write_report(run)


def test_an_environment_that_is_no_list_and_an_evaluation_that_is_none_are_said(tmp_path):
    write_json(tmp_path / "environment.json", {})
    with pytest.raises(Damaged, match=r"environment\.json"):
        remember_environment(tmp_path)
    write_json(tmp_path / "evaluation.json", 3)
    with pytest.raises(Damaged, match=r"evaluation\.json"):
        Kept(tmp_path).read()


def write_manifest(data, *, classes=("cat",), sources=None, **columns):
    data.mkdir(exist_ok=True)
    write_json(data / "classes.json", classes)
    write_json(data / "sources.json", {"test": "/nowhere"} if sources is None else sources)
    row = {"part": "test", "path": "a.png", "label": 0, "content": "c", "bytes": 1, "changed": 2}
    whole = {name: [value] for name, value in row.items()}
    pq.write_table(pa.table(whole | columns), data / "manifest.parquet")


ODD_MANIFESTS = {
    "classes that are none": {"classes": 3},
    "a class that is no text": {"classes": [3]},
    "no source of a part": {"sources": {}},
    "a source that is no address": {"sources": {"test": 3}},
    "a label of no class": {"label": [1]},
    "names that are numbers": {"path": [1]},
    "names that are no text": {"path": not_utf8(1)},
    "a size that is missing": {"bytes": pa.array([None], pa.int64())},
}


@pytest.mark.parametrize("odd", ODD_MANIFESTS.values(), ids=ODD_MANIFESTS)
def test_a_list_of_images_that_no_run_wrote_is_damaged(odd, tmp_path):
    write_manifest(tmp_path / "data", **odd)
    with pytest.raises(Damaged):
        read_manifest(tmp_path / "data")


def test_a_parquet_file_of_ours_that_is_cut_short_or_lacks_a_column_is_damaged(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    assert read_parquet(path, ["a"])["a"].to_pylist() == [1, 2]
    with pytest.raises(Damaged, match=r"a\.parquet is damaged"):
        read_parquet(path, ["b"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Damaged, match="can't be read as a table"):
        read_parquet(path)
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "line", ["[" * 9999, "9" * 5000, '{"step": "1"}', '{"step": 2, "seconds": []}']
)
def test_metrics_end_at_a_line_that_is_none(line, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "seconds": 2.0}}\n{line}\n')
    assert read_metrics(path) == [{"step": 1, "seconds": 2.0}]
    with pytest.raises(Damaged, match=r"metrics\.jsonl"):
        waited(path)  # no share of the time in the first line


@pytest.mark.parametrize("line", ["3", "[]", "{}", '{"event": "begun", "trial": 7, "rung": 0}'])
def test_a_journal_with_a_line_that_no_search_wrote_is_damaged(line, tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text(f"{'[' * 9999}\n")
    assert Journal(path).read().trials == ()  # a torn line
    path.write_text(f"{line}\n")
    with pytest.raises(Damaged, match=r"trials\.jsonl"):
        Journal(path).read()


def test_an_array_with_a_header_that_is_no_header_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.zeros((10, 8, 8, 3), np.uint8))
    data = bytearray(file.getvalue())
    data[10:12] = b"{("
    for name in ("gaussian_noise.npy", "labels.npy", "right.npy"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataProblem, match="can't be read as an array"):
        _ = CorruptedArrays(str(tmp_path)).labels
    with pytest.raises(Damaged, match=r"right\.npy"):
        read_right(tmp_path)
    np.save(tmp_path / "right.npy", np.zeros(3))
    with pytest.raises(Damaged, match=r"right\.npy"):
        read_right(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[" * 9999, "{a: " * 9999, "- " * 9999, "? " * 9999, "1:" * 99_999 + "1", "0x" + "f" * 99_999],
    ids=lambda t: t[:4],
)
def test_yaml_that_would_take_minutes_is_refused_at_once(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UsageError, match=r"a\.yaml"):
        load_yaml(tmp_path / "a.yaml")
    assert time.process_time() - start < 3


def test_yaml_of_usual_depth_and_numbers_is_read():
    depth = 40
    assert parse_yaml("[" * depth + "]" * depth)
    assert parse_yaml(f"a: {'9' * 90}\nb: '{'9' * 900}'") == {"a": int("9" * 90), "b": "9" * 900}
