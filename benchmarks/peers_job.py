"""What each peer is asked, and how it answers: read in its own environment, which lacks tutelage.

An arm is a module with `train`, which has the time, and `predict`, which comes after it and is not
timed: `python -m benchmarks.peers_timm train JOB.json`.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BATCH = 64  # labeled images a step, of all arms
SAVE_SECONDS = 15  # between two saves of a training, of which the last one is judged at the limit


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of one arm."""

    data: str  # folder with labeled/CLASS/, unlabeled/ and test/CLASS/
    out: str  # the arm's own folder
    steps: int  # 0: the arm has a budget of its own
    seconds: float  # until it is ended
    seed: int
    flip: bool  # whether a mirrored image is of the same class
    threads: int
    side: int  # pixels, of all arms
    weights: str = ""  # file of published ones to begin with; "": new weights

    def part(self, name: str) -> Path:
        """The folder of a part of the data."""
        return Path(self.data) / name

    def file(self, name: str) -> Path:
        """A file of the arm's own folder."""
        return Path(self.out) / name

    def write(self) -> Path:
        """Its file, for the arm to read."""
        file = self.file("job.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self)))
        return file


def classes(job: Job) -> list[str]:
    """Names of the classes, in the order of their numbers."""
    return sorted(folder.name for folder in job.part("labeled").iterdir())


def images(folder: Path) -> list[Path]:
    """All images of a part, in the order of answers."""
    return sorted(folder.rglob("*.png"))


def truth(job: Job, part: str) -> list[int]:
    """Class numbers of a part in folders of classes."""
    number = {name: k for k, name in enumerate(classes(job))}
    return [number[path.parent.name] for path in images(job.part(part))]


def answers_file(out: Path, name: str) -> Path:
    """Where an arm's answers of that name are."""
    return out / f"answers-{name}.json"


def write_answers(job: Job, name: str, answers: Sequence[int]) -> None:
    """Keep the class numbers of the test images, whole or not at all."""
    file = answers_file(Path(job.out), name)
    part = file.with_suffix(".part")
    part.write_text(json.dumps([int(answer) for answer in answers]))
    part.replace(file)


class Saver:
    """Says when a training is to be saved again."""

    def __init__(self) -> None:
        """Begin with the clock."""
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether the last save is long ago."""
        if time.monotonic() - self.last < SAVE_SECONDS:
            return False
        self.last = time.monotonic()
        return True


def main_of(train: Callable[[Job], None], predict: Callable[[Job], None]) -> None:
    """Run what the command line asks: train JOB.json or predict JOB.json."""
    verb, file = sys.argv[1:]
    job = Job(**json.loads(Path(file).read_text()))
    {"train": train, "predict": predict}[verb](job)
