"""WRN-28-2 on CIFAR-10 with 4,000 labels, on one GPU, in pieces of a few minutes.

python -m benchmarks.wrn DATA [--out bench-out/wrn] [--minutes 9] [--stages floor speed train]
    [--trainings fixmatch-large …] [--length 8m] [--seed 0] [--device cuda] [--small]

DATA: CIFAR-10 as published (cifar-10-batches-py, or its .bin files), any source with the splits
train and test, or a folder with labeled*/, unlabeled*/ and test/. Of a training split, 400 images
a class keep their labels, by the seed, and the rest is the pool.

floor: what the card does in a large product and a large copy, and so the most images a second.
speed: `fit` over a bare loop in turns, how often a step waits for the card, and a profile.
train: FixMatch as published, and with eight times the batch; Meta Pseudo Labels, and its reduced
    form with the second one as teacher; the labels alone. --length is that of each: a time as 8m,
    or steps. Published: 95.7 % FixMatch, 96.1 % Meta Pseudo Labels, after 2^20 and 300,000 steps.

The command ends by itself after --minutes with exit code 4 while there is more to do, and the same
command goes on; SIGTERM does the same. Rows are in OUT/rows.jsonl as soon as they are there, and
the tables are printed at each end. --small does all of it with a tiny network and few images.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.journal import Row, complete, machine
from benchmarks.wrn_floor import card_of, floor_rate, floor_row, tables, work_of
from benchmarks.wrn_speed import METHODS, Case, speed_row
from tutelage.core import Dice, generator
from tutelage.data.find import open_source
from tutelage.data.pixels import InMemory, open_pixels
from tutelage.data.source import Images, Listing, Source
from tutelage.data.splits import split_name
from tutelage.errors import Interrupted, TutelageError, UsageError
from tutelage.learner import choose_device
from tutelage.networks.build import Net
from tutelage.verbs import selftrain, train

STAGES = ("floor", "speed", "train")
FIXMATCH = {"recipe": "fixmatch_cifar", "options": ("threshold=0.95",)}
MPL = {"recipe": "mpl_cifar", "batch": 128}
TRAININGS: dict[str, dict[str, Any]] = {  # what each changes of its recipe, best first
    "fixmatch-large": FIXMATCH
    | {"batch": 512, "optim": {"scale": "linear", "scale_base": 64, "warmup": 0.05, "ema": 0.992}},
    "meta-pseudo-labels": MPL,
    "fixmatch": FIXMATCH,
    "reduced-meta-pseudo-labels": MPL | {"method": "reduced-meta-pseudo-labels", "options": ()},
    "supervised": {
        "optim": {"name": "sgd", "lr": 0.03, "weight_decay": 5e-4, "schedule": "cosine"},
        "noise": {"magnitude": 5.0, "magnitude_std": 3.0, "cutout": 0.5, "crop": "pad",
                  "dropout": 0.0, "drop_path": 0.0},
        "smoothing": 0.0,
    },
}  # fmt: skip
TEACHER = "fixmatch-large"  # of the reduced form


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    net: str
    labels: int  # a class
    pool: int | None  # images; None: all
    test: int | None
    batches: tuple[int, ...]  # labeled images a step: as published, and large
    ratio: int
    steps: int  # of a timed run
    pairs: int
    timed: int  # labeled images of timed runs


FULL = Size("wrn-28-2", 400, None, None, (64, 512), 7, steps=60, pairs=7, timed=4000)
SMALL = Size("wrn-10-1", 4, 60, 40, (4,), 2, steps=10, pairs=2, timed=40)


@contextmanager
def ending_after(minutes: float) -> Iterator[None]:
    """Work that is asked to stop by then, as by SIGTERM; raises Interrupted where it did."""

    def ask(number: int, frame: object) -> None:
        raise Interrupted("stopped")

    before = signal.signal(signal.SIGTERM, ask)
    timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def pixels_of(source: Source, names: Sequence[str]) -> NDArray[np.uint8]:
    """Images (N, 32, 32, 3) of a source."""
    found = open_pixels(Images(source, tuple(names)), 32, torch.device("cpu"), in_memory=True)
    assert isinstance(found, InMemory), "asked for"
    return found.images.numpy()


def images_of(data: Path, size: Size, seed: int) -> dict[str, Any]:
    """Labeled images, pool and test, as `selftrain` takes them."""
    listing, source = None, None
    if not list(data.glob("unlabel*")):
        source = open_source(data)
        listing = source.listing("labeled")
    if source is None or listing is None:
        return _of_folders(data, size, seed)
    splits = [split_name(one) for one in listing.splits or ()]
    if not {"train", "test"} <= set(splits):
        raise UsageError(f"{data} has no splits train and test, nor folders unlabeled and test")
    rows = {part: [i for i, s in enumerate(splits) if s == part] for part in ("train", "test")}
    chosen = few(listing, rows["train"], size.labels, seed)
    rest = sorted(set(rows["train"]) - set(chosen))[: size.pool]
    return {
        "data": _labeled(source, listing, chosen),
        "unlabeled": pixels_of(source, [listing.names[row] for row in rest]),
        "test": _labeled(source, listing, rows["test"][: size.test]),
    }


def _of_folders(data: Path, size: Size, seed: int) -> dict[str, Any]:
    """The same of folders of their own."""
    found: dict[str, Any] = {}
    for name, pattern in (("data", "label*"), ("unlabeled", "unlabel*"), ("test", "test")):
        folders = [path for path in sorted(data.glob(pattern)) if path.is_dir()]
        if not folders:
            raise UsageError(f"{data} has no folder {pattern}")
        source = open_source(folders[0])
        listing = source.listing("pool" if name == "unlabeled" else "labeled")
        rows = list(range(len(listing.names)))
        if name == "unlabeled":
            found[name] = pixels_of(source, listing.names[: size.pool])
        elif name == "test":
            each = None if size.test is None else size.test // 10
            found[name] = _labeled(source, listing, few(listing, rows, each, seed))
        else:
            found[name] = _labeled(source, listing, few(listing, rows, size.labels, seed))
    return found


def few(listing: Listing, rows: Sequence[int], count: int | None, seed: int) -> list[int]:
    """At most so many rows of each class, drawn by the seed, in order; None: all."""
    assert listing.labels is not None, "labeled"
    by_class: dict[str, list[int]] = {}
    order = torch.randperm(len(rows), generator=generator(seed, Dice.SPLIT, 0)).tolist()
    for place in order:
        by_class.setdefault(listing.labels[rows[place]], []).append(rows[place])
    return sorted(row for members in by_class.values() for row in members[:count])


def _labeled(
    source: Source, listing: Listing, rows: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    assert listing.labels is not None, "labeled"
    names = [listing.names[row] for row in rows]
    return pixels_of(source, names), np.array([listing.labels[row] for row in rows])


def cases(size: Size, device: torch.device) -> dict[tuple[str, int, bool], Case]:
    """All that is timed, by method, batch and whether it is compiled."""
    net = Net(name=size.net, num_classes=10, img_size=32)
    kinds = [(m, b, c) for m in METHODS for b in size.batches for c in (False, True)]
    return {
        (method, batch, compile): Case(
            net=net, device=device, method=method, compile=compile, batch=batch, ratio=size.ratio,
            steps=size.steps, pairs=size.pairs, images=size.timed,
        )
        for method, batch, compile in kinds
    }  # fmt: skip


def compiles(rows: Sequence[Row], batch: int) -> bool:
    """Whether FixMatch was faster compiled in the speed stage, at this batch; else not."""
    times = {
        row["compile"]: row["fit_ms"]
        for row in rows
        if row["stage"] == "speed" and row["method"] == "fixmatch" and row["batch"] == batch
    }
    return len(times) == 2 and times[True] < times[False]


def trained(row: Row, given: argparse.Namespace, rows: Sequence[Row], parts: Any) -> Row:
    """One training, from where it stopped; what its row says."""
    name, size = row["training"], SMALL if given.small else FULL
    asked = {"batch": size.batches[0]} | TRAININGS[name]
    if given.small:
        asked |= {"batch": size.batches[0]}
    runs = given.out / "runs"
    asked |= {
        "data": parts["data"], "test": parts["test"], "model": size.net, "img_size": 32,
        "val_fraction": 0.0, "seed": row["seed"], "device": given.device, "precision": "bf16",
        "out": runs / f"{name}-{row['length']}-{row['seed']}",
    }  # fmt: skip
    length = row["length"]
    asked |= {"steps": int(length)} if length.isdigit() else {"budget": length}
    if "meta" not in name and compiles(rows, asked["batch"]):
        asked["compile"] = True
    if name == "supervised":
        content = train(**asked).content
    else:
        if name.startswith("reduced") and not given.small:  # a small one learns nothing to teach
            asked["teacher"] = str(runs / f"{TEACHER}-{row['length']}-{row['seed']}")
        asked |= {"unlabeled": parts["unlabeled"], "ratio": size.ratio}
        content = selftrain(**asked).content
    return result(content, asked["out"], asked["batch"]) | {"compile": asked.get("compile", False)}


def result(content: Mapping[str, Any], run: Path, batch: int) -> Row:
    """What the table needs of a run."""
    judged = content["stages"]["evaluate"]["rounds"]
    learned = next((r["name"] for r in judged if r["name"].endswith("student")), judged[-1]["name"])
    lines = (run / "rounds" / learned / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["images_per_second"] for line in lines]
    return {
        "accuracy": judged[-1]["test"],
        "baseline": judged[0]["test"] if len(judged) > 1 else None,
        "steps": content["stages"]["plan"]["steps"],
        "batch": batch,
        "minutes": sum(stage["seconds"] for stage in content["stages"].values()) / 60,
        "images_per_second": statistics.median(rates),
    }


def work(given: argparse.Namespace) -> list[Row]:
    """Every stage that is asked and not done."""
    size, device = SMALL if given.small else FULL, choose_device(given.device)
    net = Net(name=size.net, num_classes=10, img_size=32)
    rows = complete(given.out, (), dict)
    if "floor" in given.stages or "speed" in given.stages:
        measured = partial(floor_row, net, size.ratio, device, small=given.small)
        rows = complete(given.out, [{"stage": "floor"}], lambda row: measured())
    if "speed" in given.stages:
        card = card_of(next(row for row in rows if row["stage"] == "floor"))
        most = {m: floor_rate(work_of(net), m, size.ratio, card) for m in METHODS}
        known = cases(size, device)
        wanted = [{"stage": "speed", "method": m, "batch": b, "compile": c} for m, b, c in known]
        rows = complete(given.out, wanted, lambda row: speed_row(
            known[row["method"], row["batch"], row["compile"]], given.out, most[row["method"]]
        ))  # fmt: skip
    if "train" in given.stages:
        parts = images_of(given.data, size, given.seed)
        before = rows
        same = {"stage": "train", "length": given.length, "seed": given.seed}
        wanted = [same | {"training": name} for name in given.trainings]
        rows = complete(given.out, wanted, lambda row: trained(row, given, before, parts))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing, print the tables; 4 where there is more to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench-out/wrn"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--length", help="of each training; 8m, and 60 steps with --small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args(arguments)
    given.length = given.length or ("60" if given.small else "8m")
    stance = "force_eager" if given.small else "default"  # to compile takes minutes of a CPU
    code = 0
    try:
        with torch.compiler.set_stance(stance), ending_after(given.minutes):
            work(given)
    except TutelageError as error:
        stopped = isinstance(error, Interrupted)
        print(f"{error}: the same command goes on" if stopped else error, file=sys.stderr)
        code = error.exit_code
    print(tables(complete(given.out, (), dict)))
    print(f"\n{machine()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
