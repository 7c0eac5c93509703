"""`tutelage compare --latency`: each backend with all models in turns, none of them twice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tutelage.data.memory import free_bytes
from tutelage.deploy.model_folder import Model, load_model
from tutelage.deploy.onnx_model import check_onnx, export_onnx, parity
from tutelage.errors import UsageError
from tutelage.files import read_json
from tutelage.judging_settings import CompareSettings
from tutelage.pipelines.answers import Answers
from tutelage.progress import Screen
from tutelage.speed.counts import Counts, count
from tutelage.speed.machine import available_cores, environment
from tutelage.speed.rows import Row
from tutelage.speed.runners import Eager, Onnx, Runner
from tutelage.speed.timing import (
    Protocol,
    Searched,
    Timed,
    best_batch,
    reason,
    time_in_turns,
)
from tutelage.values import digest, to_plain
from tutelage.weights import WEIGHTS

FORMAT = 1  # of compare.json
ROOM = 0.25  # share of the free memory that estimated activations may take, on a CPU


@dataclass(frozen=True)
class Candidate:
    """A model that is ready to be timed."""

    runner: Runner
    counts: Counts
    file_bytes: int
    notes: tuple[str, ...] = ()


def check_backends(backends: Sequence[str]) -> None:
    """Raises UsageError where this machine lacks what one of them needs."""
    if "cuda" in backends and not torch.cuda.is_available():
        raise UsageError("--latency cuda: there is no CUDA device here; leave cuda out")
    if "onnx" in backends:
        check_onnx()


def speeds(
    settings: CompareSettings, found: Sequence[Answers], earlier: Sequence[dict[str, Any]],
    screen: Screen, protocol: Protocol,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Each backend's times as plain values; those taken before, of the same models on the same
    machine in the same way, are given again."""
    threads = settings.threads or torch.get_num_threads()
    around = environment(threads)
    for backend in settings.backends():
        about = {
            "backend": backend, "environment": around, "protocol": to_plain(protocol),
            "models": [[one.name, one.weights, one.img_size] for one in found],
        }  # fmt: skip
        key = digest(about)
        kept = [group for group in earlier if group["key"] == key and not settings.again]
        if kept:
            screen.say(f"speed on {backend}: as taken on {kept[0]['date']}; --again takes it anew")
            yield kept[0]
            continue
        names = ", ".join(one.name for one in found)
        screen.say(f"taking times on {backend}, CPU threads: {threads}; {names}")
        with _threads(threads):
            rows = _measured(backend, found, threads, protocol, screen)
        yield {
            "key": key,
            "backend": backend,
            "device": around.get("gpu", "cuda") if backend == "cuda" else around["processor"],
            "threads": threads,
            "precision": "fp32",
            "weights": {one.name: one.weights for one in found},
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "environment": around,
            "protocol": to_plain(protocol),
            "rows": [row.plain(len(available_cores()), protocol) for row in rows],
        }


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """That many CPU threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(
    backend: str, found: Sequence[Answers], threads: int, protocol: Protocol, screen: Screen
) -> list[Row]:
    """A row for each model; one that fails has a row with the reason."""
    candidates: dict[str, Candidate] = {}
    failed: dict[str, Row] = {}
    with TemporaryDirectory(prefix="tutelage-") as folder:
        for place, one in enumerate(found):
            counts = Counts(0, 0, None, None)
            try:
                model = load_model(one.path, torch.device("cuda" if backend == "cuda" else "cpu"))
                counts = count(model.net)
                file = Path(folder) / f"{place}.onnx"
                candidates[one.name] = MAKERS[backend](one, model, counts, file, threads)
            except Exception as error:  # of one model, which the others don't wait for
                screen.say(f"{one.name} on {backend}: {reason(error)}")
                failed[one.name] = Row(
                    name=one.name, counts=counts, file_bytes=0,
                    one=Timed(1, failure=reason(error)),
                )  # fmt: skip
        rows = _timed(candidates, protocol, backend)
        for candidate in candidates.values():
            candidate.runner.close()
    return [failed.get(one.name) or rows[one.name] for one in found]


def _timed(
    candidates: Mapping[str, Candidate], protocol: Protocol, backend: str
) -> Mapping[str, Row]:  # fmt: skip
    """One image at a time, in turns; then each one's best batch, in turns as well."""
    runners = {name: candidate.runner for name, candidate in candidates.items()}
    single = time_in_turns(runners, dict.fromkeys(runners, 1), protocol)
    searched: dict[str, Searched] = {}
    failed: dict[str, Timed] = {}
    for name, candidate in candidates.items():
        if single[name].failure:
            continue
        try:
            searched[name] = best_batch(candidate.runner, protocol, fits=_fits(candidate, backend))
        except Exception as error:
            failed[name] = Timed(0, failure=reason(error))
    batches = {name: one.batch for name, one in searched.items() if one.batch}
    many = time_in_turns({name: runners[name] for name in batches}, batches, protocol) | failed
    return {
        name: Row(
            name=name, counts=candidate.counts, file_bytes=candidate.file_bytes, one=single[name],
            many=many.get(name), searched=searched.get(name), notes=candidate.notes,
        )
        for name, candidate in candidates.items()
    }  # fmt: skip


def _fits(candidate: Candidate, backend: str) -> Callable[[int], bool]:
    """Whether a batch may be tried: on a CPU, running out of memory would end the process."""
    free, each = free_bytes(), candidate.counts.activation_bytes
    if backend == "cuda" or free is None or each is None:
        return lambda batch: True
    return lambda batch: batch * each <= ROOM * free


def _eager(one: Answers, model: Model, counts: Counts, file: Path, threads: int) -> Candidate:
    """PyTorch, on the device where the model is."""
    device = next(model.module.parameters()).device
    folder = one.path / "model" if (one.path / "run.json").exists() else one.path
    weights = folder / WEIGHTS
    runner = Eager(model.module, model.net.img_size, device)
    return Candidate(runner, counts, weights.stat().st_size)


def _onnx(one: Answers, model: Model, counts: Counts, file: Path, threads: int) -> Candidate:
    """ONNX Runtime, after the exported network has answered as PyTorch does."""
    export_onnx(model, file)
    off = parity(model, file)
    runner = Onnx(file, model.net.img_size, threads)
    note = f"logits differ from PyTorch's by {off:.0e} of their standard deviation"
    return Candidate(runner, counts, file.stat().st_size, (note,))


MAKERS: dict[str, Callable[[Answers, Model, Counts, Path, int], Candidate]] = {
    "cpu": _eager, "cuda": _eager, "onnx": _onnx,
}  # fmt: skip


def read_earlier(out: Path | None) -> list[dict[str, Any]]:
    """Times that an earlier start has left in the folder.

    Raises UsageError where its compare.json is something else.
    """
    file = None if out is None else out / "compare.json"
    if file is None or not file.exists():
        return []
    try:
        content = read_json(file)
        known = content["format"] == FORMAT
    except (UsageError, TypeError, KeyError):
        known = False
    if not known:
        raise UsageError(f"{file} is not of this version's making: choose another --out")
    groups: list[dict[str, Any]] = content["speed"]
    return groups
