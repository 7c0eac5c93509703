"""Freed memory stays with the process, on the CPU, unless the user has settings of their own."""

import os
import subprocess
import sys

WORK = """
import resource
from tutelage.learner import choose_device
import torch
choose_device("cpu")
def faults():
    torch.ones(16_000_000).sum()  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
seen = [faults() for _ in range(6)]
print(seen[-1] - seen[2])  # the first ones may still find their place
"""


def pages(**more: str) -> int:
    """Pages that three tensors of 64 MB, one after the other, are given by the system."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    told = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True, env=clean | more
    )
    return int(told.stdout)


GIVEN = """
import torch
from pathlib import Path
from tutelage.heap import give_back_freed_memory
from tutelage.learner import choose_device
choose_device("cpu")
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
some = [torch.ones(16_000_000) for _ in range(4)]  # 256 MB
keep = torch.ones(1000)
del some
before = held()
give_back_freed_memory()
print(before - held())
"""


def test_what_is_kept_is_given_back_where_it_is_asked_for():
    told = subprocess.run([sys.executable, "-c", GIVEN], capture_output=True, text=True, check=True)
    assert int(told.stdout) > 200e6


def test_a_tensor_takes_the_memory_of_the_one_before():
    assert "glibc" in os.confstr("CS_GNU_LIBC_VERSION")
    assert pages() < 1_000
    assert pages(MALLOC_MMAP_THRESHOLD_="131072") > 10_000
    assert pages(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072") > 10_000
