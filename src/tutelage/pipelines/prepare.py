"""From folders to checked, split and decoded images; the same again when a run goes on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tutelage.core import Dice, generator
from tutelage.data.check import survey
from tutelage.data.entries import ShardedPool
from tutelage.data.facts import Part
from tutelage.data.find import Given, open_source
from tutelage.data.issues import Issue, stop_if_fatal, write_issues
from tutelage.data.loader import LabeledSet
from tutelage.data.memory import MOST, Memory, memory_for
from tutelage.data.pixels import InMemory, OnDisk, Pixels, bytes_held, how_held, open_pixels
from tutelage.data.source import Images, Source
from tutelage.data.split import split
from tutelage.data.storage import absolute, is_given
from tutelage.data.surveys import common_side
from tutelage.errors import DataProblem, UsageError
from tutelage.files import read_json, write_json, write_with
from tutelage.progress import Screen
from tutelage.run import Run
from tutelage.settings import SMALL_IMAGE
from tutelage.targets import one_hot
from tutelage.training_settings import Common
from tutelage.values import digest

CROP_SHARE = 0.875  # of the canvas that the clean center view shows, for photos; timm's default


@dataclass
class Prepared:
    """Images that are checked, split, and opened when first asked for."""

    parts: dict[str, Images]  # labeled, and where there are any: val, test, pool
    size: int  # pixels, the network's input
    device: torch.device
    screen: Screen
    memory: Memory = field(default_factory=lambda: Memory(MOST))
    opened: dict[tuple[str, int], Pixels] = field(default_factory=dict)
    sharded: ShardedPool | None = None  # a pool that is no part, as its images are never listed

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.parts["labeled"].classes

    def pixels(self, part: str, canvas: int | None = None) -> Pixels:
        """A part's images: small ones decoded at once where they fit in memory with all smaller
        parts; photos when they are asked for, and kept while the memory lasts."""
        canvas = canvas or canvas_for(self.size)
        if (part, canvas) not in self.opened:
            its, small = self.parts[part], canvas <= SMALL_IMAGE
            sizes = [len(images) for images in self.parts.values()]
            total = bytes_held(sum(size for size in sizes if size <= len(its)), canvas)
            own = bytes_held(len(its), canvas)
            held = small and total <= self.memory.limit and self.memory.take(own)
            with self.screen.bar(f"decode {part}", len(its) if held else 0) as bar:
                made = open_pixels(
                    its, canvas, self.device, in_memory=held, memory=self.memory,
                    advance=bar.advance,
                )  # fmt: skip
            self.opened[part, canvas] = made
            self.screen.say(f"  {part}: {len(its):,} images {how_held(made, self.memory)}")
        return self.opened[part, canvas]

    def forget(self, part: str, *, unless: int) -> None:
        """Let go of a part's images that were decoded for another image size."""
        for key in [k for k in self.opened if k[0] == part and k[1] != canvas_for(unless)]:
            gone = self.opened.pop(key)
            if isinstance(gone, InMemory):
                self.memory.give(bytes_held(len(gone), key[1]))
            elif isinstance(gone, OnDisk):
                gone.forget()

    def resize(self, size: int) -> None:
        """Another size of the network's input; images decoded for the first are let go."""
        self.size = size
        for part in self.parts:
            self.forget(part, unless=size)

    def labeled_set(self, size: int) -> LabeledSet:
        """The images to train on, for a network's input of that size, with their targets."""
        targets = one_hot(self.parts["labeled"].label_tensor(), len(self.classes))
        return LabeledSet(self.pixels("labeled", canvas_for(size)), targets.to(self.device))

    @property
    def judge(self) -> str:
        """The part that the verdict is spoken on: test where given, else val."""
        return "test" if "test" in self.parts else "val"


