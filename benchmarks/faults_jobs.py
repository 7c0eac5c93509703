"""What the fault campaign runs: small images and shards, commands over them, and what they leave.

A job is a command that ends in 10 to 20 s, of which 3 to 6 s are its start. Of what it leaves all
is compared, bit for bit, but for clocks: seconds and speeds in JSON, the log, the page, and
environment.json, which has a row for each start.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("dot", "horizontal", "square", "vertical")
SIDE = 16  # pixels
CLOCKS = frozenset(
    {"seconds", "step_seconds", "images_per_second", "data_share", "out", "time"}
)  # keys in JSON that differ from run to run
NOT_COMPARED = frozenset({"logs", "report", "environment.json", ".lock"})
SELECTED_PARTS, SELECTED_ROWS = 24, 200_000  # of the labels that are selected from

Flags = Callable[[Path], list[str]]  # of the folder with the data


@dataclass(frozen=True)
class Job:
    """A command to disturb."""

    verb: str
    name: str
    flags: Flags  # without --out
    devices: bool = True  # whether the verb takes --devices


def picture(label: int, dice: np.random.Generator) -> bytes:
    """A PNG file of a class: a bright dot, bar or square on noise."""
    pixels = dice.integers(0, 110, (SIDE, SIDE, 3))
    at = int(dice.integers(SIDE // 4, SIDE // 2))
    rows, columns = [(2, 2), (2, SIDE), (5, 5), (SIDE, 2)][label]
    top, left = (0 if rows == SIDE else at), (0 if columns == SIDE else at)
    pixels[top : top + rows, left : left + columns] += 140
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png", compress_level=1)
    return file.getvalue()


def write_folder(root: Path, count: int, dice: np.random.Generator) -> None:
    """ROOT/<class>/*.png, so many of each."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.png").write_bytes(picture(label, dice))


def write_pool(root: Path, count: int, dice: np.random.Generator) -> None:
    """ROOT/*.png of all classes."""
    root.mkdir(parents=True)
    for number in range(count):
        (root / f"{number:05d}.png").write_bytes(picture(number % 4, dice))


def write_shards(root: Path, shards: int, images: int, dice: np.random.Generator) -> None:
    """ROOT/pool-000.tar, … with so many images each."""
    root.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(root / f"pool-{shard:03d}.tar", "w") as tar:
            for number in range(images):
                data = picture(number % 4, dice)
                info = tarfile.TarInfo(f"{shard:03d}-{number:05d}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_labels(root: Path, dice: np.random.Generator) -> None:
    """ROOT/part-*.parquet, as `tutelage label` writes them, with random answers."""
    import torch

    from tutelage.data.label_parts import About, LabelPart, encoded, write_part

    root.mkdir(parents=True)
    names = tuple(map(str, range(SELECTED_ROWS)))
    for number in range(SELECTED_PARTS):
        surest = torch.from_numpy(dice.random(SELECTED_ROWS, np.float32)) / 2 + 0.5
        first = torch.from_numpy(dice.integers(0, 4, SELECTED_ROWS).astype(np.int32))
        part = LabelPart(
            number, names, torch.stack([first, (first + 1) % 4], 1),
            torch.stack([surest, 1 - surest], 1).half(), surest, surest * 9,
            About("t1", CLASSES, f"pool-{number:03d}.tar"),
        )  # fmt: skip
        write_part(root, number, encoded(part))
    (root / "labels.json").write_text("{}")


def make_data(root: Path, run: Callable[[Sequence[str]], None]) -> None:
    """All that the jobs begin with; `run` runs the commands that make the teacher and labels."""
    if (root / "done").exists():
        return
    dice = np.random.default_rng(0)
    if not (root / "large-labels" / "labels.json").exists():
        write_folder(root / "labeled", 20, dice)
        write_folder(root / "test", 20, dice)
        write_pool(root / "pool", 600, dice)
        write_shards(root / "shards", 4, 100, dice)
        write_shards(root / "large-shards", 24, 300, dice)
        write_labels(root / "large-labels", dice)
    sets = ["--data", str(root / "labeled"), *_small("60")]
    run(["train", *sets, "--out", str(root / "teacher")])
    run(["label", *_pool(root, "shards"), "--out", str(root / "labels")])
    run(["select", str(root / "labels"), "--out", str(root / "selected"), "--threshold", "0.1"])
    (root / "done").touch()


def _small(steps: str, **more: object) -> list[str]:
    flags = {"model": "test_resnet", "steps": steps, "img-size": SIDE, "batch": 4} | more
    return [*_words(flags), "--device", "cpu"]


def _words(flags: dict[str, object]) -> list[str]:
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]


def _pool(root: Path, name: str) -> list[str]:
    return ["--model", str(root / "teacher"), "--data", str(root / name), "--device", "cpu"]


def _sets(root: Path, **more: object) -> list[str]:
    return _words({"data": root / "labeled", "test": root / "test"} | more)


JOBS = (
    Job(
        "train",
        "supervised",  # a line of the log is of two steps
        lambda root: [
            *_sets(root, method="supervised"),
            *_small("410"),
        ],
    ),
    Job(
        "train",
        "shards",
        lambda root: [
            *_sets(root, unlabeled=root / "shards", labels=root / "labels"),
            *_words({"selected": root / "selected", "ratio": 1}),
            *_small("120"),
        ],
    ),
    Job("label", "shards", lambda root: _pool(root, "large-shards")),
    Job(
        "select",
        "large",
        lambda root: [str(root / "large-labels"), "--threshold", "0.6", "--per-class", "300000"],
        devices=False,
    ),
    Job(
        "selftrain",
        "noisy-student",
        lambda root: [
            *_sets(root, unlabeled=root / "pool", rounds=1, ratio=1, method="noisy-student"),
            *_words({"select.threshold": 0.1}),
            *_small("60"),
        ],
    ),
    Job(
        "selftrain",
        "flexmatch",
        lambda root: [
            *_sets(root, unlabeled=root / "pool", ratio=1, method="flexmatch"),
            *_small("60"),
        ],
    ),
)


def contents(out: Path) -> dict[str, str]:
    """File -> digest of what it says, of all that a run leaves for others."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if path.is_file() and name.parts[0] not in NOT_COMPARED and path.suffix != ".pt":
            found[str(name)] = sha256(_said(path)).hexdigest()[:16]
    return found


def _said(path: Path) -> bytes:
    """A file's content without clocks."""
    if path.name == "metrics.jsonl":
        lines = map(json.loads, path.read_text().splitlines())
        return json.dumps([_timeless(line) for line in lines]).encode()
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text()))).encode()
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    """JSON without what a clock decides."""
    if isinstance(value, dict):
        return {key: _timeless(its) for key, its in value.items() if key not in CLOCKS}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def run_once(command: Sequence[str], environment: dict[str, str]) -> None:
    """A command that must end well; raises RuntimeError with what it said."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
