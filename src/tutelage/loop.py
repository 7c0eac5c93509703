"""The training loop: any method, one step after the other, from the last checkpoint to the end.

Where several processes train together, all of them run it; only the leading one has a desk.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.begin import begin, enter, spread_out
from tutelage.checkpoint import LAST, resume, save
from tutelage.core import Clock, Dice, Stage, fold
from tutelage.data.loader import Batches
from tutelage.distributed.collectives import own_device, rank
from tutelage.distributed.crew import everywhere
from tutelage.distributed.orders import Orders
from tutelage.distributed.words import from_leader
from tutelage.ends import deferred_interrupt
from tutelage.errors import Damaged, GivenUp, Interrupted
from tutelage.evaluation.wise_ft import drawn_back
from tutelage.meter import Meter, of_all_ranks, take_own
from tutelage.methods.method import State
from tutelage.progress import Bar, MetricsLog, Screen, Wait
from tutelage.recalibration import recalibrate
from tutelage.recipe import Recipe
from tutelage.weights import AGAIN, MIDDLE, WEIGHTS, load_weights, save_weights

LOGS = 200  # lines of metrics.jsonl in a training
EXAMS = 10  # looks at the validation images in a training
SAVE_SECONDS = 30.0  # between checkpoints
SAVE_COST = 1.5  # seconds a checkpoint takes; longer ones come in proportion less often
RECALIBRATED = 32  # steps whose labeled images batch-norm statistics are computed from, if asked

# A network in eval mode, and the share of training done -> numbers for the log; may raise GivenUp.
Exam = Callable[[nn.Module, float], dict[str, float]]


@dataclass(frozen=True)
class Work:
    """A training, as all processes that take part in it know it."""

    recipe: Recipe
    batches: Batches
    out: Path  # the folder, in which the leader alone writes
    device: torch.device
    student: nn.Module | None  # to begin with
    teacher: nn.Module | None
    examined: bool  # whether the leader looks at validation images now and then


class Desk:
    """What the leader has beside it: the folder, the person's screen, and the exam."""

    def __init__(self, work: Work, exam: Exam | None, screen: Screen, bar: Bar, step: int) -> None:
        """Sit down after `step` steps."""
        self.work, self.exam, self.screen, self.bar = work, exam, screen, bar
        self.log, self.wait = MetricsLog(work.out / "metrics.jsonl", step=step), Wait()
        self.saved, self.saving = time.monotonic(), 0.0  # when, and how long it took

    def write(self, line: dict[str, Any], seconds: float) -> None:
        """A line of metrics.jsonl, about so many seconds, and beside the bar."""
        warning = self.wait.add(line["data_share"], seconds)
        if warning:
            self.screen.say(warning)
        self.log.write(line)
        note = f"loss {line['loss']:.3f}"
        if "val_accuracy" in line:
            note += f" val {line['val_accuracy']:.1%}"
        note += f" {line['images_per_second']:,.0f} img/s data {line['data_share']:.0%}"
        self.bar.advance(0, note)

    def save(self, state: State, done: int) -> None:
        """A checkpoint."""
        start = time.monotonic()
        save(self.work.out / LAST, state, step=done, recipe=self.work.recipe.digest())
        self.saved = time.monotonic()
        self.saving = self.saved - start

    @property
    def late(self) -> bool:
        """Whether the last checkpoint is too old."""
        pause = SAVE_SECONDS * max(1.0, self.saving / SAVE_COST)
        return time.monotonic() - self.saved > pause


def fit(
    recipe: Recipe,
    batches: Batches,
    out: Path,
    *,
    device: torch.device,
    student: Callable[[], nn.Module | None] = lambda: None,
    teacher: nn.Module | None = None,
    exam: Exam | None = None,
    screen: Screen | None = None,
) -> nn.Module:
    """Train by the recipe, continuing where `out` stopped; returns the network to keep.

    `student`, which is asked where there is something to train, and `teacher` are networks to begin
    with, of which copies are used, but for a teacher that is frozen already; by default the student
    is new, and so is a teacher that learns. Leaves in `out` last.pt, metrics.jsonl and, at the end,
    model.safetensors, and halfway.safetensors where the recipe asks for it. A finished training is
    not repeated; where only its weights are damaged, they are made again from the checkpoint.

    Raises Interrupted, after saving, where the user asked to stop, and GivenUp where the loss is no
    longer finite or the exam gives up.
    """
    weights, screen = out / WEIGHTS, screen or Screen()
    if weights.exists():
        try:
            return load_weights(weights, recipe.net, device)
        except Damaged as error:
            reason = str(error).removesuffix(f": {AGAIN}")
            screen.say(f"{reason}: they are made again, from a checkpoint where there is one")
    out.mkdir(parents=True, exist_ok=True)
    work = Work(recipe, batches, out, device, student(), teacher, exam is not None)
    module = everywhere(train_together, work, own=(exam, screen))
    save_weights(weights, module)
    return module


