"""Notice that a process is gone without a word: who began this one, or another machine.

A process that ends closes its connections, and whoever waits for it knows at once. One on a machine
that lost its power or its network closes nothing: the others would wait for half an hour. So where
there are several machines each process counts up an entry of the shared store, and one that sees
the leader's count stand still, or the leader that sees another's, ends.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch.distributed as dist

from tutelage.distributed.collectives import neighbors, rank, world
from tutelage.distributed.launcher import LAUNCHER, is_own_launch, is_restartable
from tutelage.errors import Interrupted

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

LOOK = 0.5  # seconds between looks
BEAT = 2.0  # seconds between counts
SILENCE = "TUTELAGE_SILENCE"  # another patience, in seconds
USUAL_SILENCE = 120.0


def patience() -> float:
    """Seconds without a sign after which another machine counts as lost."""
    return float(os.environ.get(SILENCE, USUAL_SILENCE))


@dataclass
class Watch:
    """Threads that look on while the process works."""

    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def of_parent(self) -> Iterator[None]:
        """Ask the leader to stop when who began it dies; the others end when they lose it."""
        parent = int(os.environ.get(LAUNCHER, os.getppid()))
        if (is_own_launch() or is_restartable()) and rank() == 0:
            threading.Thread(target=self._look_at, args=(parent,), daemon=True).start()
        try:
            yield
        finally:
            self.over.set()

    def _look_at(self, parent: int) -> None:
        while os.getppid() == parent:
            if self.over.wait(LOOK):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def of_others(self, store: "Store") -> Iterator[None]:
        """End this process when another machine falls silent."""
        if neighbors() < world():
            others = range(1, world()) if rank() == 0 else (0,)
            heard = {other: time.monotonic() for other in others}
            line = store.clone()  # as this one may wait long for an answer
            for target in (self._beat, self._listen):
                threading.Thread(target=target, args=(heard, line), daemon=True).start()
        try:
            yield
        finally:
            self.over.set()

    def _beat(self, heard: dict[int, float], store: "Store") -> None:
        """Count up, and note whose counts have moved; may hang where the store is away."""
        count, counts = 0, dict.fromkeys(heard, "")
        while not self.over.wait(BEAT):
            count += 1
            try:
                store.set(f"tutelage/count/{rank()}", str(count))
                for other in heard:
                    key = f"tutelage/count/{other}"
                    found = store.get(key).decode() if store.check([key]) else ""
                    if found != counts[other]:
                        counts[other], heard[other] = found, time.monotonic()
            except dist.DistError:
                continue  # its silence will tell

    def _listen(self, heard: dict[int, float], store: "Store") -> None:
        """End where one has been silent for too long: what it was asked to do never returns."""
        while not self.over.wait(LOOK):
            for other, when in heard.items():
                if time.monotonic() - when > patience():
                    print(
                        f"process {rank()} of {world()} has not heard from process {other} for "
                        f"{patience():.0f} seconds, whose machine or network may be down: what was "
                        "saved last is kept, and the same command goes on",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
                    os._exit(Interrupted.exit_code)
