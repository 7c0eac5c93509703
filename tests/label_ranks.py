"""Pools labeled by one process and by two, killed and stopped too: run as a program by tests.

python label_ranks.py OUT: torch is imported once, and each command is a fork, or one for each rank;
OUT/codes.json has their exit codes, and OUT/NAME.txt what they said.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import tyro  # noqa: F401  # as below, once for all forks
from images import write_pool
from shards import png, write_tar

from tutelage import cli, judging_verbs, launch, search_settings, verbs  # noqa: F401
from tutelage.data import label_parts
from tutelage.data.pixels import InMemory
from tutelage.deploy import label_files  # noqa: F401
from tutelage.deploy.model_folder import Model, save_model
from tutelage.distributed.collectives import rank
from tutelage.distributed.crew import joined, serve
from tutelage.distributed.words import Crew
from tutelage.ends import end_at_once
from tutelage.errors import DataProblem, Dismissed
from tutelage.labeling import answers, label, pieces
from tutelage.networks.build import Net, build

CLASSES, SIDE = tuple("abcdefghijkl"), 8
NET = Net(name="test_resnet", num_classes=len(CLASSES), img_size=SIDE)
NAMES = tuple(f"{row}.png" for row in range(45))


def write_inputs(root: Path) -> None:
    """model/, pool/ (45 images, one of them none), tars/ (5 shards)."""
    save_model(root / "model", Model(teacher(), NET, CLASSES, SIDE), "a model")
    write_pool(root / "pool", 45, first=0, side=SIDE)
    (root / "pool" / "0021.png").write_bytes(b"no image")
    for number, count in enumerate((7, 1, 5, 3, 9)):
        members = {f"{number}-{row}.png": png(100 * number + row, SIDE) for row in range(count)}
        if number == 2:
            members["2-3.png"] = b"no image"
        write_tar(root / "tars" / f"pool-{number}.tar", members)


def teacher() -> torch.nn.Module:
    """A network whose answers differ."""
    module = build(NET, seed=0).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(1.5)
    return module


def by_verb(root: Path, pool: str, out: str) -> int:
    """tutelage label"""
    flags = ["--model", root / "model", "--data", root / pool, "--out", root / out]
    return cli.main(["label", "--device", "cpu", *map(str, flags)])


class Gone:
    """Images that can't be read, by any process but the first."""

    def __init__(self, pixels: InMemory) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, rows: torch.Tensor) -> torch.Tensor:
        if rank():
            raise DataProblem("an image is gone")
        time.sleep(0.3)  # so that the others come to work, too
        return self.pixels.at(rows)


def in_memory(root: Path, out: str, *, gone: bool = False) -> int:
    """label_pool, as pipelines call it."""
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(256, (45, SIDE, SIDE, 3), dtype=torch.uint8, generator=dice)
    pixels = InMemory(images)
    try:
        with joined():
            if rank():
                serve()
                return 0
            label.label_pool(
                teacher(), Gone(pixels) if gone else pixels, NAMES, CLASSES, root / out, size=SIDE
            )
    except Dismissed as error:
        return error.exit_code
    except DataProblem as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def slain(by: int, number: int, where: int, then: Callable[[], int]) -> int:
    """Do it, with a signal to this process, if it is rank `where`, as the leader has written its
    n-th part, or as another one has said its n-th word."""
    seen = 0
    write, send = label_parts.write_with, Crew.send

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), by)

    def write_with(path: Path, make: Callable[[Path], object]) -> None:
        write(path, lambda part: (make(part), count()))

    def send_with(its: Crew, word: object, other: int) -> None:
        send(its, word, other)
        count()

    if os.environ.get("RANK") == "0" and where:
        ask = answers._ask

        def slowly(*given: object) -> object:
            time.sleep(0.1)  # so that most is left to the one that will be gone
            return ask(*given)

        answers._ask = slowly
    if os.environ.get("RANK") == str(where):
        if where:
            Crew.send = send_with
        else:
            label_parts.write_with = write_with
    return then()


def run(root: Path, name: str, doing: Callable[[], int], ranks: int = 1) -> list[int]:
    """Exit codes of the command in so many processes; those below 0 are signals."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    begun = []
    for own in range(ranks):
        child = os.fork()
        if not child:
            with (root / f"{name}.txt").open("a") as file:
                os.dup2(file.fileno(), 2)
            if ranks > 1:
                os.environ |= {
                    "RANK": str(own), "LOCAL_RANK": str(own), "WORLD_SIZE": str(ranks),
                    "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "localhost",
                    "MASTER_PORT": str(port),
                }  # fmt: skip
            end_at_once(doing())
        begun.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in begun]


def main(root: Path) -> None:
    """All of it."""
    answers.AT_ONCE = pieces.AT_ONCE = 2
    label_parts.PART = 16
    torch.set_num_threads(1)
    write_inputs(root)
    codes = {}
    verb = partial(by_verb, root)
    todo = [("memory-1", partial(in_memory, root, "memory-1"), 1),
            ("memory-2", partial(in_memory, root, "memory-2"), 2),
            ("gone", partial(in_memory, root, "gone", gone=True), 2)]  # fmt: skip
    for pool in ("pool", "tars"):
        todo += [(f"{pool}-{ranks}", partial(verb, pool, f"{pool}-{ranks}"), ranks)
                 for ranks in (1, 2)]  # fmt: skip
    for name, by, number, where in (
        ("follower", signal.SIGKILL, 15, 1), ("stopped", signal.SIGTERM, 2, 0),
    ):  # fmt: skip
        again = partial(verb, "pool", name)
        todo += [
            (name, partial(slain, by, number, where, again), 2),
            (f"{name}-again", again, 1 + (where == 1)),
        ]
    for name, doing, ranks in todo:
        codes[name] = run(root, name, doing, ranks)
    (root / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