def prepare(
    settings: Common, run: Run, device: torch.device, screen: Screen,
    *, pool: str | None = None, pool_share: float = 1.0,
) -> Prepared:  # fmt: skip
    """Check and split the data, or take what an earlier start of this run wrote down.

    Of the pool, a random share is taken. Raises DataProblem for what must be mended first.
    """
    data = run.path / "data"
    if not run.is_done("check"):
        with run.stage("check") as notes:
            notes |= _check(settings, run, screen, pool, pool_share)
    parts = read_manifest(data, given=run.given)
    size, memory = run.notes("check")["img_size"], memory_for(settings.memory)
    return Prepared(parts, size, device, screen, memory)


def _check(
    settings: Common, run: Run, screen: Screen, pool: str | None, pool_share: float
) -> dict[str, Any]:
    """Survey, stop where something is fatal, split, write data/."""
    data = run.path / "data"
    parts, issues = check_folders(
        settings.data,
        val=settings.val,
        test=settings.test,
        pool=pool,
        given=run.given,
        screen=screen,
        out=data,
    )
    if "val" not in parts and settings.val_fraction:
        issues += _split_off(parts, settings)
    if "pool" in parts and pool_share < 1:
        count = len(parts["pool"].images)
        dice = generator(settings.seed, Dice.POOL_SHARE, 0)
        kept = torch.randperm(count, generator=dice)[: round(pool_share * count)]
        parts["pool"] = parts["pool"].keep(kept.sort().values.tolist())
    if "pool" in parts and not parts["pool"].images.names:
        issues.append(
            Issue("fatal", "empty pool", "pool", pool or "", "no pool image is left to learn from")
        )
    stop_if_fatal(issues, data)
    write_issues(data / "issues.csv", issues)
    write_json(data / "classes.json", list(parts["labeled"].images.classes))
    _write_manifest(data, parts)
    say_issues(issues, data / "issues.csv", screen)
    say_counts(parts, screen)
    counts = {name: len(part.images) for name, part in parts.items()}
    size = settings.img_size
    if size == "auto":
        size = automatic_size(common_side(parts["labeled"].facts))
    contents = {name: [fact.content for fact in part.facts] for name, part in parts.items()}
    return {"img_size": size, "images": counts, "fingerprint": digest(contents)}


def check_folders(
    data: str,
    *,
    val: str | None,
    test: str | None,
    pool: str | None,
    given: Given,
    screen: Screen,
    out: Path,
) -> tuple[dict[str, Part], list[Issue]]:
    """Survey with a bar for each part; raises DataProblem, with issues.csv in `out`."""
    with screen.bar("check", 0) as bar:

        def advance(name: str, total: int) -> Any:
            bar.extend(total)
            return bar.advance

        found = survey(data, val=val, test=test, pool=pool, given=given, advance=advance)
    stop_if_fatal(found.issues, out)
    return found.parts, found.issues


def _split_off(parts: dict[str, Part], settings: Common) -> list[Issue]:
    """Move a stratified share of the labels to a validation part, and its twins out of the pool."""
    labeled = parts["labeled"]
    train, val, issues = split(labeled, settings.val_fraction, seed=settings.seed)
    parts["labeled"], parts["val"] = labeled.keep(train), labeled.keep(val)
    if "pool" in parts:
        pool = parts["pool"]
        twins, grouped = pool.also_in(parts["val"])
        gone = len(twins) + len(grouped)
        if gone:
            issues.append(
                Issue("note", "also in val", "pool", pool.images.source.address,
                      f"{gone} pool images are also validation images, or of their groups, and are "
                      "left out")
            )  # fmt: skip
        parts["pool"] = pool.without([*twins, *grouped])
    return issues


def canvas_for(size: int) -> int:
    """Side that images are decoded to: photos get a margin for the clean center crop."""
    return size if size <= SMALL_IMAGE else math.ceil(size / CROP_SHARE)


def automatic_size(side: int) -> int:
    """Network input for images of that shorter side: a multiple of 32, from 32 to 224."""
    return min(224, max(32, round(side / 32) * 32))


