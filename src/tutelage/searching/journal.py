"""trials.jsonl: one line for whatever happened in a search, which several processes write to.

What is known is what the lines say: a process that was killed leaves at most half a line, which the
next one ends. Processes take turns by a lock that the system lets go of with the process.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tutelage.files import as_written, explaining
from tutelage.searching.trials import Cost, Result, Trial
from tutelage.values import from_plain

Event = Literal["suggested", "begun", "measured", "finished", "infeasible", "stopped", "closed"]


@dataclass(frozen=True)
class Span:
    """Seconds since 1970 in which a trial was worked on at a rung; it may have no end yet."""

    trial: int
    rung: int
    begun: float
    ended: float | None = None


@dataclass(frozen=True)
class History:
    """All that is known of a search."""

    trials: tuple[Trial, ...] = ()
    closed: frozenset[int] = frozenset()  # rungs that take no more trials, as their time is over
    costs: dict[tuple[int, int], Cost] = field(default_factory=dict)  # by trial and rung
    spans: tuple[Span, ...] = ()


class Journal:
    """The file, its writers' lock, and what it says."""

    def __init__(self, path: Path) -> None:
        """Use the file, which may not be there yet."""
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing, after waiting for the one that does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write(self, event: Event, **more: Any) -> None:
        """Append a line and see it onto the disk; the caller holds the lock."""
        line = json.dumps(
            {"event": event, "time": round(time.time(), 3), "pid": os.getpid()} | more
        )
        with explaining(self.path), self.path.open("a+b") as file:
            if file.tell() and not _ends_whole(file):
                line = "\n" + line
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def note(self, event: Event, **more: Any) -> None:
        """Append a line, for a caller that doesn't hold the lock."""
        with self.locked():
            self.write(event, **more)

    def read(self) -> History:
        """What all lines come to; torn ones are left out. Raises Damaged where one is none of
        ours."""
        reader = Reader()
        if self.path.exists():
            for text in self.path.read_bytes().splitlines():
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):  # what a killed process left of its last line
                    continue
                with as_written(self.path):
                    reader.add(line)
        return reader.history()


def _ends_whole(file: Any) -> bool:
    """Whether the last line is a whole one."""
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


@dataclass
class Reader:
    """What is known after the lines so far."""

    trials: list[Trial] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    costs: dict[tuple[int, int], Cost] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    def history(self) -> History:
        """As a value."""
        return History(
            tuple(self.trials), frozenset(self.closed), dict(self.costs), tuple(self.spans)
        )

    def add(self, line: dict[str, Any]) -> None:
        """One line more."""
        event: Event = line["event"]
        if event == "suggested":
            self.trials.append(
                Trial(
                    number=len(self.trials),
                    genes=tuple(line["genes"]),
                    network=line["network"],
                    same_as=line["same_as"],
                )
            )
        elif event == "closed":
            self.closed.add(line["rung"])
        elif event == "begun":
            trial = self.trials[line["trial"]]
            self.trials[trial.number] = replace(trial, attempts=trial.attempts + 1)
            self.spans.append(Span(trial.number, line["rung"], line["time"]))
        else:
            self._about_work(event, line)

    def _about_work(self, event: Event, line: dict[str, Any]) -> None:
        """What came of a trial that was begun."""
        trial = replace(self.trials[line["trial"]], attempts=0)
        if event == "measured":
            self.costs[trial.number, line["rung"]] = from_plain(Cost, line["cost"])
        elif event == "finished":
            result = from_plain(Result, line["result"])
            trial = replace(trial, results=(*trial.results, result))
        elif event == "infeasible":
            trial = replace(trial, infeasible=line["reason"])
        self.trials[trial.number] = trial
        for place in reversed(range(len(self.spans))):
            if self.spans[place].trial == trial.number:
                self.spans[place] = replace(self.spans[place], ended=line["time"])
                break
