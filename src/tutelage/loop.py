"""The training loop: any method, one step after the other, from the last checkpoint to the end."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.checkpoint import LAST, resume, save
from tutelage.core import Clock, Dice, Stage, fold
from tutelage.data.loader import Batches
from tutelage.errors import Damaged, GivenUp, Interrupted, UsageError
from tutelage.learner import Frozen, Learner
from tutelage.methods.method import State
from tutelage.networks.build import build
from tutelage.networks.freeze import freeze
from tutelage.networks.noise import set_noise
from tutelage.progress import Bar, MetricsLog, Screen, Wait
from tutelage.recalibration import recalibrate
from tutelage.recipe import Recipe
from tutelage.weights import AGAIN, load_weights, save_weights

LOGS = 200  # lines of metrics.jsonl in a training
EXAMS = 10  # looks at the validation images in a training
SAVE_SECONDS = 30.0  # between checkpoints
RECALIBRATED = 32  # steps whose labeled images batch-norm statistics are computed from, if asked

# A network in eval mode, and the share of training done -> numbers for the log; may raise GivenUp.
Exam = Callable[[nn.Module, float], dict[str, float]]


@dataclass
class Stop:
    """Whether the user wants to stop; asked between steps."""

    requested: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM wait for the end of the step; a second one stops at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Meter:
    """Means of the metrics since the last line, kept on the device to spare syncs."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    data_seconds: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def add(self, metrics: dict[str, Tensor], data_seconds: float, images: int) -> None:
        """Count one step."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.images += images
        self.data_seconds += data_seconds

    def line(self) -> dict[str, float]:
        """Means, images per second, and the share of the time that the loop waited for batches."""
        seconds = time.monotonic() - self.start
        means = {name: float(value) / self.steps for name, value in self.sums.items()}
        speed = self.images / seconds
        return means | {
            "images_per_second": round(speed, 1),
            "data_share": round(self.data_seconds / seconds, 4),
        }


def fit(
    recipe: Recipe,
    batches: Batches,
    out: Path,
    *,
    device: torch.device,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    exam: Exam | None = None,
    screen: Screen | None = None,
) -> nn.Module:
    """Train by the recipe, continuing where `out` stopped; returns the network to keep.

    `student` and `teacher` are networks to begin with, of which copies are used; by default the
    student is new, and so is a teacher that learns. Leaves last.pt, metrics.jsonl and, at the end,
    model.safetensors in `out`. A finished training is not repeated; where only its weights are
    damaged, they are made again from the checkpoint. Raises Interrupted, after
    saving, where the user asked to stop, and GivenUp where the loss is no longer finite or the exam
    gives up.
    """
    weights, screen = out / "model.safetensors", screen or Screen()
    if weights.exists():
        try:
            return load_weights(weights, recipe.net, device)
        except Damaged as error:
            reason = str(error).removesuffix(f": {AGAIN}")
            screen.say(f"{reason}: they are made again, from a checkpoint where there is one")
    out.mkdir(parents=True, exist_ok=True)
    state = begin(recipe, batches, device, student=student, teacher=teacher)
    _run(recipe, batches, out, state, exam, screen)
    module = _graduate(recipe, batches, state, done=recipe.steps)
    save_weights(weights, module)
    return module


def begin(
    recipe: Recipe,
    batches: Batches,
    device: torch.device,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
) -> State:
    """The state before the first step.

    Raises UsageError where the method asks a frozen teacher and none is given.
    """
    module = build(recipe.net, seed=recipe.seed) if student is None else _copy(student)
    freeze(module, recipe.freeze)
    pool_size = 0 if batches.pool is None else len(batches.pool)
    memory = recipe.method.memory(recipe.net.num_classes, pool_size)
    return State(
        _learner(recipe, module.to(device)),
        _teacher(recipe, device, teacher),
        memory={name: tensor.to(device) for name, tensor in memory.items()},
    )


def _teacher(
    recipe: Recipe, device: torch.device, given: nn.Module | None
) -> Learner | Frozen | None:
    """The teacher in the role that the method gives it."""
    role = recipe.method.teacher
    if role == "none":
        return None
    if role == "frozen":
        if given is None:
            raise UsageError(f"{type(recipe.method).__name__} needs a teacher that is trained")
        module = _copy(given).to(device)
        return Frozen(module, precision=recipe.precision, compile=recipe.compile)
    if given is None:
        seed = fold(recipe.seed, Dice.TEACHER, 0)
        given = recipe.method.make_teacher(recipe.net, seed=seed)
    return _learner(recipe, _copy(given).to(device))


def _learner(recipe: Recipe, module: nn.Module) -> Learner:
    """A learner with the recipe's settings."""
    return Learner(
        module,
        recipe.optim,
        precision=recipe.precision,
        batch=recipe.batch,
        compile=recipe.compile,
    )


