"""Images inside files: published arrays, Parquet, Hugging Face; what is odd or hostile in them."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_kinds import GRAY, LABELS, RGB, cifar10, hf_dataset, mnist, png

from tutelage.data import decode
from tutelage.data.find import open_source
from tutelage.data.parts import labeled_images, list_parts
from tutelage.data.plain_pickles import unpickled
from tutelage.data.row_groups import RowGroups
from tutelage.data.sources.parquet_images import ParquetImages
from tutelage.errors import DataProblem, UsageError


def save(path, **arrays):
    np.savez(path, **arrays)
    return open_source(path)


def text(source, name):
    return np.asarray(decode.read(source.read(name))).tobytes()


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(DataProblem, match=r"would call (_io|io)\.open"):
        unpickled(pickle.dumps({"data": Evil()}))
    for path in (tmp_path / "data_batch_1", tmp_path / "test_batch"):
        path.write_bytes(pickle.dumps({"data": Evil()}))
    for i in range(2, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(pickle.dumps({}))
    with pytest.raises(DataProblem, match="data_batch_1"):
        open_source(tmp_path).listing("labeled")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_are_loaded_from_pickles_of_any_protocol(protocol):
    content = {b"data": GRAY, b"labels": LABELS, b"one": np.int64(3)}
    found = unpickled(pickle.dumps(content, protocol=protocol))
    assert np.array_equal(found["data"], GRAY)
    assert found["labels"] == LABELS
    assert found["one"] == 3


def test_pickles_of_the_numpy_of_then_are_read():
    data = pickle.dumps({b"data": GRAY}, protocol=2)
    old = data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert old != data
    assert np.array_equal(unpickled(old)["data"], GRAY)


def test_a_cifar_batch_that_is_missing_is_named(tmp_path):
    cifar10(tmp_path, None)
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(DataProblem, match="lacks data_batch_3 beside data_batch_1"):
        open_source(tmp_path).listing("labeled")


def test_class_names_are_those_of_the_meta_file(tmp_path):
    cifar10(tmp_path, None)
    names = ["airplane", "automobile", "bird", "cat"]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    images, issues = labeled_images(open_source(tmp_path), "labeled")
    assert images.classes == ("airplane", "automobile", "bird")
    assert [i.detail.rsplit(": ")[-1] for i in issues if i.kind == "class without images"] == [
        "cat"
    ]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names[:2]}))
    with pytest.raises(DataProblem, match="label 2, and names 2 classes"):
        open_source(tmp_path).listing("labeled")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": GRAY, "labels": LABELS[:5]}, "12 images and 5 labels"),
        ({"images": GRAY / 7.0, "labels": LABELS}, "no 8-bit values"),
        ({"images": RGB.reshape(12, -1), "labels": LABELS}, "shape"),
        ({"a": GRAY, "b": LABELS}, r"arrays a \(12, 32, 32\), b \(12,\)"),
        ({"images": GRAY}, "without labels"),
        ({"images": GRAY, "labels": np.array(LABELS, object)}, "an .npz file of plain arrays"),
        ({"images": GRAY, "labels": np.zeros((12, 3))}, "neither numbers nor one-hot"),
        ({"images": GRAY, "labels": LABELS, "classes": np.array(["a", "b"])}, "names 2 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_said(tmp_path, arrays, said):
    with pytest.raises(DataProblem, match=said) as caught:
        save(tmp_path / "a.npz", **arrays).listing("labeled")
    assert "tutelage expects an .npz file" in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": RGB.transpose(0, 3, 1, 2), "y": np.array(LABELS)[:, None]},
        {"X": (RGB / 255).astype(np.float32), "Y": np.eye(3)[LABELS]},
        {"arr_0": RGB.astype(np.int64), "arr_1": np.array(list(map(str, LABELS)))},
        {"train_images": GRAY[..., None], "train_labels": LABELS},
        {"images": GRAY, "labels": LABELS, "class_names": np.array(["0", "1", "2"])},
    ],
)
def test_arrays_of_several_shapes_and_names_are_the_same_images(tmp_path, arrays):
    source = save(tmp_path / "a.npz", **arrays)
    images, _ = labeled_images(source, "labeled")
    assert images.classes == ("0", "1", "2")
    assert list(images.labels) == LABELS
    assert [text(source, name) for name in images.names] == [image.tobytes() for image in RGB]


def test_a_truncated_idx_file_is_named(tmp_path):
    mnist(tmp_path, None)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataProblem, match="values in train-images-idx3-ubyte"):
        open_source(tmp_path).listing("labeled")


def parquet(path, images, *, group=4, **columns):
    table = pa.table({"image": images} | columns)
    pq.write_table(table, path, row_group_size=group)
    return open_source(path)


def test_parquet_names_are_the_file_and_the_row(tmp_path):
    source = parquet(tmp_path / "p.parquet", [png(r) for r in range(12)], label=LABELS)
    assert source.shards() == ("p.parquet",)
    assert source.listing("pool").names == source.names_in("p.parquet")
    assert source.names_in("p.parquet")[11] == "p.parquet/11"
    assert source.read("p.parquet/11") == png(11)
    assert source.where("p.parquet/11") == f"{tmp_path}/p.parquet/11"


def test_a_row_without_an_image_is_an_os_error_and_a_path_is_followed(tmp_path):
    (tmp_path / "x.png").write_bytes(png(2))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [{"bytes": png(0), "path": "y"}, {"bytes": None, "path": "x.png"}, None]
    source = parquet(tmp_path / "p.parquet", pa.array(values, kind), label=[0, 1, 1])
    assert source.read("p.parquet/1") == png(2)
    with pytest.raises(OSError, match=r"p\.parquet/2 is empty"):
        source.read("p.parquet/2")


def test_files_of_a_folder_that_differ_are_named(tmp_path):
    parquet(tmp_path / "a.parquet", [png(0)], label=[0])
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataProblem, match=r"columns text in b\.parquet"):
        open_source(tmp_path).listing("pool")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataProblem, match=r"can't be read, .*b\.parquet"):
        open_source(tmp_path).listing("pool")


def groups(budget, counts=(50, 50, 50), size=1000):
    rng = np.random.default_rng(0)
    content = {
        i: [rng.bytes(size) if row % 7 else None for row in range(n)]
        for i, n in enumerate(counts)
    }  # fmt: skip
    return RowGroups(lambda file, i: pa.array(content[i], pa.binary()), budget=budget), content


def test_random_reads_decode_each_row_group_at_most_twice():
    found, content = groups(budget=60_000)
    order = np.random.default_rng(1).integers(0, (3, 50), (2000, 2)).tolist()
    assert all(found.read("f", group, row) == content[group][row] for group, row in order)
    assert found.loads <= 6


def test_reads_in_order_decode_each_row_group_once_and_write_nothing():
    found, content = groups(budget=60_000)
    for group, rows in content.items():
        assert [found.read("f", group, row) for row in range(50)] == rows
    assert found.loads == 3
    assert found._scratch is None


def test_memory_stays_within_the_budget_by_many_threads():
    found, content = groups(budget=100_000, counts=(40,) * 20)
    order = np.random.default_rng(1).integers(0, (20, 40), (4000, 2)).tolist()

    def same(place):
        held = sum(one.nbytes for one in list(found._held.values()))
        return found.read("f", *place) == content[place[0]][place[1]] and held <= 150_000

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(same, order))
    assert found.loads <= 2 * 20 + 8


def test_a_full_disk_means_more_decoding_and_the_same_images(monkeypatch):
    found, content = groups(budget=1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    order = np.random.default_rng(1).integers(0, (3, 50), (60, 2)).tolist()
    assert all(found.read("f", group, row) == content[group][row] for group, row in order)
    assert found._scratch is None


def test_a_data_set_of_the_hub_is_asked_for_by_name_and_configuration(monkeypatch):
    import datasets

    asked = []

    def load(*name):
        asked.append(name)
        return datasets.DatasetDict(train=hf_dataset(range(8)), test=hf_dataset(range(8, 12)))

    monkeypatch.setattr(datasets, "load_dataset", load)
    for address in ("hf://owner/name", "hf://owner/name:config"):
        parts, _ = list_parts(address)
        assert [len(part) for part in parts.values()] == [8, 4]
        source = parts["test"].source
        assert source.where(parts["test"].names[0]) == f"{address}/test/0"
        assert text(source, "test/0") == RGB[8].tobytes()
        assert source.stamp("test/0") == open_source(address).stamp("test/1")
        assert source.stamp("test/0") != source.stamp("train/0")
    assert set(asked) == {("owner/name",), ("owner/name", "config")}


def test_a_hub_that_can_not_be_reached_is_said(monkeypatch):
    import datasets

    def load(*name):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UsageError, match="hf://owner/name can't be loaded: Couldn't reach"):
        list_parts("hf://owner/name")


def test_a_missing_datasets_package_is_said_with_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'tutelage\[hf\]'"):
        list_parts("hf://owner/name")


def test_images_and_labels_of_hugging_face_may_have_other_names(tmp_path):
    rows = hf_dataset(range(12)).rename_columns({"image": "img", "label": "fine_label"})
    rows = rows.add_column("coarse_label", ["x"] * 12)
    rows.save_to_disk(str(tmp_path / "saved"))
    images, issues = labeled_images(open_source(tmp_path / "saved"), "labeled")
    assert list(images.labels) == LABELS
    assert "'fine_label' as label" in issues[0].detail


def test_unlabeled_rows_of_hugging_face_have_minus_one(tmp_path):
    import datasets

    def unlabel(row, number):
        return row | {"label": -1 if number == 0 else row["label"]}

    rows = hf_dataset(range(12)).cast_column("image", datasets.Image(decode=False))
    datasets.disable_progress_bars()
    rows.map(unlabel, with_indices=True).save_to_disk(str(tmp_path / "saved"))
    images, issues = labeled_images(open_source(tmp_path / "saved"), "labeled")
    assert len(images) == 11
    assert [issue.kind for issue in issues if issue.severity == "dropped"] == ["no label"]


def test_a_class_folder_with_a_stray_table_stays_a_class_folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(0))
    pq.write_table(pa.table({"path": ["cat/a.png"], "score": [1.0]}), tmp_path / "scores.parquet")
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert not ParquetImages.claims(str(tmp_path))
    assert labeled_images(open_source(tmp_path), "labeled")[0].classes == ("cat", "dog")


def test_bytes_that_are_no_image_are_read_and_left_to_the_check(tmp_path):
    source = parquet(tmp_path / "p.parquet", [b"junk", png(1)], label=[0, 1])
    assert source.read("p.parquet/0") == b"junk"
    with pytest.raises(OSError, match="cannot identify"):
        decode.read(io.BytesIO(source.read("p.parquet/0")).getvalue())


def test_a_group_with_fewer_rows_than_its_file_says_is_an_image_that_cannot_be_read():
    groups = RowGroups(lambda file, i: pa.array([b"a", None], pa.binary()))
    assert [groups.read("f", 0, row) for row in (0, 1)] == [b"a", None]
    with pytest.raises(OSError, match="row group 0 has 2 rows, fewer than its file says"):
        groups.read("f", 0, 2)
