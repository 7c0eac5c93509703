"""`tutelage label`: parts of a pool, whole or absent, and going on."""

import json
import os
import signal
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import starts
import torch
from images import picture, pixels, write_pool

from tutelage.data import label_parts
from tutelage.data.label_parts import read_part
from tutelage.data.pixels import InMemory
from tutelage.data.source import Source
from tutelage.data.sources.folder import Folder
from tutelage.deploy.label_files import label_files
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.errors import DataProblem, RunMismatch, TutelageError, UsageError
from tutelage.evaluation.accuracy import predict
from tutelage.networks.build import Net, build, weight_digest
from tutelage.progress import Screen
from tutelage.run import held

CLASSES = tuple(f"class {number}" for number in range(12))
SIDE = 16
SIZES = (5, 0, 3, 7)  # images of the shards


class Shards(Source):
    """Shards of images in memory; listing the whole pool is an error."""

    layout = "shards of a test"

    def __init__(self, sizes=SIZES, broken=(), lost=()):
        super().__init__("shards of a test")
        self.its = {f"{n:02d}.tar": size for n, size in enumerate(sizes)}
        self.broken, self.lost, self.asked = set(broken), set(lost), []

    @classmethod
    def claims(cls, address):
        return False

    def listing(self, part):
        raise AssertionError("a pool of shards is never listed as a whole")

    def shards(self):
        return tuple(self.its)

    def names_in(self, shard):
        if shard in self.lost:
            raise OSError("no end of archive")
        return tuple(f"{shard}/{row}.png" for row in range(self.its[shard]))

    def read(self, name):
        self.asked.append(name)
        shard, _, row = name.partition("/")
        if shard in self.broken or name in self.broken:
            return b"no image"
        seed = 100 * int(shard[:2]) + int(row[:-4])
        if seed % 2:
            return pixels(seed, SIDE)
        file = BytesIO()
        picture(seed, SIDE).save(file, "png")
        return file.getvalue()

    def where(self, name):
        return f"/pool/{name}"

    def stamp(self, name):
        return 0, 0


def write_model(path, seed=0):
    net = Net(name="test_resnet", num_classes=12, img_size=SIDE)
    module = build(net, seed=seed).eval()
    with torch.no_grad():  # or else every answer is the same
        for weight in module.parameters():
            weight.mul_(1.5)
    save_model(path, Model(module, net, CLASSES, SIDE), "a model")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def label(model, source, out, **more):
    return label_files(
        model, source, out, device="cpu", precision="fp32", screen=Screen(), **more
    )  # fmt: skip


def state(out):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(out.iterdir())}


def parts(out):
    return [path.name for path in sorted(out.glob("*.parquet*"))]


def test_each_shard_is_a_part_with_the_answers_of_a_bare_pass(model, tmp_path):
    source = Shards()
    label(model, source, tmp_path)
    module = load_model(model).module
    for number, (shard, size) in enumerate(source.its.items()):
        part = read_part(tmp_path / f"part-{number:05d}.parquet")
        assert part.names == source.names_in(shard)
        assert part.about == label_parts.About(weight_digest(module), CLASSES, shard)
        if not size:
            continue
        seeds = [100 * number + row for row in range(size)]
        images = torch.from_numpy(np.stack([pixels(seed, SIDE) for seed in seeds]))
        probs = predict(module, InMemory(images), SIDE)
        assert torch.equal(part.labels.long(), probs.argmax(-1))
        assert torch.equal(part.confidence, probs.amax(-1))
        assert torch.equal(part.top_probs, probs.topk(10).values.half())
        with torch.no_grad():
            logits = module(images.permute(0, 3, 1, 2).float() / 255)
        assert torch.allclose(part.energy, logits.exp().sum(-1).log(), atol=1e-5)


def test_others_can_read_a_part_without_us(model, tmp_path):
    label(model, Shards(broken={"03.tar/2.png"}), tmp_path)
    table = pq.read_table(tmp_path / "part-00003.parquet")
    assert table.schema.remove_metadata() == pa.schema(
        {
            "id": pa.int64(), "path": pa.string(), "label": pa.int32(),
            "confidence": pa.float32(), "energy": pa.float32(),
            "classes": pa.list_(pa.int32(), 10), "probs": pa.list_(pa.float16(), 10),
            "rest": pa.float16(),
        }
    )  # fmt: skip
    assert table["id"].to_pylist() == [(3 << 32) + row for row in range(7)]
    assert table.schema.metadata[b"shard"] == b"03.tar"
    assert json.loads(table.schema.metadata[b"classes"]) == list(CLASSES)
    lost = table.slice(2, 1).to_pylist()[0]
    assert (lost["path"], lost["label"], lost["confidence"]) == ("03.tar/2.png", -1, 0)
    assert np.isnan(lost["energy"])
    for row in table.to_pylist():
        if row["label"] >= 0:
            assert row["classes"][0] == row["label"]
            assert row["probs"] == sorted(row["probs"], reverse=True)
            assert abs(sum(row["probs"]) + row["rest"] - 1) < 2e-3  # halves
    assert pq.ParquetFile(tmp_path / "part-00003.parquet").metadata.row_group(0).column(
        1
    ).compression == ("ZSTD")