def _copy(module: nn.Module) -> nn.Module:
    """A copy that can learn; the caller's network stays as it is."""
    return deepcopy(module).requires_grad_(True)


def _run(
    recipe: Recipe, batches: Batches, out: Path, state: State, exam: Exam | None, screen: Screen
) -> None:
    """All steps from the last checkpoint on."""
    total, digest = recipe.steps, recipe.digest()
    first = resume(out / LAST, state, recipe=digest, say=screen.say)
    log = MetricsLog(out / "metrics.jsonl", step=first)
    log_every, exam_every = max(1, total // LOGS), max(1, total // EXAMS)
    meter, wait, saved = Meter(), Wait(), time.monotonic()
    current: Stage | None = None
    with deferred_interrupt() as stop, screen.bar(out.name, total, done=first, unit="steps") as bar:
        for step in range(first, total):
            stage = recipe.stage(step)
            if stage != current:
                current = stage
                enter(stage, state)
            meter.add(
                *_step(recipe, batches, state, recipe.clock(step)),
                (1 + recipe.ratio) * (stage.batch or recipe.batch),
            )
            done = step + 1
            if done % log_every == 0 or done == total:
                line = _line(recipe, meter, done, out)
                warning = wait.add(line["data_share"], time.monotonic() - meter.start)
                if warning:
                    screen.say(warning)
                if exam is not None and (done % exam_every < log_every or done == total):
                    line |= exam(_graduate(recipe, batches, state, done=done), done / total)
                log.write(line)
                meter = Meter()
                _show(bar, line)
            bar.advance()
            late = time.monotonic() - saved > SAVE_SECONDS and done % log_every == 0
            if late or stop.requested or done == total:
                save(out / LAST, state, step=done, recipe=digest)
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(f"stopped at step {done:,} of {total:,} of {out.name}; saved")


def _graduate(recipe: Recipe, batches: Batches, state: State, *, done: int) -> nn.Module:
    """The network to evaluate or keep after `done` steps."""
    module = state.student.graduate()
    if recipe.optim.ema_buffers == "recalibrate":
        steps = range(max(0, done - RECALIBRATED), done)
        images = (batches.labeled_at(step).images for step in steps)
        recalibrate(module, images, precision=recipe.precision)
    return module


def enter(stage: Stage, state: State) -> None:
    """Give the networks that learn the stage's dropout, stochastic depth and DropBlock."""
    rates = stage.network_noise()
    if set(rates.values()) == {None}:
        return
    for learner in (state.student, state.teacher):
        if isinstance(learner, Learner):
            set_noise(learner.module, **rates)


def _step(
    recipe: Recipe, batches: Batches, state: State, clock: Clock
) -> tuple[dict[str, Tensor], float]:
    """One step, whose randomness depends on seed and step alone."""
    start = time.monotonic()
    batch = batches.at(clock.step)
    waited = time.monotonic() - start
    _seed(state.student.device, fold(recipe.seed, Dice.STEP, clock.step))
    return recipe.method.step(state, batch, clock), waited


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generators that dropout draws from.

    Not `torch.manual_seed`: before CUDA is in use that keeps every seed, with a traceback, for
    later, which costs 0.3 ms a step and memory without end.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _line(recipe: Recipe, meter: Meter, done: int, out: Path) -> dict[str, Any]:
    """One line of metrics.jsonl; raises GivenUp where the loss is not finite."""
    line: dict[str, Any] = {"step": done, "total": recipe.steps}
    line |= meter.line()
    if not torch.isfinite(torch.tensor(line["loss"])):
        raise GivenUp(
            f"the loss became {line['loss']} before step {done} of {out}: lower --optim.lr "
            f"(now {recipe.optim.lr}) or set --optim.clip 1"
        )
    return line


def _show(bar: Bar, line: dict[str, Any]) -> None:
    """The last line's numbers beside the bar."""
    note = f"loss {line['loss']:.3f}"
    if "val_accuracy" in line:
        note += f" val {line['val_accuracy']:.1%}"
    note += f" {line['images_per_second']:,.0f} img/s data {line['data_share']:.0%}"
    bar.advance(0, note)
