"""Processes of a command, as Linux tells them in /proc."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # a second, in /proc


def tree(root: int) -> set[int]:
    """The process, all below it, and all of its session, as far as they live."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if state not in "ZX":
            parents[pid := int(path.parent.name)] = int(parent)
            found += [pid] if root in (pid, int(session)) else []
    for one in found:
        found += [
            child for child, parent in parents.items() if parent == one and child not in found
        ]
    return set(found)


def used(pids: set[int]) -> float:
    """Processor time in seconds of those of the processes that live."""
    ticks = 0
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        ticks += int(words[11]) + int(words[12])
    return ticks / TICKS
