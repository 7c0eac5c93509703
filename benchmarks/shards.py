"""What reading from tar shards costs, and how much memory a loader takes.

python -m benchmarks.shards [--memory 10000 100000 1000000] [--steps 200] [--folder FOLDER]

Cases: JPEGs of 64 px decoded in random order by one thread: by offset as tutelage does, beside the
shard run through with Python's tarfile (in its order, as it can do no other), single files, and
bytes held in memory; and the offsets of a shard's members. The command: peak of a fresh process
that draws batches from pools of tiny images of several sizes; the shards of a pool are hard links
to one, each with labels of its own.
"""

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.journal import machine
from benchmarks.paired import Case, processor
from benchmarks.resident import held
from tutelage.data.decode import decode
from tutelage.data.entries import ShardedPool
from tutelage.data.shard_labels import Parts
from tutelage.data.source import Raw
from tutelage.data.sources.folder import Folder
from tutelage.data.sources.webdataset import WebDataset
from tutelage.data.stream import StreamedPool
from tutelage.data.tar_index import read_index

SIDE, IMAGES = 64, 2000
CLASSES = [f"c{i}" for i in range(100)]
PER_SHARD = 10_000
BATCH, STEPS = 256, 200


def photo(seed: int, side: int) -> bytes:
    """A soft random JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def write_tar(path: Path, images: list[bytes]) -> None:
    """A shard with these images."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, content in enumerate(images):
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def by_tarfile(path: Path) -> int:
    """Every image of a shard in its order."""
    count = 0
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None, "a file"
            decode(file.read(), SIDE)
            count += 1
    return count


def by_offset(shard: str, order: list[int]) -> int:
    """Every image of a shard in any order, with its index."""
    source = WebDataset(shard)
    return decoded(lambda row: source.read(f"speed-0.tar/{row:06d}.jpg"), order)


def decoded(read: Callable[[int], Raw], order: list[int]) -> int:
    """Every image that `read` gives."""
    for row in order:
        decode(read(row), SIDE)
    return len(order)


def speed_cases(folder: Path) -> Iterator[Case]:
    """Decoding images of 64 px in random order, by offset in a tar, beside other ways."""
    images = [photo(seed, SIDE) for seed in range(IMAGES)]
    write_tar(folder / "speed-0.tar", images)
    (folder / "files").mkdir()
    for number, content in enumerate(images):
        (folder / "files" / f"{number:06d}.jpg").write_bytes(content)
    order = list(range(IMAGES))
    random.Random(0).shuffle(order)
    shard, files = str(folder / "speed-0.tar"), Folder(str(folder / "files"))
    peers: dict[str, Callable[[], int]] = {
        "tarfile, in order": lambda: by_tarfile(Path(shard)),
        "single files": lambda: decoded(lambda row: files.read(f"{row:06d}.jpg"), order),
        "bytes in memory": lambda: decoded(lambda row: images[row], order),
    }
    for peer, side in peers.items():
        yield Case(
            what=f"images of {SIDE} px from a tar by offset, its index included", peer=peer,
            unit="ms an image",
            ours=lambda: 1e3 * processor(lambda: by_offset(shard, order)) / IMAGES,
            theirs=lambda side=side: 1e3 * processor(side) / IMAGES,  # type: ignore[misc]
        )  # fmt: skip


def members(path: Path) -> int:
    """The members of a shard as tarfile finds them."""
    with tarfile.open(path) as tar:
        return len(tar.getmembers())


def index_cases(folder: Path) -> Iterator[Case]:
    """The index of a shard of small and of large members."""
    for size, count in ((2_000, 10_000), (100_000, 1_000)):
        path = folder / f"index-{size}.tar"
        write_tar(path, [bytes(size)] * count)
        yield Case(
            what=f"index of a tar, members of {size:,} bytes", peer="tarfile", unit="ms a member",
            ours=lambda p=path, n=count: 1e3 * processor(lambda: read_index(str(p))) / n,  # type: ignore[misc]
            theirs=lambda p=path, n=count: 1e3 * processor(lambda: members(p)) / n,  # type: ignore[misc]
        )  # fmt: skip