def test_a_second_run_asks_nothing_and_changes_no_file(model, tmp_path):
    label(model, Shards(), tmp_path)
    before = state(tmp_path)
    again = Shards()
    label(model, again, tmp_path)
    assert again.asked == []
    assert {k: v for k, v in state(tmp_path).items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }


def test_only_what_is_missing_is_made_and_is_the_same_again(model, tmp_path, capsys):
    label(model, Shards(), tmp_path)
    before = (tmp_path / "part-00002.parquet").read_bytes()
    (tmp_path / "part-00002.parquet").unlink()
    again = Shards()
    label(model, again, tmp_path)
    assert set(again.asked) == {"02.tar/0.png", "02.tar/1.png", "02.tar/2.png"}
    assert (tmp_path / "part-00002.parquet").read_bytes() == before
    assert "3 of 4 parts are there already" in capsys.readouterr().err


def test_a_pool_without_shards_is_cut_and_is_the_same_whole(model, tmp_path, monkeypatch):
    monkeypatch.setattr(label_parts, "PART", 4)
    write_pool(tmp_path / "pool", 10, first=0)
    label(model, Folder(str(tmp_path / "pool")), tmp_path / "out")
    names = [read_part(path).names for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [len(part) for part in names] == [4, 4, 2]
    assert [name for part in names for name in part] == [f"{row:04d}.png" for row in range(10)]
    (tmp_path / "pool" / "0000.png").unlink()
    with pytest.raises(RunMismatch, match=r"part-00000\.parquet was written for other images"):
        label(model, Folder(str(tmp_path / "pool")), tmp_path / "out")
    for row in range(1, 8):
        (tmp_path / "pool" / f"{row:04d}.png").unlink()
    with pytest.raises(RunMismatch):
        label(model, Folder(str(tmp_path / "pool")), tmp_path / "out")


def test_labels_json_sums_up_all_parts_also_those_of_an_earlier_run(model, tmp_path):
    source = Shards(broken={"03.tar/2.png"})
    first = label(model, source, tmp_path / "a")
    assert first == json.loads((tmp_path / "a" / "labels.json").read_text())
    assert (first["count"], first["unreadable"]) == (15, 1)
    tables = [read_part(path) for path in sorted((tmp_path / "a").glob("*.parquet"))]
    labels = torch.cat([part.labels for part in tables])
    confidence = torch.cat([part.confidence for part in tables])[labels >= 0]
    for number, name in enumerate(CLASSES):
        assert first["per_class"][name] == int((labels == number).sum())
    assert first["mean_confidence"] == pytest.approx(float(confidence.mean()), abs=1e-6)
    (tmp_path / "a" / "part-00000.parquet").unlink()
    second = label(model, source, tmp_path / "a")
    times = {"seconds", "images_per_second"}
    assert {k: v for k, v in second.items() if k not in times} == {
        k: v for k, v in first.items() if k not in times
    }


def test_unreadable_images_keep_their_rows_and_are_said(model, tmp_path, capsys):
    broken = {"00.tar/1.png", "03.tar/0.png"}
    label(model, Shards(broken=broken), tmp_path)
    good = read_part(tmp_path / "part-00000.parquet")
    label(model, Shards(), tmp_path / "clean")
    clean = read_part(tmp_path / "clean" / "part-00000.parquet")
    assert good.labels.tolist()[1] == -1
    rest = [0, 2, 3, 4]
    assert torch.equal(good.top_probs[rest], clean.top_probs[rest])
    assert torch.equal(good.energy[rest], clean.energy[rest])
    said = capsys.readouterr().err
    assert "warning: 2 of 15 images can't be read (13.3 %)" in said
    assert "/pool/00.tar/1.png, /pool/03.tar/0.png" in said
    table = (tmp_path / "issues.csv").read_text()
    assert "1.png,UnidentifiedImageError: cannot identify image: of no known format\n" in table
    (tmp_path / "part-00002.parquet").unlink()
    label(model, Shards(broken=broken), tmp_path)  # what an earlier run found is kept
    assert (tmp_path / "issues.csv").read_text() == table


@pytest.mark.parametrize("sizes", [(1,), (300, 40), (3, 2)])
def test_a_pool_without_a_readable_image_is_a_data_problem_and_leaves_no_part(
    model, tmp_path, sizes
):
    every = {f"{number:02d}.tar" for number in range(len(sizes))}
    with pytest.raises(DataProblem, match=r"can be read; 00\.tar/0\.png: UnidentifiedImageError"):
        label(model, Shards(sizes, broken=every), tmp_path)
    assert parts(tmp_path) == []
    assert not (tmp_path / "labels.json").exists()
    label(model, Shards(sizes), tmp_path)  # mended
    assert len(parts(tmp_path)) == len(sizes)


def test_a_large_part_that_can_not_be_read_is_left_for_the_next_run(model, tmp_path):
    with pytest.raises(DataProblem, match=r"part 1, shard 01\.tar: none of its 20 images"):
        label(model, Shards((4, 20, 3), broken={"01.tar"}), tmp_path)
    assert parts(tmp_path) == ["part-00000.parquet", "part-00002.parquet"]
    again = Shards((4, 20, 3))
    label(model, again, tmp_path)
    assert {name.partition("/")[0] for name in again.asked} == {"01.tar"}


def test_a_small_part_that_can_not_be_read_is_rows_without_a_label(model, tmp_path):
    found = label(model, Shards((4, 1), broken={"01.tar"}), tmp_path)
    assert (found["count"], found["unreadable"]) == (5, 1)
    assert read_part(tmp_path / "part-00001.parquet").labels.tolist() == [-1]


def test_a_shard_that_can_not_be_listed_does_not_stop_the_others(model, tmp_path):
    with pytest.raises(DataProblem, match=r"part 0, shard 00\.tar: has no list; .*no end of"):
        label(model, Shards(lost={"00.tar"}), tmp_path)
    assert parts(tmp_path) == [f"part-0000{number}.parquet" for number in (1, 2, 3)]


def test_another_model_is_refused_before_any_work(model, tmp_path):
    label(model, Shards(), tmp_path)
    (tmp_path / "part-00000.parquet").unlink()
    other, source = write_model(tmp_path / "model", seed=1), Shards()
    with pytest.raises(RunMismatch, match=r"part-00001\.parquet was written by another teacher"):
        label(other, source, tmp_path)
    assert source.asked == []


def test_parts_of_another_pool_are_refused(model, tmp_path):
    label(model, Shards((5, 3)), tmp_path)
    renamed = Shards((5, 3))
    renamed.its = {f"9{name}": size for name, size in renamed.its.items()}
    with pytest.raises(
        RunMismatch, match=r"00000.* labels of 00\.tar, where the pool has 900\.tar"
    ):
        label(model, renamed, tmp_path)
    with pytest.raises(RunMismatch, match="is part 2 of a pool, and this one has 1"):
        label(model, Shards((5,)), tmp_path)


def test_a_damaged_part_is_named(model, tmp_path):
    label(model, Shards(), tmp_path)
    path = tmp_path / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataProblem, match=r"part-00002\.parquet is damaged.*delete it"):
        label(model, Shards(), tmp_path)
    pq.write_table(pa.table({"path": ["x"]}), path)
    with pytest.raises(DataProblem, match=r"part-00002\.parquet is no part of labels"):
        label(model, Shards(), tmp_path)


