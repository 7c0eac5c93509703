"""What every kind of source keeps to: the same images in, the same batches out."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from source_kinds import CLASSES, EXAMPLES, LABELS, RGB, SPLITS, Example, official

from tutelage.core import Stage
from tutelage.data import decode
from tutelage.data.check import survey
from tutelage.data.find import kinds, open_source
from tutelage.data.loader import Batches
from tutelage.data.parts import labeled_images, list_parts, pool_images
from tutelage.data.pixels import open_pixels
from tutelage.data.sets import LabeledSet, PoolSet
from tutelage.data.source import Source
from tutelage.data.sources.memory import as_source
from tutelage.errors import TutelageError
from tutelage.settings import Noise

CPU = torch.device("cpu")
REMOTE = [example for example in EXAMPLES if example.remote]
IN_FILES = [e for e in EXAMPLES if e.kind not in ("Memory",) and "given" not in e.name]


def named(examples):
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.name)


def opened(example: Example, root: Path, splits=None) -> Source:
    root.mkdir(parents=True, exist_ok=True)
    written = example.write(root, splits)
    if isinstance(written, str):
        return open_source(str(root / written) if written else str(root))
    return as_source(written)


def seen(source: Source, names) -> list[bytes]:
    return [np.asarray(decode.read(source.read(name))).tobytes() for name in names]


def fatal(issues) -> list[str]:
    return [issue.detail for issue in issues if issue.severity == "fatal"]


def first_batch(images, pool):
    stage = Stage(steps=2, size=32, magnitude=5.0)
    labeled = open_pixels(images, 32, CPU, in_memory=True)
    rows = torch.arange(len(pool))
    pixels = open_pixels(pool, 32, CPU, in_memory=False)
    batches = Batches(
        LabeledSet(labeled, images.label_tensor(), len(images.classes)),
        PoolSet(pixels, rows, torch.ones_like(rows)),
        stages=[stage], views=("strong", ("weak",)), batch=8, ratio=1, noise=Noise(), seed=3,
    )  # fmt: skip
    return batches.at(1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The batch and the survey of the class folders, with which all others are compared."""
    source = opened(EXAMPLES[0], tmp_path_factory.mktemp("reference"))
    batch = first_batch(labeled_images(source, "labeled")[0], pool_images(source)[0])
    return batch, survey(source.address).parts["labeled"]


def test_every_kind_of_source_has_an_example():
    assert {kind.__name__ for kind in kinds()} == {example.kind for example in EXAMPLES}


@named(EXAMPLES)
def test_labels_pixels_and_classes_are_what_was_written(example, tmp_path):
    source = opened(example, tmp_path / "data")
    assert type(source).__name__ == example.kind
    images, issues = labeled_images(source, "labeled")
    assert fatal(issues) == []
    assert images.classes == CLASSES
    assert list(images.labels) == LABELS
    assert seen(source, images.names) == [image.tobytes() for image in RGB]


@named(EXAMPLES)
def test_a_pool_is_the_same_images_without_labels(example, tmp_path):
    source = opened(example, tmp_path / "data")
    images, issues = pool_images(source)
    assert fatal(issues) == []
    assert images.labels is None
    assert source.listing("pool").labels is None
    assert seen(source, images.names) == [image.tobytes() for image in RGB]


@named(EXAMPLES)
def test_batches_are_the_same_to_the_last_bit(example, tmp_path, reference):
    source = opened(example, tmp_path / "data")
    batch = first_batch(labeled_images(source, "labeled")[0], pool_images(source)[0])
    assert torch.equal(batch.labeled.images, reference[0].labeled.images)
    assert torch.equal(batch.labeled.targets, reference[0].labeled.targets)
    assert torch.equal(batch.unlabeled.views["weak"], reference[0].unlabeled.views["weak"])


@named(EXAMPLES)
def test_the_survey_finds_the_same(example, tmp_path, reference):
    source = opened(example, tmp_path / "data")
    found = survey(source.address, given={source.address: source})
    facts = [
        [replace(fact, bytes=0, mode="") for fact in part.facts]  # which are the file's
        for part in (found.parts["labeled"], reference[1])
    ]
    assert facts[0] == facts[1]
    assert found.parts["labeled"].images.labels == reference[1].images.labels
    assert {issue.severity for issue in found.issues} <= {"note"}


@named(EXAMPLES)
def test_names_are_unique_and_places_name_the_source(example, tmp_path):
    source = opened(example, tmp_path / "data")
    names = source.listing("pool").names
    assert len(set(names)) == 12
    places = [source.where(name) for name in names]
    assert len(set(places)) == 12
    if example in IN_FILES:
        assert all(place.startswith(str(tmp_path)) for place in places)
    else:
        assert example.kind == "HuggingFace" or places[0] == f"{source.address}/0"


@named(EXAMPLES)
def test_reading_by_many_threads_gives_the_same_each_time(example, tmp_path):
    source = opened(example, tmp_path / "data")
    names = source.listing("pool").names
    order = [names[i % 12] for i in np.random.default_rng(0).permutation(96)]
    fresh = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda name: seen(fresh, [name])[0], order))
    assert found == seen(source, order)


