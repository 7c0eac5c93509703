"""How much decoded images may take, in main memory and on a device."""

import errno
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import torch

from tutelage.distributed.collectives import neighbors
from tutelage.errors import Exhausted
from tutelage.heap import give_back_freed_memory
from tutelage.training_settings import num_bytes

MOST = 4 * 2**30  # bytes, where the user names none
SHARE = 0.5  # of what is free now: networks, batches and other programs need the rest
LARGEST = 2**30  # bytes that decoding any image may take, as decode.py has it
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CGROUPS = (  # of versions 2 and 1: the limit, what is used, and how totals are called
    ("memory.max", "memory.current", ""),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_"),
)


@dataclass
class Memory:
    """Bytes that all sets of a run share."""

    limit: int
    used: int = 0
    lock: Lock = field(default_factory=Lock)

    def __reduce__(self) -> tuple[type["Memory"], tuple[int]]:
        """The limit: another process counts for itself."""
        return Memory, (self.limit,)

    def take(self, size: int) -> bool:
        """Whether so many more bytes fit; they are counted if so."""
        with self.lock:
            if self.used + size > self.limit:
                return False
            self.used += size
            return True

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        with self.lock:
            self.used -= size


def memory_for(asked: str) -> Memory:
    """What the setting allows; auto: half of what is free now, at most 4 GiB. Processes that train
    together on a machine share it."""
    limit = min(MOST, int(SHARE * available())) if asked == "auto" else num_bytes(asked)
    return Memory(limit // neighbors())


def available() -> int:
    """Bytes of main memory that are free now; half of all where the system doesn't tell."""
    free = free_bytes()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if free is None else free


def free_bytes() -> int | None:
    """Bytes of main memory that are free now, and free to this container, as Linux says it."""
    give_back_freed_memory()
    told = [_free_of_machine(), *(_free_of_container(*names) for names in CGROUPS)]
    return min((free for free in told if free is not None), default=None)


def _free_of_container(limit: str, used: str, total: str) -> int | None:
    """What its limit leaves; files that were read and lie in memory make room for others: with
    images on disk they soon fill it."""
    if not (CGROUP / limit).exists() or not (CGROUP / used).exists():
        return None
    most = (CGROUP / limit).read_text().strip()
    if not most.isdigit():  # no limit
        return None
    stat = CGROUP / Path(limit).with_name("memory.stat")
    counts = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
    read = sum(int(counts.get(f"{total}{kind}_file", 0)) for kind in ("inactive", "active"))
    return max(0, int(most) - int((CGROUP / used).read_text()) + read)


def _free_of_machine() -> int | None:
    """Without what other programs hold."""
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def exhausted(where: str, error: BaseException) -> Exhausted | None:
    """What to raise where this machine is to blame for an error while an image or table was read,
    and not the file; None where it isn't. A damaged file may ask for any amount of memory."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Exhausted(
            f"{where} could not be opened: {error.strerror}; raise the limit (ulimit -n), and run "
            "the same command again"
        )
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not no_memory and not isinstance(error, MemoryError) and "memory" not in str(error).lower():
        return None
    if not no_memory and _has_room(LARGEST):
        return None
    return Exhausted(
        f"{where} could not be read for lack of memory: end other programs, or give a training "
        "less --memory, and run the same command again"
    )


def _has_room(size: int) -> bool:
    """Whether this process could have so many bytes more; they are not touched."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError):
        return False
    return True


def fits_on(device: torch.device, size: int) -> bool:
    """Whether a device has room for so many bytes beside networks; other devices than CUDA share
    the main memory, which is counted elsewhere."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size <= SHARE * free


def said(size: float) -> str:
    """Bytes as 37 MB or 2.1 GB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
