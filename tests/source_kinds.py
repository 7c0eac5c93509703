"""The same twelve images of three classes, written as each kind of source has them.

A new kind needs one function here and its line in EXAMPLES; tests/test_sources.py does the rest.
"""

import gzip
import io
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from shards import write_tar

SIDE = 32
LABELS = [row // 4 for row in range(12)]  # in the order of class folders
CLASSES = ("0", "1", "2")
GRAY = np.random.default_rng(5).integers(0, 256, (12, SIDE, SIDE), dtype=np.uint8)
RGB = np.repeat(GRAY[..., None], 3, axis=3)  # so that formats with one channel can hold them
SPLITS = ["train", "train", "valid", "test"] * 3


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RGB[row]).save(file, "PNG")
    return file.getvalue()


def files(root: Path, names: Sequence[str]) -> None:
    for row, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(row))


def folder(root: Path, splits: list[str] | None) -> str:
    heads = [f"{split}/" for split in splits] if splits else [""] * 12
    files(root, [f"{heads[row]}{LABELS[row]}/{row:02d}.png" for row in range(12)])
    return ""


def columns(splits: list[str] | None) -> dict[str, list[Any]]:
    found = {"path": [f"images/{row:02d}.png" for row in range(12)], "label": list(LABELS)}
    return found | ({"split": splits} if splits else {})


def csv(root: Path, splits: list[str] | None) -> str:
    files(root, columns(None)["path"])
    pd.DataFrame(columns(splits)).to_csv(root / "data.csv", index=False)
    return "data.csv"


def tsv(root: Path, splits: list[str] | None) -> str:
    files(root, columns(None)["path"])
    pd.DataFrame(columns(splits)).to_csv(root / "data.tsv", index=False, sep="\t")
    return "data.tsv"


def table_parquet(root: Path, splits: list[str] | None) -> str:
    files(root, columns(None)["path"])
    pq.write_table(pa.table(columns(splits)), root / "table.parquet")
    return "table.parquet"


def absolute(root: Path, splits: list[str] | None) -> dict[str, list[Any]]:
    files(root, columns(None)["path"])
    found = columns(splits)
    return found | {"path": [str(root / path) for path in found["path"]]}


def data_frame(root: Path, splits: list[str] | None) -> Any:
    return pd.DataFrame(absolute(root, splits))


def arrow_table(root: Path, splits: list[str] | None) -> Any:
    return pa.table(absolute(root, splits))


def parquet_file(root: Path, splits: list[str] | None) -> str:
    found = {"image": [png(row) for row in range(12)], "label": list(map(str, LABELS))}
    found |= {"split": splits} if splits else {}
    pq.write_table(pa.table(found), root / "images.parquet", row_group_size=5)
    return "images.parquet"


def parquet_folder(root: Path, splits: list[str] | None) -> str:
    """As Hugging Face has them: structs, and class names in the schema."""
    features = {
        "image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}
    }  # fmt: skip
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    parts = {split: [r for r in range(12) if splits[r] == split] for split in splits or ()}
    parts = parts or {"part-0": list(range(7)), "part-1": list(range(7, 12))}
    (root / "data").mkdir()
    for name, rows in parts.items():
        images = [{"bytes": png(row), "path": None} for row in rows]
        labels = pa.array([LABELS[row] for row in rows], pa.int64())
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(images, kind), "label": labels})
        path = root / "data" / f"{name}-00000-of-00001.parquet"
        pq.write_table(table.replace_schema_metadata(about), path, row_group_size=3)
    return ""


def npz(root: Path, splits: list[str] | None) -> str:
    if splits is None:
        np.savez_compressed(root / "data.npz", images=RGB, labels=np.array(LABELS))
        return "data.npz"
    arrays = {}
    for split in dict.fromkeys(splits):
        rows = [row for row in range(12) if splits[row] == split]
        arrays |= {f"x_{split}": GRAY[rows], f"y_{split}": np.array(LABELS)[rows]}
    np.savez(root / "data.npz", **arrays)
    return "data.npz"


def planes(rows: Sequence[int]) -> np.ndarray:
    return RGB[list(rows)].transpose(0, 3, 1, 2).reshape(len(rows), -1)


def official(splits: list[str] | None) -> tuple[list[int], list[int]]:
    """Rows of the train and the test split; all are train where there are no splits."""
    test = [row for row in range(12) if splits and splits[row] == "test"]
    return [row for row in range(12) if row not in test], test


def batches(splits: list[str] | None) -> dict[str, list[int]]:
    train, test = official(splits)
    found = {f"data_batch_{i + 1}": train[2 * i :][: 2 if i < 4 else None] for i in range(5)}
    return found | ({"test_batch": test} if test else {})


def cifar10(root: Path, splits: list[str] | None) -> str:
    for name, rows in batches(splits).items():
        labels = [LABELS[row] for row in rows]
        content = {b"data": planes(rows), b"labels": labels, b"batch_label": b"x"}
        (root / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [name.encode() for name in CLASSES]
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return ""


def cifar100(root: Path, splits: list[str] | None) -> str:
    train, test = official(splits)
    for name, rows in (("train", train), ("test", test)):
        if rows:
            labels = [LABELS[row] for row in rows]
            content = {"data": planes(rows), "fine_labels": labels, "coarse_labels": [0] * 12}
            (root / name).write_bytes(pickle.dumps(content))
    (root / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CLASSES)}))
    return ""