def test_two_at_once_on_one_folder_are_refused(model, tmp_path):
    with held(tmp_path), pytest.raises(RunMismatch, match="another process"):
        label(model, Shards(), tmp_path)
    with pytest.raises(UsageError, match="is a run or model folder"):
        label(model, Shards(), model)


def test_answers_that_are_not_finite_are_an_error_and_no_part(tmp_path):
    path = tmp_path / "model"
    net = Net(name="test_resnet", num_classes=12, img_size=SIDE)
    module = build(net).eval()
    module.net.get_classifier().weight.data.fill_(torch.nan)
    save_model(path, Model(module, net, CLASSES, SIDE), "a model")
    with pytest.raises(TutelageError, match=r"answer on 00\.tar/0\.png is not finite"):
        label(path, Shards(), tmp_path / "out")
    assert parts(tmp_path / "out") == []


KILLED = """
import os, signal, sys
from pathlib import Path
from tutelage import files
real, seen = files.write_with, []
def write_with(path, write):
    def slain(part):
        write(part)
        seen.append(path)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)  # written in full, but not yet in its place
    real(path, slain)
files.write_with = write_with
from tutelage.data import label_parts
label_parts.PART = 4
from tutelage.cli import main
main(sys.argv[1:])
"""


def test_a_killed_run_leaves_whole_parts_and_the_next_one_ends_alike(model, tmp_path, monkeypatch):
    monkeypatch.setattr(label_parts, "PART", 4)
    pool, out = write_pool(tmp_path / "pool", 10, first=0), tmp_path / "out"
    flags = ["--model", model, "--data", pool, "--out", out, "--device", "cpu"]
    done = starts.run(KILLED, "label", *flags)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in sorted(out.glob("*.parquet"))] == ["part-00000.parquet"]
    assert not (out / "labels.json").exists()
    before = os.stat(out / "part-00000.parquet").st_mtime_ns
    label(model, Folder(str(pool)), out)
    label(model, Folder(str(pool)), tmp_path / "at once")
    assert os.stat(out / "part-00000.parquet").st_mtime_ns == before
    for path in sorted((tmp_path / "at once").glob("*.parquet")):
        assert (out / path.name).read_bytes() == path.read_bytes()
