"""Damaged files of run folders, each beside the whole others: of a self-training, and a search.

Whoever gets a run from somebody else shows it, compares it, goes on with it, and takes its network
as a teacher. The two runs are made at each start; their files hold times and places, so that the
inputs of these targets differ a little between starts.
"""

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from zlib import crc32

from rich.console import Console

from benchmarks.fuzz_images import is_read, pixels
from tutelage.cli import main
from tutelage.deploy.teacher_check import recorded_accuracy
from tutelage.evaluation.kept import all_kept
from tutelage.judging_settings import CompareSettings
from tutelage.pipelines.answers import all_answers
from tutelage.pipelines.manifest import read_manifest
from tutelage.pipelines.outcome import summary
from tutelage.pipelines.trial import read_right
from tutelage.progress import Screen, waited
from tutelage.reports.contents import gather
from tutelage.reports.page import write_report
from tutelage.run import content_of, read_run, remember_environment
from tutelage.searching.journal import Journal

BASE = "efficientnet+stem8+er_r1_k3_s1_e1_c8+ir_r1_k3_s2_e4_c16_se0.25+head16"
RUN_FILES = {  # kind -> its file in the folder of a self-training, or a search
    "run": "selftrain/run.json",
    "config": "selftrain/config.yaml",
    "starts": "selftrain/environment.json",
    "classes": "selftrain/data/classes.json",
    "sources": "selftrain/data/sources.json",
    "manifest": "selftrain/data/manifest.parquet",
    "issues": "selftrain/data/issues.csv",
    "metrics": "selftrain/rounds/00-baseline/metrics.jsonl",
    "predictions": "selftrain/rounds/01-student/predictions-test.parquet",
    "labels": "selftrain/labels/01-student.parquet",
    "model": "selftrain/model/config.json",
    "evaluation": "selftrain/evaluations/*/evaluation.json",
    "answers": "selftrain/evaluations/*/answers.parquet",
    "case": "selftrain/evaluations/*/robust/*/*.parquet",
    "search": "search/search.json",
    "trials": "search/trials.jsonl",
    "right": "search/trials/*/right.npy",
}


DRAWN = 10  # one of so many inputs is also shown as a page, which takes half a second


def _write_images(root: Path) -> None:
    for part, count in (("labeled", 8), ("test", 3)):
        for place, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                seed = 1000 * (part == "test") + 100 * place + number
                pixels(seed, 16).save(root / part / name / f"{number}.png")
    (root / "pool").mkdir()
    for number in range(6):
        pixels(5000 + number, 16).save(root / "pool" / f"{number}.png")


def _made(verb: str, flags: dict[str, object], *more: str) -> None:
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        assert main([verb, *more, *words]) == 0, said.getvalue()


@cache
def _runs() -> tempfile.TemporaryDirectory[str]:
    """A folder with images and both runs, which lives as long as the process."""
    made = tempfile.TemporaryDirectory(prefix="tutelage-fuzz-")
    root = Path(made.name)
    _write_images(root)
    common: dict[str, object] = {
        "data": root / "labeled", "img-size": 16, "batch": 8, "device": "cpu"
    }  # fmt: skip
    _made("selftrain", common | {
        "unlabeled": root / "pool", "test": root / "test", "model": "test_resnet", "ratio": 1,
        "method": "noisy-student", "rounds": 1, "steps": 4, "val-fraction": 0,
        "select.threshold": 0.1, "out": root / "selftrain",
    })  # fmt: skip
    _made("evaluate", {"data": root / "test", "device": "cpu", "robust": "fgsm"},
          str(root / "selftrain"))  # fmt: skip
    _made("search", common | {
        "base": BASE, "rungs": 2, "keep": 2, "steps": 8, "trials": 3, "val-fraction": 0.5,
        "out": root / "search",
    })  # fmt: skip
    return made


def _place(root: Path, kind: str) -> Path:
    """A kind's file below a folder with both runs."""
    return sorted(root.glob(RUN_FILES[kind]))[0]


def seeds_of_run(kind: str) -> Callable[[Path], Sequence[bytes]]:
    """The seeds of a kind of file."""
    return lambda folder: [_place(Path(_runs().name), kind).read_bytes()]


def reads_run(kind: str) -> Callable[[bytes, Path], bool]:
    """How a kind of file is read."""

    def read(data: bytes, folder: Path) -> bool:
        root = folder / "runs"
        if not root.exists():
            shutil.copytree(_runs().name, root, ignore=shutil.ignore_patterns("*.pt"))
        file = _place(root, kind)
        whole = file.read_bytes()
        file.write_bytes(data)
        readers = [reader for reader, kinds in _readers(root) if kind in kinds]
        if crc32(data) % DRAWN == 0:
            readers.append(lambda: write_report(root / RUN_FILES[kind].split("/")[0]))
        try:
            return False not in [is_read(reader) for reader in readers]  # each of them
        finally:
            file.write_bytes(whole)

    return read


def _readers(root: Path) -> list[tuple[Callable[[], object], tuple[str, ...]]]:
    """What is done with the runs beside showing them, and the kinds of files that it reads."""
    run, screen, other = root / "selftrain", Screen(Console(file=io.StringIO())), Path(_runs().name)
    stored = CompareSettings(runs=(run, other / "selftrain"))
    asked = CompareSettings(
        runs=(run, other / "selftrain"), data=str(other / "test"), device="cpu"
    )  # fmt: skip
    return [
        (lambda: gather(run), ("run", "config", "starts", "classes", "sources", "issues",
                               "metrics", "predictions", "labels", "evaluation")),
        (lambda: summary(read_run(run)), ("run",)),
        (lambda: content_of(run, "selftrain", read_run(other / "selftrain")["settings"]), ("run",)),
        (lambda: recorded_accuracy(run / "model"), ("run",)),
        (lambda: all_answers(stored, screen),
         ("run", "predictions", "manifest", "model", "evaluation")),
        (lambda: all_answers(asked, screen), ("answers",)),
        (lambda: read_manifest(run / "data"), ("classes", "sources", "manifest")),
        (lambda: waited(run / "rounds" / "00-baseline" / "metrics.jsonl"), ("metrics",)),
        (lambda: [kept.case(file.parent.name, file.stem) for kept in all_kept(run)
                  for file in kept.path.glob("robust/*/*.parquet")], ("case", "evaluation")),
        (lambda: remember_environment(run), ("starts",)),
        (lambda: write_report(root / "search"), ("search",)),
        (lambda: Journal(root / "search" / "trials.jsonl").read(), ("trials",)),
        (lambda: read_right(_place(root, "right").parent), ("right",)),
    ]  # fmt: skip