def say_counts(parts: dict[str, Part], screen: Screen) -> None:
    """One line with the number of images of each part, and of classes."""
    counts = [f"{name} {len(part.images):,}" for name, part in parts.items()]
    classes = len(parts["labeled"].images.classes)
    screen.say(f"images: {', '.join(counts)}; {classes} classes")


def say_issues(issues: list[Issue], path: Path, screen: Screen) -> None:
    """One line a kind of issue."""
    kinds: dict[tuple[str, str, str], int] = {}
    for issue in issues:
        key = (issue.severity, issue.part, issue.kind)
        kinds[key] = kinds.get(key, 0) + 1
    for (severity, part, kind), count in kinds.items():
        screen.say(f"  {severity}: {part}: {kind} ({count:,}); see {path}")


def _write_manifest(data: Path, parts: dict[str, Part]) -> None:
    """Every image in use, and what its file looked like; the roots beside it."""
    columns: dict[str, list[Any]] = {
        key: [] for key in ("part", "path", "label", "content", "bytes", "changed")
    }
    for name, part in parts.items():
        labels = part.images.labels or (-1,) * len(part.images)
        stamps = [part.images.source.stamp(name) for name in part.images.names]
        columns["part"] += [name] * len(part.images)
        columns["path"] += part.images.names
        columns["label"] += labels
        columns["content"] += [fact.content for fact in part.facts]
        columns["bytes"] += [size for size, _ in stamps]
        columns["changed"] += [changed for _, changed in stamps]
    sources = {name: absolute(part.images.source.address) for name, part in parts.items()}
    write_json(data / "sources.json", sources)
    write_with(data / "manifest.parquet", lambda part: pq.write_table(pa.table(columns), part))


def has_manifest(run: Path) -> bool:
    """Whether a run has written down its images."""
    return (run / "data" / "manifest.parquet").exists()


def read_manifest(
    data: Path, wanted: Sequence[str] = (), *, given: Given | None = None
) -> dict[str, Images]:
    """The parts as written, or the wanted ones of them.

    Raises DataProblem where a file of theirs is gone or has changed since.
    """
    classes = tuple(read_json(data / "classes.json"))
    columns = pq.read_table(data / "manifest.parquet").to_pydict()
    addresses = read_json(data / "sources.json")
    rows_of: dict[str, list[int]] = {name: [] for name in addresses}
    for row, name in enumerate(columns["part"]):
        rows_of[name].append(row)
    parts = {}
    for name, address in addresses.items():
        if wanted and name not in wanted:
            continue
        names = tuple(columns["path"][row] for row in rows_of[name])
        labels = tuple(columns["label"][row] for row in rows_of[name])
        source = _opened_again(address, given)
        for image, row in zip(names, rows_of[name], strict=True):
            _check_unchanged(source, image, (columns["bytes"][row], columns["changed"][row]))
        parts[name] = Images(source, names, None if name == "pool" else labels, classes)
    return parts


def contents_of(run: Path, parts: Sequence[str]) -> set[str]:
    """Content hashes of a run's images in these parts, as its manifest has them."""
    columns = pq.read_table(run / "data" / "manifest.parquet").to_pydict()
    pairs = zip(columns["part"], columns["content"], strict=True)
    return {content for part, content in pairs if part in parts}


def _opened_again(address: str, given: Given | None) -> Source:
    """The source of a run; raises DataProblem where it is no longer there."""
    try:
        return open_source(address, given)
    except UsageError as error:
        if is_given(address):
            raise DataProblem(str(error)) from error
        raise DataProblem(
            f"{address} is gone since the run began: put it back, or start a new run"
        ) from error


def _check_unchanged(source: Source, name: str, before: tuple[int, int]) -> None:
    """Raises DataProblem where the file is not the one that the run began with."""
    try:
        now = source.stamp(name)
    except FileNotFoundError:
        raise DataProblem(
            f"{source.where(name)} is gone since the run began: put it back, or start a new run"
        ) from None
    if now != before:
        raise DataProblem(
            f"{source.where(name)} has changed since the run began: put it back, or start a new run"
        )