@named(EXAMPLES)
def test_a_source_that_was_sent_elsewhere_reads_the_same(example, tmp_path):
    source = opened(example, tmp_path / "data")
    names = source.listing("labeled").names
    sent = pickle.loads(pickle.dumps(source))
    assert sent.address == source.address
    assert seen(sent, names[::-1]) == seen(source, names[::-1])
    assert sent.listing("labeled") == source.listing("labeled")


@named([e for e in IN_FILES if e.write.__name__ not in ("data_frame", "arrow_table")])
def test_the_stamp_is_of_the_file_and_changes_with_it(example, tmp_path):
    source = opened(example, tmp_path / "data")
    name = source.listing("pool").names[0]
    before = source.stamp(name)
    assert source.stamp(name) == before
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert open_source(source.address).stamp(name) != before
    shutil.rmtree(tmp_path / "data")
    with pytest.raises((FileNotFoundError, TutelageError)):
        open_source(source.address).stamp(name)


@named(EXAMPLES)
def test_an_image_that_is_not_there_is_an_os_error(example, tmp_path):
    source = opened(example, tmp_path / "data")
    name = source.listing("pool").names[0]
    stem, _, _ = name.rpartition("/")
    with pytest.raises(OSError, match="99999"):
        source.read(f"{stem}/99999" if stem else "99999")


@named([e for e in EXAMPLES if e.splits == "any"])
@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_splits_by_their_usual_names_are_the_parts(example, name, tmp_path):
    splits = [name if split == "valid" else split for split in SPLITS]
    source = opened(example, tmp_path / "data", splits)
    parts, issues = list_parts(source.address, given={source.address: source})
    assert fatal(issues) == []
    assert "splits" in [issue.kind for issue in issues]
    for part, split in (("labeled", "train"), ("val", name), ("test", "test")):
        rows = sorted(row for row in range(12) if splits[row] == split)
        assert parts[part].classes == CLASSES
        assert sorted(seen(source, parts[part].names)) == sorted(RGB[r].tobytes() for r in rows)
        assert sorted(parts[part].labels) == sorted(LABELS[row] for row in rows)
    pool, _ = pool_images(source)
    assert sorted(seen(source, pool.names)) == sorted(seen(source, parts["labeled"].names))


@named([e for e in EXAMPLES if e.splits == "official"])
def test_official_splits_are_the_parts(example, tmp_path):
    source = opened(example, tmp_path / "data", SPLITS)
    parts, issues = list_parts(source.address)
    train, test = official(SPLITS)
    assert fatal(issues) == []
    assert seen(source, parts["labeled"].names) == [RGB[row].tobytes() for row in train]
    assert seen(source, parts["test"].names) == [RGB[row].tobytes() for row in test]
    assert parts["test"].labels == tuple(LABELS[row] for row in test)
    assert len(pool_images(source)[0]) == len(train)


@named([e for e in IN_FILES if e.write.__name__ not in ("data_frame", "arrow_table")])
def test_what_is_broken_is_said_with_the_layout_that_is_expected(example, tmp_path):
    address = opened(example, tmp_path / "data").address
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file() and path.suffix != ".png":
            path.write_bytes(b"\x80\x02broken")
    if example.kind == "Folder":
        shutil.rmtree(tmp_path / "data" / "1")
        (tmp_path / "data" / "1").mkdir()
    try:
        said = "\n".join(fatal(list_parts(address)[1]))
    except TutelageError as error:
        said = str(error)
    layouts = {kind.__name__: kind.layout for kind in kinds()}
    expected = {"parquet_file": layouts["Table"], "folder": "class folder"}  # either may be meant
    assert expected.get(example.write.__name__, layouts[example.kind]) in said
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(TutelageError) as missing:
        list_parts(address)
    assert f"there is no folder or file {tmp_path / 'data'}" in str(missing.value)


@named(REMOTE)
def test_another_storage_gives_the_same(example, tmp_path):
    root = tmp_path / "data"
    local = opened(example, root)
    files = fsspec.filesystem("memory")
    top = f"/{example.name}"
    for path in root.rglob("*"):
        if path.is_file():
            files.pipe(f"{top}/{path.relative_to(root)}", path.read_bytes())
    inside = Path(local.address).relative_to(root).as_posix()
    try:
        source = open_source(f"memory:/{top}" + ("" if inside == "." else f"/{inside}"))
        assert type(source).__name__ == example.kind
        images, issues = labeled_images(source, "labeled")
        assert fatal(issues) == []
        assert list(images.labels) == LABELS
        assert seen(source, images.names) == [image.tobytes() for image in RGB]
        before = source.stamp(images.names[0])
        for path in files.find(top):
            files.pipe(path, files.cat(path) + b"x")
        assert type(source)(source.address).stamp(images.names[0]) != before
    finally:
        files.rm(top, recursive=True)