def cases(folder: Path) -> Iterator[Case]:
    """Images and indexes."""
    yield from speed_cases(folder)
    yield from index_cases(folder)


def write_pool(folder: Path, entries: int) -> None:
    """FOLDER/pool, labels and selected: shards as hard links, each with parts of its own name."""
    pool, labels, selected = (folder / name for name in ("pool", "labels", "selected"))
    for one in (pool, labels, selected):
        one.mkdir(parents=True)
    first = folder / "first.tar"
    content = photo(0, 8)
    write_tar(first, [content] * min(PER_SHARD, entries))
    rows = min(PER_SHARD, entries)
    rng = np.random.default_rng(0)
    top = np.stack([rng.permutation(len(CLASSES))[:10] for _ in range(rows)]).astype(np.int32)
    probs = np.tile(np.float16([0.5, 0.2] + [0.02] * 8), rows)
    columns = {
        "label": top[:, 0],
        "confidence": np.full(rows, 0.5, np.float32),
        "classes": pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), 10),
        "probs": pa.FixedSizeListArray.from_arrays(pa.array(probs), 10),
    }
    for number in range(-(-entries // PER_SHARD)):
        shard = f"pool-{number:06d}.tar"
        os.link(first, pool / shard)
        ids = (number << 32) + np.arange(rows, dtype=np.int64)
        names = [f"{shard}/{row:06d}.jpg" for row in range(rows)]
        about = {"shard": shard, "classes": json.dumps(CLASSES), "teacher": "t"}
        table = pa.table({"id": ids, "path": names} | columns).replace_schema_metadata(about)
        part = f"part-{number:05d}.parquet"
        pq.write_table(table, labels / part, compression="zstd")
        chosen = pa.table({"id": ids, "copies": np.ones(rows, np.int32)})
        pq.write_table(chosen, selected / part, compression="zstd")
    (selected / "selection.json").write_text('{"teacher": "t"}')


def draw(folder: Path, steps: int) -> None:
    """In a process of its own: draws batches, and prints images, peak memory and images/s."""
    source = WebDataset(str(folder / "pool"))
    parts = Parts(folder / "labels", folder / "selected")
    start = time.monotonic()
    counts = parts.count(source.shards())
    counting, before = time.monotonic() - start, held("VmHWM")
    pool = ShardedPool(
        source,
        parts,
        counts.entries,
        counts.sums,
        np.arange(len(CLASSES)),
        int(counts.images.sum()),
    )
    stream = StreamedPool(pool, canvas=8, device=torch.device("cpu"))
    drawn = stream.draw(0, BATCH, seed=0)
    drawn.pixels.at(drawn.places)
    start = time.monotonic()
    for step in range(1, steps):
        drawn = stream.draw(step * BATCH, BATCH, seed=0)
        drawn.pixels.at(drawn.places)
    rate = (steps - 1) * BATCH / (time.monotonic() - start)
    most = held("VmHWM")
    print(json.dumps([pool.num_images, before, most, round(counting, 2), round(rate)]))


def memory(folder: Path, sizes: list[int], steps: int) -> None:
    """Peak memory for each pool size, each in a process of its own."""
    for entries in sizes:
        root = folder / f"pool-{entries}"
        write_pool(root, entries)
        command = [sys.executable, "-m", "benchmarks.shards", "--draw", str(root)]
        done = subprocess.run(
            [*command, "--steps", str(steps)], capture_output=True, text=True, check=True
        )
        images, *held_bytes, counting, rate = json.loads(done.stdout)
        before, most = (one / 2**20 for one in held_bytes)
        print(
            f"| {images:,} | {before:,.0f} | {most:,.0f} | {counting:.1f} | {rate:,} |", flush=True
        )
        shutil.rmtree(root)


def main() -> None:
    """Rows for docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--draw", type=Path, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.draw is not None:
        draw(asked.draw, asked.steps)
        return
    print(machine())
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        print("| images | MiB counted | MiB peak | s to count | images/s |")
        print("| --- | --- | --- | --- | --- |")
        memory(Path(folder), asked.memory, asked.steps)


if __name__ == "__main__":
    main()