def cifar10_binary(root: Path, splits: list[str] | None) -> str:
    for name, rows in batches(splits).items():
        labels = np.array([[LABELS[row]] for row in rows], np.uint8)
        (root / f"{name}.bin").write_bytes(np.hstack([labels, planes(rows)]).tobytes())
    (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return ""


def cifar100_binary(root: Path, splits: list[str] | None) -> str:
    train, test = official(splits)
    for name, rows in (("train.bin", train), ("test.bin", test)):
        labels = np.array([[7, LABELS[row]] for row in rows], np.uint8)
        if rows:
            (root / name).write_bytes(np.hstack([labels, planes(rows)]).tobytes())
    (root / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n")
    return ""


def idx(values: np.ndarray) -> bytes:
    shape = np.array(values.shape, ">u4").tobytes()
    return bytes((0, 0, 8, values.ndim)) + shape + values.astype(np.uint8).tobytes()


def mnist(root: Path, splits: list[str] | None) -> str:
    train, test = official(splits)
    for name, rows in (("train", train), ("t10k", test)):
        if rows:
            labels = np.array(LABELS)[rows]
            (root / f"{name}-images-idx3-ubyte").write_bytes(idx(GRAY[rows]))
            (root / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return ""


def mnist_gz(root: Path, splits: list[str] | None) -> str:
    mnist(root, splits)
    for path in sorted(root.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return ""


def hf_dataset(rows: Sequence[int]) -> Any:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    images = [{"bytes": png(row), "path": None} for row in rows]
    content = {"image": images, "label": [LABELS[row] for row in rows]}
    return datasets.Dataset.from_dict(content, features=features)


def hf_given(root: Path, splits: list[str] | None) -> Any:
    import datasets

    if splits is None:
        return hf_dataset(range(12))
    parts = {s: [r for r in range(12) if splits[r] == s] for s in dict.fromkeys(splits)}
    return datasets.DatasetDict({split: hf_dataset(rows) for split, rows in parts.items()})


def hf_saved(root: Path, splits: list[str] | None) -> str:
    import datasets

    datasets.disable_progress_bars()
    hf_given(root, splits).save_to_disk(str(root / "saved"))
    return "saved"


def array_pair(root: Path, splits: list[str] | None) -> Any:
    return RGB, np.array(LABELS)


def tensor_pair(root: Path, splits: list[str] | None) -> Any:
    return torch.from_numpy(RGB.transpose(0, 3, 1, 2).copy()), torch.tensor(LABELS)


def lists(root: Path, splits: list[str] | None) -> Any:
    return [Image.fromarray(image) for image in GRAY], list(map(str, LABELS))


def tar_shards(root: Path, splits: list[str] | None) -> str:
    """Three shards, or one of each split, of samples KEY.png and KEY.cls."""
    parts = splits or [f"part{row // 4}" for row in range(12)]
    for shard in dict.fromkeys(parts):
        rows = [row for row in range(12) if parts[row] == shard]
        members = [(f"{row:02d}.png", png(row)) for row in rows]
        members += [(f"{row:02d}.cls", str(LABELS[row]).encode()) for row in rows]
        write_tar(root / f"{shard}-000.tar", sorted(members))
    return ""


class TorchData(torch.utils.data.Dataset):
    """Images as torchvision's ToTensor leaves them, with numbers of `classes`."""

    classes = CLASSES

    def __len__(self) -> int:
        return 12

    def __getitem__(self, row: int) -> Any:
        return torch.from_numpy(RGB[row].transpose(2, 0, 1).copy()).float() / 255, LABELS[row]


def torch_data(root: Path, splits: list[str] | None) -> Any:
    return TorchData()


@dataclass(frozen=True)
class Example:
    """A layout of a kind of source."""

    kind: str  # name of the class in data/sources/
    write: Callable[[Path, list[str] | None], Any]  # an address below the folder, or a value
    splits: str = "any"  # any names; "official": train and test alone; "none"
    remote: bool = True  # can lie on other storages

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.write.__name__}"


EXAMPLES = [
    Example("Folder", folder),
    Example("Table", csv),
    Example("Table", tsv),
    Example("Table", table_parquet),
    Example("Table", data_frame, remote=False),
    Example("Table", arrow_table, remote=False),
    Example("ParquetImages", parquet_file),
    Example("ParquetImages", parquet_folder),
    Example("Arrays", npz),
    Example("Arrays", cifar10, splits="official"),
    Example("Arrays", cifar100, splits="official"),
    Example("Arrays", cifar10_binary, splits="official"),
    Example("Arrays", cifar100_binary, splits="official"),
    Example("Arrays", mnist, splits="official"),
    Example("Arrays", mnist_gz, splits="official"),
    Example("WebDataset", tar_shards),
    Example("HuggingFace", hf_saved, remote=False),
    Example("HuggingFace", hf_given, remote=False),
    Example("Memory", array_pair, splits="none", remote=False),
    Example("Memory", tensor_pair, splits="none", remote=False),
    Example("Memory", lists, splits="none", remote=False),
    Example("Memory", torch_data, splits="none", remote=False),
]
