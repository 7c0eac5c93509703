"""From folders to checked, split and decoded images; the same again when a run goes on."""

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Dice, generator
from tutelage.data.entries import ShardedPool
from tutelage.data.facts import Part
from tutelage.data.issues import Issue, stop_if_fatal, write_issues
from tutelage.data.memory import MOST, Memory, memory_for
from tutelage.data.pixels import InMemory, OnDisk, Pixels, bytes_held, how_held, open_pixels
from tutelage.data.sets import LabeledSet
from tutelage.data.source import Images
from tutelage.data.split import split
from tutelage.data.surveys import common_side
from tutelage.deploy.model_folder import folder_of, load_model
from tutelage.errors import UsageError
from tutelage.files import write_json
from tutelage.learner import choose_precision
from tutelage.networks.build import Net
from tutelage.pipelines.check_data import look, say_counts
from tutelage.pipelines.manifest import read_manifest, write_manifest
from tutelage.progress import Screen
from tutelage.run import Run
from tutelage.settings import SMALL_IMAGE
from tutelage.training_settings import PRETRAINED, Common
from tutelage.values import digest

GIVEN_SIDE = 160  # pixels at which given weights are at least shown images (docs/results.md)
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
    classifiers: dict[tuple[str, Net], dict[str, Tensor]] = field(default_factory=dict)  # fitted
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
            its = self.parts[part]
            own = bytes_held(len(its), canvas)
            held = self.is_to_be_held(part, canvas) and self.memory.take(own)
            with self.screen.bar(f"decode {part}", len(its) if held else 0) as bar:
                made = open_pixels(
                    its, canvas, self.device, in_memory=held, memory=self.memory,
                    advance=bar.advance,
                )  # fmt: skip
            self.opened[part, canvas] = made
            self.screen.say(f"  {part}: {len(its):,} images {how_held(made, self.memory)}")
        return self.opened[part, canvas]

    def is_to_be_held(self, part: str, canvas: int) -> bool:
        """Whether a part's images are decoded at once: small ones, that fit with smaller parts."""
        sizes = [len(images) for images in self.parts.values()]
        smaller = sum(size for size in sizes if size <= len(self.parts[part]))
        return canvas <= SMALL_IMAGE and bytes_held(smaller, canvas) <= self.memory.limit

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
        """The images to train on, for a network's input of that size, with their labels."""
        labels = self.parts["labeled"].label_tensor().to(self.device)
        pixels = self.pixels("labeled", canvas_for(size))
        return LabeledSet(pixels, labels, len(self.classes))

    @property
    def judge(self) -> str:
        """The part that the verdict is spoken on: test where given, else val."""
        return "test" if "test" in self.parts else "val"


def check_judged(parts: Set[str], *more: str) -> None:
    """Raises UsageError where no part, of which labels alone may have several, is to judge on;
    `more` are ways to do without."""
    if not {"val", "test"} & parts:
        ways = ["--test or --val", "a --val-fraction above 0", *more]
        raise UsageError(
            f"no images are left to judge on: give {', '.join(ways[:-1])}, or {ways[-1]}"
        )


def prepare(
    settings: Common, run: Run, device: torch.device, screen: Screen,
    *, pool: str | None = None, pool_share: float = 1.0,
    allowed: Callable[[Set[str]], None] = lambda names: None,
) -> Prepared:  # fmt: skip
    """Check and split the data, or take what an earlier start of this run wrote down.

    Of the pool, a random share is taken. `allowed` hears the names of the parts before any image is
    read, and raises UsageError where one is lacking. Raises DataProblem for what must be mended
    first.
    """
    choose_precision(settings.precision, device)  # raises before minutes of reading
    data = run.path / "data"
    if not run.is_done("check"):
        with run.stage("check") as notes:
            notes |= _check(settings, run, screen, pool, pool_share, allowed)
    parts = read_manifest(data, given=run.given)
    allowed(parts.keys())
    size, memory = run.notes("check")["img_size"], memory_for(settings.memory)
    return Prepared(parts, size, device, screen, memory)


def _check(
    settings: Common, run: Run, screen: Screen, pool: str | None, pool_share: float,
    allowed: Callable[[Set[str]], None],
) -> dict[str, Any]:  # fmt: skip
    """Survey, stop where something is fatal, split, write data/."""
    data = run.path / "data"

    def narrowed(listed: dict[str, Images]) -> dict[str, Images]:
        allowed(listed.keys() | ({"val"} if settings.val_fraction else set()))
        return _drawn(listed, pool_share, seed=settings.seed)

    found = look(
        settings.data, val=settings.val, test=settings.test, pool=pool, given=run.given,
        screen=screen, narrowed=narrowed,
    )  # fmt: skip
    parts, issues = found.parts, found.issues
    stop_if_fatal(issues, data)
    if "val" not in parts and settings.val_fraction:
        issues += _split_off(parts, settings)
    if "pool" in parts and not parts["pool"].images.names:
        issues.append(
            Issue("fatal", "empty pool", "pool", pool or "", "no pool image is left to learn from")
        )
    stop_if_fatal(issues, data)
    write_issues(data / "issues.csv", issues)
    write_json(data / "classes.json", list(parts["labeled"].images.classes))
    write_manifest(data, parts)
    say_issues(issues, data / "issues.csv", screen)
    say_counts(parts, screen, "images")
    counts = {name: len(part.images) for name, part in parts.items()}
    size = settings.img_size
    if size == "auto":
        size = _size_for(settings, common_side(parts["labeled"].facts), screen)
    contents = {name: [fact.content for fact in part.facts] for name, part in parts.items()}
    return {"img_size": size, "images": counts, "fingerprint": digest(contents)}


def _drawn(listed: dict[str, Images], share: float, *, seed: int) -> dict[str, Images]:
    """The parts with that share of the pool, drawn among all its images before any is read: what
    can't be used of the share has no other image in its place.

    Raises UsageError where the share has no image.
    """
    if "pool" not in listed or share >= 1:
        return listed
    pool = listed["pool"]
    count = len(pool)
    dice = generator(seed, Dice.POOL_SHARE, 0)
    rows = torch.randperm(count, generator=dice)[: round(share * count)]
    if not len(rows):
        raise UsageError(
            f"--pool-share {share:g} of {count:,} pool images has none: give a larger share"
        )
    return listed | {"pool": pool.keep(rows.sort().values.tolist())}


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


def _size_for(settings: Common, side: int, screen: Screen) -> int:
    """Network input for images of that shorter side; of a run's weights, what they learned at."""
    size, given = automatic_size(side), settings.begins_as
    if given is None:
        return size
    folder = None if given == PRETRAINED else folder_of(Path(given))
    if folder is not None:
        return load_model(folder).net.img_size
    if size < GIVEN_SIDE:
        screen.say(
            f"  images of {side} px are shown at {GIVEN_SIDE} px, as given weights know larger "
            "ones; another --img-size may be faster, or better"
        )
    return max(size, GIVEN_SIDE)


def automatic_size(side: int) -> int:
    """Network input for images of that shorter side: a multiple of 32, from 32 to 224."""
    return min(224, max(32, round(side / 32) * 32))


def say_issues(issues: list[Issue], path: Path, screen: Screen) -> None:
    """One line a kind of issue."""
    kinds: dict[tuple[str, str, str], int] = {}
    for issue in issues:
        key = (issue.severity, issue.part, issue.kind)
        kinds[key] = kinds.get(key, 0) + 1
    for (severity, part, kind), count in kinds.items():
        screen.say(f"  {severity}: {part}: {kind} ({count:,}); see {path}")
