"""What the leader wants of all processes between two steps: to save, or to stop.

The leader has the clock; any of them may be asked to stop. They tell each other now and then, about
every half second, since an answer takes them through the network.
"""

import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from tutelage.distributed.collectives import rank, world
from tutelage.distributed.words import crew

EVERY = 0.5  # seconds
MOST = 1000  # steps, as coming ones may take longer


@dataclass
class Orders:
    """The same answers in all processes, as they all ask after the same steps."""

    due: int  # the step after which they ask next
    total: int  # steps in all, after which they ask in any case
    asked: float = field(default_factory=time.monotonic)  # when, the last time
    done: int = 0  # steps, the last time

    def after(self, done: int, *, save: bool, stop: bool) -> tuple[bool, bool]:
        """Whether to save and whether to stop after `done` steps, as any process wants it."""
        if world() == 1:
            return save, stop
        if done < self.due:
            return False, False
        asked = crew().asked
        word = torch.tensor([done + self._steps(done), save, stop or asked])
        dist.all_reduce(word, dist.ReduceOp.MAX, crew().group)
        if asked:  # what has come since is for the next time
            crew().asked = False
        self.due, save, stop = min(int(word[0]), self.total), bool(word[1]), bool(word[2])
        return save, stop

    def _steps(self, done: int) -> int:
        """Until the next answer."""
        if rank():
            return 0  # the leader's word is more
        now = time.monotonic()
        each = (now - self.asked) / max(1, done - self.done)
        self.asked, self.done = now, done
        return min(MOST, max(1, int(EVERY / max(each, 1e-6))))
