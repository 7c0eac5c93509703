"""Words between the processes of a command: whatever Python has, from the leader or between two.

They are pickled, over connections of torch.distributed, on which whoever can reach its ports is
trusted: as everywhere with torch, such a network has to be one's own.
"""

import io
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from mmap import mmap
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tutelage.distributed.collectives import rank, world

T = TypeVar("T")

WAIT = timedelta(days=30)  # for the leader's next word, while it works alone


@dataclass
class Crew:
    """The processes of this command, seen from one of them."""

    group: Any  # of torch.distributed, for words: on the CPU, and patient
    busy: bool = False  # whether they are at work together, so that words would not be heard
    asked: bool = False  # whether this process, one of the others, was asked to stop
    result: Any = None  # what the others are to return in the end

    def tell(self, word: Any) -> None:
        """To all others, who wait for it."""
        data = _packed(word)
        dist.broadcast(torch.tensor(len(data)), 0, self.group)
        dist.broadcast(data, 0, self.group)

    def hear(self) -> Any:
        """The leader's word."""
        size = torch.tensor(0)
        dist.broadcast(size, 0, self.group)
        memory = mmap(-1, int(size))
        dist.broadcast(_bytes(memory), 0, self.group)
        return _unpacked(memory)

    def send(self, word: Any, other: int) -> None:
        """To one other, who waits for it."""
        data = _packed(word)
        dist.send(torch.tensor(len(data)), other, self.group)
        dist.send(data, other, self.group)

    def receive(self, other: int) -> Any:
        """The word of that one."""
        size = torch.tensor(0)
        dist.recv(size, other, self.group)
        memory = mmap(-1, int(size))
        dist.recv(_bytes(memory), other, self.group)
        return _unpacked(memory)


def _packed(word: Any) -> Tensor:
    """A word as bytes."""
    file = io.BytesIO()
    torch.save(word, file)
    return _bytes(file.getbuffer())


def _bytes(memory: memoryview | mmap) -> Tensor:
    """What lies there, without a copy."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def _unpacked(memory: mmap) -> Any:
    """The word in the memory, on the CPU; as torch can read that like a file, there is no other
    copy of a word, which may be all of a training."""
    file: Any = memory  # which has all of a file that torch asks for
    return torch.load(file, map_location="cpu", weights_only=False)


@cache
def crew() -> Crew:
    """This command's; made by all processes at once."""
    return Crew(dist.new_group(backend="gloo", timeout=WAIT))


def from_leader(word: T) -> T:
    """The leader's word, which all processes ask for at once; alone, what was given."""
    if world() == 1:
        return word
    if rank() == 0:
        crew().tell(word)
        return word
    found: T = crew().hear()
    return found


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process is not there any more."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in words or "nccl" in words)
    )
