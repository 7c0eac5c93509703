"""What judging a model is asked. No torch here."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from tutelage.errors import UsageError
from tutelage.settings import Auto, at_least, between
from tutelage.values import nearest

SUITES = ("c", "c-extra", "p", "fgsm", "pgd", "pgd-l2", "autoattack")  # that need no address
PUBLISHED = ("c", "cifar-c", "a", "r", "v2", "sketch")  # as NAME=ADDRESS
BACKENDS = ("cpu", "cuda", "onnx")  # what models can be timed on


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """`tutelage evaluate`: a trained model on labeled images."""

    run: Positional[Path]
    """A run folder, a round's folder (RUN/rounds/NAME), or a model folder."""
    data: str
    """Labeled images: a folder with one folder a class, or any source of docs/data.md."""
    img_size: int | Auto | None = None
    """Image side in pixels; auto: the best on validation images; default: as trained."""
    val: str | None = None
    """Labeled images for auto to choose on; default: the run's own validation part."""
    out: Path | None = None
    """A .csv or .parquet file for the answer on each image."""
    device: str = "auto"
    """cpu, cuda, mps; auto: the first accelerator, else the CPU."""
    robust: str = ""
    """Also measure robustness, as in c,p,fgsm,pgd. c, c-extra: corruptions; p: sequences; fgsm,
    pgd, pgd-l2, autoattack: attacks; as published: c=FOLDER, cifar-c, a, r, v2, sketch."""
    reference: Path | None = None
    """Another run to compare robustness with."""
    robust_images: int | None = None
    """At most so many images for robustness, also of published ones, drawn evenly from the classes;
    default: all."""
    epsilon: tuple[float, ...] = ()
    """How far fgsm, pgd and autoattack may move each value, in levels of 255. Default: each
    attack's own, as in docs/robustness.md."""
    epsilon_l2: tuple[float, ...] = ()
    """How far pgd-l2 may move an image: Euclidean length over all its values in [0, 1]. Default:
    0.05 to 1 at 32 px, more for larger images."""
    attack_steps: int = 10
    """Steps of pgd and pgd-l2."""
    restarts: int = 2
    """Random starts of pgd and pgd-l2; an image counts as right where all of them fail."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        """Reject what is out of range, before anything is read."""
        if isinstance(self.img_size, int):
            at_least("--img-size", self.img_size, 1)
        if self.val is not None and self.img_size != "auto":
            raise UsageError(
                "--val is for --img-size auto, which chooses on it: give both, or leave out --val"
            )
        at_least("--attack-steps", self.attack_steps, 1)
        at_least("--restarts", self.restarts, 1)
        if self.robust_images is not None:
            at_least("--robust-images", self.robust_images, 1)
        for value in self.epsilon:
            between("--epsilon", value, 0, 255)
        for value in self.epsilon_l2:
            between("--epsilon-l2", value, 0, 1e6)
        if self.reference is not None and not self.robust:
            raise UsageError("--reference is for --robust: give both, or leave out --reference")
        self.suites()

    def suites(self) -> list[tuple[str, str | None]]:
        """Each suite's name, and the address of its images where they are published ones."""
        found: list[tuple[str, str | None]] = []
        for word in filter(None, (part.strip() for part in self.robust.split(","))):
            name, equals, address = word.partition("=")
            known = PUBLISHED if equals else SUITES
            if name not in known:
                raise UsageError(
                    f"--robust doesn't know {word!r}{nearest(name, known)}: it takes "
                    f"{', '.join(SUITES)}, and {', '.join(f'{one}=FOLDER' for one in PUBLISHED)}"
                )
            if equals and not address:
                raise UsageError(f"--robust {word}: give the folder of the published images")
            found.append((name, address or None))
        if len({name for name, _ in found}) < len(found):
            raise UsageError(f"--robust {self.robust} names a suite twice: name each once")
        return found


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """`tutelage compare`: trained models on the same labeled images, every pair of them."""

    runs: Positional[tuple[Path, ...]]
    """Two or more run folders, RUN/rounds/NAME folders, or, with --data, model folders."""
    data: str | None = None
    """Labeled images that all are asked about; default: the answers that each run has stored on its
    test images, which have to be the same."""
    latency: str = ""
    """Also how fast they are, as in cpu,cuda,onnx; onnx: ONNX Runtime on the CPU."""
    out: Path | None = None
    """Folder for compare.html and compare.json, which a stopped comparison goes on from."""
    threads: int | None = None
    """CPU threads for times; default: as many as PyTorch takes."""
    again: bool = False
    """Measure times again that --out has already."""
    device: str = "auto"
    """Where --data is answered. cpu, cuda, mps; auto: the first accelerator, else the CPU."""
    seed: int = 0
    """Random seed of the bootstrap."""

    def __post_init__(self) -> None:
        """Reject what can't be compared, before anything is read."""
        if len(self.runs) < 2:
            raise UsageError("compare needs two models or more: tutelage compare RUN_A RUN_B")
        paths = [path.absolute() for path in self.runs]
        twice = [str(path) for path in self.runs if paths.count(path.absolute()) > 1]
        if twice:
            raise UsageError(f"{twice[0]} is given twice: give each model once")
        if self.threads is not None:
            at_least("--threads", self.threads, 1)
        if self.again and (not self.latency or self.out is None):
            raise UsageError("--again is for times that --out has: give --latency and --out too")
        self.backends()

    def backends(self) -> tuple[str, ...]:
        """What to take times on, each once."""
        words = tuple(filter(None, (part.strip() for part in self.latency.split(","))))
        for word in words:
            if word not in BACKENDS:
                raise UsageError(
                    f"--latency doesn't know {word!r}{nearest(word, BACKENDS)}: it takes "
                    f"{', '.join(BACKENDS)}"
                )
        return tuple(dict.fromkeys(words))


@dataclass(frozen=True, kw_only=True)
class CalibrateSettings:
    """`tutelage calibrate`: a trained model's confidences, on labeled images that training has not
    seen. A run with a validation part has done it at its end."""

    run: Positional[Path]
    """A run folder, a round's folder (RUN/rounds/NAME), or a model folder."""
    data: str
    """Labeled images: a folder with one folder a class, or any source of docs/data.md."""
    device: str = "auto"
    """cpu, cuda, mps; auto: the first accelerator, else the CPU."""
