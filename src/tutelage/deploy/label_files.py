"""`tutelage label`: a trained model over a pool -> Parquet parts, issues.csv and labels.json."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tutelage.data.check import BAD_SHARE
from tutelage.data.decode import quiet
from tutelage.data.issues import Issue, stop_if_fatal
from tutelage.data.label_parts import Portion, portions
from tutelage.data.parts import pool_images
from tutelage.data.source import Source
from tutelage.deploy.label_quality import labels_quality, quality_line, quality_notes
from tutelage.deploy.labels_folder import Labels, Totals, totals
from tutelage.deploy.model_folder import Model, is_model, load_model
from tutelage.distributed.collectives import world
from tutelage.errors import UsageError
from tutelage.files import as_written, read_json, write_json
from tutelage.labeling.answers import PoolTeacher
from tutelage.labeling.cluster import workers
from tutelage.labeling.label import check_there
from tutelage.labeling.make_parts import Make, make_parts, make_parts_together
from tutelage.learner import choose_device, choose_precision
from tutelage.networks.build import weight_digest
from tutelage.progress import Bar, Screen
from tutelage.run import held
from tutelage.settings import Precision
from tutelage.values import percent

SHOWN = 5  # unreadable images that are named on the terminal


def label_files(
    model_path: Path, pool: Source, out: Path, *, device: str, precision: Precision,
    screen: Screen, cluster: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The model's top classes for every image of the pool, in parts in `out`; returns labels.json.

    Raises RunMismatch where `out` has labels of another model or pool, or is in use, and
    DataProblem where there are no images, or a whole part can't be read.
    """
    if is_model(out):
        raise UsageError(f"{out} is a run or model folder: choose another --out")
    if cluster and world() > 1:
        raise UsageError("--cluster has workers of its own: begin it without torchrun")
    where = torch.device("cpu") if cluster else choose_device(device)
    model = load_model(model_path, where)
    teacher = PoolTeacher(
        model.module, weight_digest(model.module), model.classes, model.net.img_size,
        choose_precision(precision, where),
    )  # fmt: skip
    by = make_parts if world() == 1 else make_parts_together
    make: AbstractContextManager[Make] = (
        nullcontext(partial(by, teacher, pool, canvas=model.canvas))
        if cluster is None
        else workers(cluster, teacher, pool, canvas=model.canvas, device=device, asked=precision)
    )
    with held(out):
        wanted, issues = _pool(pool, out)
        there = check_there(out, wanted, teacher)
        missing = [portion for portion in wanted if portion.number not in there]
        if not missing and (out / "labels.json").exists():
            content, line = _known(out / "labels.json")
            screen.say(line)
            if _add_accuracy(content, out, len(wanted), model, screen):
                write_json(out / "labels.json", content)
            return content
        (out / "labels.json").unlink(missing_ok=True)  # which says that nothing is missing
        if there:
            screen.say(f"{len(there):,} of {len(wanted):,} parts are there already")
        labels = Labels(out, pool, issues, readable=any(there.values()))
        done = sum(there.values())
        with make as begin:
            start = time.monotonic()
            _make_missing(labels, missing, begin, done, screen)
        found = totals(out, len(wanted), len(teacher.classes))
        content = _content(found, teacher, pool, time.monotonic() - start, found.images - done)
        labels.write_issues(found.unreadable)
        _say(found, labels, content, screen)
        _add_accuracy(content, out, len(wanted), model, screen)
        write_json(out / "labels.json", content)
    return content


def _known(path: Path) -> tuple[dict[str, Any], str]:
    """What finished labels say of themselves, and that in words; raises Damaged where it is not as
    it was written."""
    content: dict[str, Any] = read_json(path)
    with as_written(path):
        line = f"all {content['count']:,} images are labeled already in {path.parent}"
        if content["unreadable"]:
            line += f", {content['unreadable']:,} of them unreadable"
        if "accuracy" in content:
            content["accuracy"] = dict(content["accuracy"])
    return content, line


