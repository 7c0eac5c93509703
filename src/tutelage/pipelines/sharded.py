"""A pool in tar shards with labels: opened, aligned, and counted once a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tutelage.data.entries import ShardedPool
from tutelage.data.find import open_source
from tutelage.data.shard_labels import Counts, Parts
from tutelage.data.sources.webdataset import WebDataset
from tutelage.errors import DataProblem, UsageError
from tutelage.files import read_parquet, write_with
from tutelage.methods.method import Method
from tutelage.pipelines.prepare import Prepared
from tutelage.run import Run
from tutelage.training_settings import ByOneMethod
from tutelage.values import nearest

STAGE = "pool"  # in run.json


def source_of(settings: ByOneMethod, method: Method) -> WebDataset:
    """The pool's shards; raises UsageError where it has none, or the method can't stream them."""
    assert settings.unlabeled is not None, "checked with the settings"
    if _remembers_images(method):
        raise UsageError(
            f"{settings.method} remembers something of each pool image from step to step, which a "
            "pool in shards has no place for: take noisy-student or freematch, or `tutelage "
            "selftrain` without shards"
        )
    source = open_source(settings.unlabeled)
    if not isinstance(source, WebDataset):
        raise UsageError(
            f"{settings.unlabeled} has no tar shards to train from: `tutelage selftrain` labels "
            "and learns from such a pool at once; or pack it in tars before it is labeled"
        )
    return source


def _remembers_images(method: Method) -> bool:
    """Whether what it remembers grows with the pool."""
    two, three = (
        {name: kept.shape for name, kept in method.memory(2, size).items()} for size in (2, 3)
    )
    return two != three


def open_sharded(
    settings: ByOneMethod, source: WebDataset, run: Run, prepared: Prepared
) -> ShardedPool:
    """The pool with its labels, each shard counted; no image is looked at.

    Raises DataProblem where shards and labels are not of one another.
    """
    assert settings.labels is not None, "asked for"
    parts = Parts(settings.labels, settings.selected)
    path = run.path / "data" / "pool.parquet"
    shards = source.pool_shards()
    if not run.is_done(STAGE):
        with run.stage(STAGE) as notes:
            with prepared.screen.bar("count the pool", len(shards)) as bar:
                found = parts.count(shards, bar.advance)
            _write(path, shards, found)
            notes["teacher"], notes["classes"] = found.teacher, list(found.classes)
    notes = run.notes(STAGE)
    images, entries, sums = _read(path, shards)
    judged = len(source.shards()) - len(shards)
    if judged:
        prepared.screen.say(f"  {judged:,} shards of val or test splits stay out of the pool")
    prepared.screen.say(
        f"pool: {len(shards):,} shards, {images.sum():,} images, {entries.sum():,} entries an "
        "epoch, which are read while training; whether test images are among them is not looked "
        "for here, but by `tutelage check`"
    )
    return ShardedPool(
        source, parts, entries, sums,
        _numbers(notes["classes"], prepared.classes, settings.labels), int(images.sum()),
        soft=settings.pool_targets == "soft", temperature=settings.temperature,
    )  # fmt: skip


def _write(path: Path, shards: Sequence[str], found: Counts) -> None:
    """The counts of each shard, so that a run goes on without reading all parts again."""
    columns = {
        "shard": list(shards), "images": found.images, "entries": found.entries, "sum": found.sums
    }  # fmt: skip
    write_with(path, lambda part: pq.write_table(pa.table(columns), part, compression="zstd"))


def _read(path: Path, shards: Sequence[str]) -> tuple[NDArray[np.int64], ...]:
    """Images, entries and checksums; raises DataProblem where the shards are not the run's."""
    table = read_parquet(path, ["shard", "images", "entries", "sum"])
    if table["shard"].to_pylist() != list(shards):
        raise DataProblem(
            f"the pool has {len(shards):,} shards and had {len(table):,}, or others, when the run "
            "began: put them back, or start a new run"
        )
    return tuple(table[name].to_numpy() for name in ("images", "entries", "sum"))


def _numbers(labeled: Sequence[str], classes: tuple[str, ...], labels: Path) -> NDArray[np.int64]:
    """Class number in the labels -> in the data; raises UsageError where the classes differ."""
    number = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in labeled if name not in number]
    lacking = [name for name in classes if name not in labeled]
    if unknown or lacking:
        odd = (
            f"{unknown[0]!r} is no class of the data{nearest(unknown[0], classes)}"
            if unknown
            else f"class {lacking[0]!r} of the data is none of the labels'"
        )
        raise UsageError(
            f"{labels} has other classes than the data: {odd}; label the pool with a teacher of "
            "the same classes"
        )
    return np.array([number[name] for name in labeled], np.int64)
