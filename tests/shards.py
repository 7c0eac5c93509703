"""Tar shards for tests, and label parts as `tutelage label` and `tutelage select` write them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from images import picture


def png(seed: int, side: int = 8, height: int | None = None) -> bytes:
    """A random image's file, square where no height is given."""
    file = io.BytesIO()
    picture(seed, side).crop((0, 0, side, height or side)).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """A tar with these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w") as tar:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(root: Path, counts: Sequence[int], *, first: int = 0, side: int = 8) -> Path:
    """ROOT/pool-0.tar, …, with that many random images each; no image is there twice."""
    for number, count in enumerate(counts):
        write_tar(
            root / f"pool-{number}.tar",
            {f"{first + i:05d}.png": png(first + i, side) for i in range(count)},
        )
        first += count
    return root


def write_labels(
    out: Path,
    names: Mapping[str, Sequence[str]],
    *,
    classes: Sequence[str],
    probs: np.ndarray | None = None,
    teacher: str = "t1",
    unreadable: Sequence[str] = (),
) -> Path:
    """OUT/part-00000.parquet, … for shards with these image names; `probs` (N, K) or random."""
    total, at = sum(map(len, names.values())), 0
    if probs is None:
        probs = np.random.default_rng(0).dirichlet(np.ones(len(classes)), total)
    out.mkdir(parents=True, exist_ok=True)
    k = min(10, len(classes))
    for number, (shard, images) in enumerate(names.items()):
        its, at = probs[at : at + len(images)], at + len(images)
        top = np.argsort(-its, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(its, top, 1)
        bad = np.array([name in unreadable for name in images], bool)
        table = pa.table(
            {
                "id": (number << 32) + np.arange(len(images), dtype=np.int64),
                "path": pa.array(list(images), pa.string()),
                "label": np.where(bad, -1, top[:, 0]).astype(np.int32),
                "confidence": np.where(bad, 0, values[:, 0]).astype(np.float32),
                "energy": np.zeros(len(images), np.float32),
                "classes": _lists(top.astype(np.int32), k),
                "probs": _lists(values.astype(np.float16), k),
                "rest": (1 - values.sum(1)).astype(np.float16),
            }
        ).replace_schema_metadata(
            {"teacher": teacher, "classes": json.dumps(list(classes)), "shard": shard}
        )
        pq.write_table(table, out / f"part-{number:05d}.parquet", compression="zstd")
    return out


def _lists(values: np.ndarray, k: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), k)


def write_selection(
    out: Path, copies: Sequence[Sequence[int]], *, teacher: str = "t1", done: bool = True
) -> Path:
    """OUT/part-*.parquet with the copies of each shard's images, and selection.json."""
    out.mkdir(parents=True, exist_ok=True)
    for number, its in enumerate(copies):
        reason = pa.array(["kept" if c else "class is full" for c in its], pa.string())
        table = pa.table(
            {
                "id": (number << 32) + np.arange(len(its), dtype=np.int64),
                "copies": np.array(its, np.int32),
                "reason": reason.dictionary_encode(),
            }
        )
        pq.write_table(table, out / f"part-{number:05d}.parquet", compression="zstd")
    if done:
        (out / "selection.json").write_text(json.dumps({"teacher": teacher}))
    return out