def _add_accuracy(
    content: dict[str, Any], out: Path, num_parts: int, model: Model, screen: Screen
) -> bool:
    """Put the estimated accuracy of the labels into labels.json's content, and say it, where the
    model's calibration tells it and it isn't there; whether that was so."""
    its, before = model.calibration, content.get("accuracy", {})
    if its is None or content["count"] == content["unreadable"]:
        return False
    if before.get("temperature") == its.temperature.value:
        return False
    found = labels_quality(out, num_parts, len(model.classes), its)
    content["accuracy"] = quality_notes(found, its)
    screen.say(quality_line(found))
    return True


def _make_missing(
    labels: Labels, missing: Sequence[Portion], begin: Make, done: int, screen: Screen
) -> None:
    """Take the parts as they are made; what can't be read is kept on disk whatever happens."""
    with screen.bar("label", done, done=done) as bar, quiet():
        progress = _Progress(bar, missing)
        try:
            with closing(begin(missing, progress.advance, progress.opened)) as parts:
                for made in parts:
                    labels.take(made)
            labels.settle()
        except BaseException:
            if labels.problems:
                labels.write_issues()
            raise


def _pool(pool: Source, out: Path) -> tuple[Sequence[Portion], list[Issue]]:
    """The pool's parts; where it has shards, its images are not listed."""
    shards = portions(pool, ())
    if shards:
        judged = len(pool.shards()) - len(shards)
        detail = f"{judged:,} shards of validation or test splits stay out of the pool"
        return shards, [Issue("note", "splits", "pool", pool.address, detail)] * bool(judged)
    images, issues = pool_images(pool)
    stop_if_fatal(issues, out)
    return portions(pool, images.names), issues


class _Progress:
    """The bar of a pool whose shards tell how many images they have when they are opened."""

    def __init__(self, bar: Bar, missing: Sequence[Portion]) -> None:
        """Add what is known to be missing."""
        self.bar, self.num_missing, self.start = bar, len(missing), time.monotonic()
        self.num_opened = self.images = self.guess = 0
        self.exact = not (missing and missing[0].shard)
        bar.extend(sum(len(portion.names) for portion in missing))

    def opened(self, images: int) -> None:
        """A part has so many images: those still closed are taken to have as many on average."""
        if self.exact:
            return
        self.num_opened += 1
        self.images += images
        guess = round(self.images / self.num_opened * self.num_missing)
        self.bar.extend(guess - self.guess)
        self.guess = guess

    def advance(self, images: int) -> None:
        """So many more images are labeled."""
        rate = (self.bar.done + images - self.bar.first) / (time.monotonic() - self.start + 1e-9)
        self.bar.advance(images, note=f"{rate:,.0f} img/s")


def _content(
    found: Totals, teacher: PoolTeacher, pool: Source, seconds: float, labeled: int
) -> dict[str, Any]:
    """What labels.json says; the time is that of the run that labeled the last part."""
    return {
        "pool": pool.address,
        "teacher": teacher.digest,
        **found.plain(teacher.classes),
        "seconds": round(seconds, 2),
        "images_per_second": round(labeled / seconds, 1) if labeled else None,
    }


def _say(found: Totals, labels: Labels, content: dict[str, Any], screen: Screen) -> None:
    """The outcome, with a warning where more images can't be read than by accident."""
    lost = len(found.unreadable)
    if lost:
        many = lost > BAD_SHARE * found.images
        names = ", ".join(labels.source.where(name) for name in found.unreadable[:SHOWN])
        more = f", … all in {labels.out / 'issues.csv'}" if lost > SHOWN else ""
        screen.say(
            f"{'warning: ' if many else ''}{lost:,} of {found.images:,} images can't be read "
            f"({percent(lost / found.images)}) and stay without a label: {names}{more}"
        )
    rate = content["images_per_second"]
    speed = f", {rate:,.0f} images/s" if rate else ""
    screen.say(f"{found.images - lost:,} images labeled in {labels.out}{speed}")
