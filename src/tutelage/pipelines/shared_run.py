"""A run folder in which several processes work at a time, and one alone begins and ends.

The folder's lock is held for oneself while the run is prepared and while it is concluded, and
shared with others in between; the system lets go of both when a process ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tutelage.files import made_folder
from tutelage.progress import Screen
from tutelage.run import Run, content_of, move_aside, noted, remember_environment

PREPARED = "plan"  # the stage that ends the preparation


class SharedRun:
    """A run folder's lock, and what its run.json says."""

    def __init__(self, file: IO[str], verb: str, settings: Any, given: Mapping[str, Any]) -> None:
        """Hold the open lock file; nothing is locked yet."""
        self.file, self.verb, self.settings, self.given = file, verb, settings, given

    @contextmanager
    def preparing(self, screen: Screen) -> Iterator[Run]:
        """The run to be prepared, by this process alone, or as another one has prepared it;
        afterwards it is shared with whoever else works in it.

        Raises what `content_of` raises, before it waits where that is known already.
        """
        alone = joins = False
        while not alone:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                self._read(busy=True)
                if not joins:
                    screen.say(f"joining {self._owner()} in {self.settings.out}")
                joins = True
                fcntl.flock(self.file, fcntl.LOCK_SH)
                if self._read().is_done(PREPARED):
                    break  # else who began it is gone before it was prepared
        run = self._read()
        if alone:
            self._sign()
            remember_environment(run.path)
            with noted(run):
                yield run
        else:
            yield run
        fcntl.flock(self.file, fcntl.LOCK_SH)

    @contextmanager
    def alone(self) -> Iterator[Run]:
        """The run for this process alone, after all others have left it; then it is done."""
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self._sign()
        run = self._read()
        with noted(run):
            yield run
        run.content["state"] = "done"
        run.save()

    def _read(self, *, busy: bool = False) -> Run:
        path: Path = self.settings.out
        return Run(path, content_of(path, self.verb, self.settings, busy=busy), self.given)

    def _sign(self) -> None:
        self.file.truncate(0)
        self.file.write(f"pid {os.getpid()}")
        self.file.flush()

    def _owner(self) -> str:
        self.file.seek(0)
        return f"process {self.file.read().strip().removeprefix('pid ') or 'unknown'}"


@contextmanager
def open_shared(
    verb: str, settings: Any, *, overwrite: bool, given: Mapping[str, Any]
) -> Iterator[SharedRun]:
    """The run folder `settings.out`, new or continued.

    Raises UsageError where it can't be made, RunMismatch where an old run that is to be moved
    aside is in use.
    """
    path: Path = settings.out
    if overwrite and path.exists():
        move_aside(path)
    made_folder(path)
    with (path / ".lock").open("a+") as file:
        yield SharedRun(file, verb, settings, given)
