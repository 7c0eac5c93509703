"""What a person sees while waiting, and metrics.jsonl for plots afterwards."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from tutelage.files import as_written, explaining, write_text
from tutelage.values import visible

MUCH = 0.3  # share of a training's time that waiting for images may take without a word
WORTH_SECONDS = 20.0  # of waiting in all, below which it is not worth one either
QUIET_SECONDS = 15.0  # between lines where the output is a file and not a terminal


class Screen:
    """Lines and one live bar on stderr; plain lines now and then where it is no terminal."""

    def __init__(self, console: Console | None = None, *, log: Path | None = None) -> None:
        """Use the console, or a new one on stderr; lines also go to the log file, with the time."""
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.log = log
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        text = visible(text)
        self.console.print(text, markup=False)
        self._write(text)

    def result(self, text: str) -> None:
        """A line of the outcome, on standard output."""
        text = visible(text)
        print(text, flush=True)
        self._write(text)

    def _write(self, text: str) -> None:
        if self.log is None:
            return
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        with explaining(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(f"{now}  {text}\n")

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0, unit: str = "images") -> Iterator["Bar"]:
        """A bar for `total` units of work, with the time that is left."""
        if not self.console.is_terminal:
            yield Bar(self, name, total, done, unit, None, None)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=6),  # all fits into 80 columns
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=total, completed=done, note="")
            yield Bar(self, name, total, done, unit, progress, task)


class Bar:
    """Progress of one piece of work."""

    def __init__(
        self,
        screen: Screen,
        name: str,
        total: int,
        done: int,
        unit: str,
        progress: Progress | None,
        task: TaskID | None,
    ) -> None:
        """Start counting."""
        self.screen, self.name, self.total, self.done, self.unit = screen, name, total, done, unit
        self.progress, self.task = progress, task
        self.note = ""
        self.first, self.start, self.spoke = done, time.monotonic(), time.monotonic()

    def extend(self, amount: int) -> None:
        """So much more is to be done."""
        self.total += amount
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, total=self.total)

    def advance(self, amount: int = 1, note: str | None = None) -> None:
        """So much more is done; the note stands beside the bar."""
        self.done += amount
        self.note = note or self.note
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=self.done)
            if note is not None:
                self.progress.update(self.task, note=note)
            return
        now = time.monotonic()
        if now - self.spoke >= QUIET_SECONDS and self.done < self.total:
            self.spoke = now
            left = (now - self.start) / max(1, self.done - self.first) * (self.total - self.done)
            counts = f"{self.done:,}/{self.total:,} {self.unit}"
            self.screen.say(f"{self.name}  {counts}  {self.note}  {duration(left)} left")


def duration(seconds: float) -> str:
    """Seconds as 42s, 3m05s or 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Wait:
    """How long a training waited for its images; said once where that is much."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.waited, self.seconds, self.spoke = 0.0, 0.0, False

    def add(self, share: float, seconds: float) -> str | None:
        """Count a stretch of training; the warning, where it is time for it."""
        self.waited += share * seconds
        self.seconds += seconds
        if self.spoke or self.waited < WORTH_SECONDS or self.waited <= MUCH * self.seconds:
            return None
        self.spoke = True
        return (
            f"training waits for images, {self.waited / self.seconds:.0%} of the time: give more "
            "--memory, keep the files on a local disk at little more than the training's size, or "
            "use more cores"
        )


def waited(path: Path) -> float:
    """Share of a training's seconds that it waited for images, by its metrics.jsonl."""
    with as_written(path):
        return _waited(read_metrics(path))


def _waited(lines: list[dict[str, Any]]) -> float:
    """Share of the seconds in lines of metrics."""
    before = [0.0, *(line["seconds"] for line in lines)]
    spans = [line["seconds"] - start for line, start in zip(lines, before, strict=False)]
    parts = [line["data_share"] * span for line, span in zip(lines, spans, strict=True)]
    return sum(parts) / max(sum(spans), 1e-9)


class MetricsLog:
    """metrics.jsonl: one line for each logged step; a resumed run continues it."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Keep the lines up to `step` and drop what a killed run wrote after its checkpoint."""
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.before = kept[-1]["seconds"] if kept else 0.0
        self.start = time.monotonic()

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; the seconds count over all starts."""
        line = {**line, "seconds": round(self.before + time.monotonic() - self.start, 2)}
        with explaining(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl up to a damaged one, such as a last line torn by a kill."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        if not isinstance(line.get("seconds", 0.0), int | float):
            break
        lines.append(line)
    return lines