def train_together(work: Work, own: tuple[Exam | None, Screen] | None) -> nn.Module:
    """All steps of a training, from the last checkpoint on, in each process; the leader has its
    `own` exam and screen."""
    recipe, batches = work.recipe, work.batches
    device = own_device(work.device)
    state = begin(recipe, batches, device, student=work.student, teacher=work.teacher)
    first = 0
    if own is not None:
        first = resume(work.out / LAST, state, recipe=recipe.digest(), say=own[1].say)
        if first:
            own[1].say(f"  {work.out.name} goes on after step {first:,} of {recipe.steps:,}")
    first = spread_out(state, first, recipe, device)
    take_own(state)
    if own is None:
        _run(work, None, state, first)
    else:
        exam, screen = own
        with screen.bar(work.out.name, recipe.steps, done=first, unit="steps") as bar:
            _run(work, Desk(work, exam, screen, bar, first), state, first)
    module = _graduate(work, state, done=recipe.steps)
    del state  # and the room it takes
    return module if own is None else _drawn_back(work, module, own[1])


def _run(work: Work, desk: Desk | None, state: State, first: int) -> None:
    """All steps after the first ones, which are done."""
    recipe, total = work.recipe, work.recipe.steps
    log_every, exam_every = max(1, total // LOGS), max(1, total // EXAMS)
    meter, orders = Meter(), Orders(due=first, total=total)
    current: Stage | None = None
    with deferred_interrupt() as stop:
        for step in range(first, total):
            stage = recipe.stage(step)
            if stage != current:
                current = stage
                enter(stage, state)
            metrics, waited = _step(recipe, work.batches, state, recipe.clock(step))
            images = (1 + recipe.ratio) * (stage.batch or recipe.batch)
            meter.add(state, metrics, data_seconds=waited, images=images)
            done = step + 1
            _keep_middle(work, desk, state, done)
            if done % log_every == 0 or done == total:
                line = _line(work, meter, state, done)
                if work.examined and (done % exam_every < log_every or done == total):
                    line |= _examined(work, desk, state, done)
                if desk is not None:
                    desk.write(line, time.monotonic() - meter.start)
                meter = Meter()
            late = desk is not None and desk.late
            late, stopped = orders.after(done, save=late, stop=stop.requested)
            if desk is not None:
                desk.bar.advance()
            if late or stopped or done == total:
                with of_all_ranks(state):
                    if desk is None:
                        state.state_dict()  # which all put together
                    else:
                        desk.save(state, done)
            if stopped:
                raise Interrupted(
                    f"stopped at step {done:,} of {total:,} of {work.out.name}; saved"
                )


def _keep_middle(work: Work, desk: Desk | None, state: State, done: int) -> None:
    """Let the leader write down the network of the middle, once it is there, if that is asked."""
    if not work.recipe.keep_middle or done != work.recipe.middle:
        return
    module = _graduate(work, state, done=done)
    if desk is not None:
        save_weights(work.out / MIDDLE, module)


def _examined(work: Work, desk: Desk | None, state: State, done: int) -> dict[str, float]:
    """What the leader's exam says of the network after `done` steps; raises GivenUp where it gives
    up, in all processes."""
    module = _graduate(work, state, done=done)
    found: dict[str, float] = {}
    reason = None
    if desk is not None and desk.exam is not None:
        try:
            found = desk.exam(module, done / work.recipe.steps)
        except GivenUp as error:
            reason = str(error)
    reason = from_leader(reason)
    if reason is not None:
        raise GivenUp(reason)
    return found


def _graduate(work: Work, state: State, *, done: int) -> nn.Module:
    """The network to evaluate or keep after `done` steps."""
    module, recipe = state.student.graduate(), work.recipe
    if recipe.optim.ema_buffers == "recalibrate" and rank() == 0:
        images = (work.batches.labeled_at(n) for n in range(max(0, done - RECALIBRATED), done))
        recalibrate(module, images, precision=recipe.precision)
    return module


def _drawn_back(work: Work, module: nn.Module, screen: Screen) -> nn.Module:
    """The trained network, or what WiSE-FT makes of it, as the recipe asks."""
    recipe = work.recipe
    if recipe.wise == 1 or work.student is None:
        return module
    module, words = drawn_back(
        work.student, module, recipe.wise, work.batches.labeled, size=recipe.net.img_size,
        precision=recipe.precision,
    )  # fmt: skip
    screen.say(f"  {work.out.name}: {words}")
    return module


def _step(
    recipe: Recipe, batches: Batches, state: State, clock: Clock
) -> tuple[dict[str, Tensor], float]:
    """One step, whose randomness depends on seed, step and rank alone."""
    start = time.monotonic()
    batch = batches.at(clock.step)
    waited = time.monotonic() - start
    seed = fold(recipe.seed, Dice.STEP, clock.step)
    _seed(state.student.device, fold(seed, Dice.RANK, rank()) if rank() else seed)
    if state.dice is not torch.default_generator:
        state.dice.manual_seed(seed)
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


def _line(work: Work, meter: Meter, state: State, done: int) -> dict[str, Any]:
    """One line of metrics.jsonl; raises GivenUp where the loss is not finite."""
    line: dict[str, Any] = {"step": done, "total": work.recipe.steps}
    line |= meter.line(state)
    if not math.isfinite(line["loss"]):
        raise GivenUp(
            f"the loss became {line['loss']} before step {done} of {work.out}: lower --optim.lr "
            f"(now {work.recipe.optim.lr}) or set --optim.clip 1"
        )
    return line
