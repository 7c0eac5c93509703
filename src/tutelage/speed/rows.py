"""What raw times come to: median, 95th percentile, spread, and whether they can be relied on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tutelage.speed.counts import Counts
from tutelage.speed.timing import Protocol, Searched, Timed

SPREAD = 0.05  # interquartile range over median, from where on times are unreliable
OTHERS = 0.05  # share of the cores that other processes used, likewise


@dataclass(frozen=True)
class Latency:
    """Times of one model at one batch."""

    p50: float  # seconds
    p95: float
    quartiles: tuple[float, float]
    passes: int

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        return (self.quartiles[1] - self.quartiles[0]) / self.p50


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one backend: what the table shows of it."""

    name: str
    counts: Counts
    file_bytes: int  # of the weights, or of the exported network
    one: Timed  # at batch 1
    many: Timed | None = None  # at the batch with the most images a second
    searched: Searched | None = None
    notes: tuple[str, ...] = ()  # such as how exactly an exported network answers alike

    @property
    def failure(self) -> str:
        """Why there are no times; empty where there are."""
        return self.one.failure

    @property
    def latency(self) -> Latency | None:
        """Of a single image."""
        return None if self.failure else latency(self.one.seconds)

    @property
    def images_per_second(self) -> float | None:
        """At the batch that has the most."""
        if self.many is None or self.many.failure:
            return None
        return self.many.batch / latency(self.many.seconds).p50

    @property
    def memory(self) -> tuple[int, str]:
        """Bytes for a single image, and how that is known."""
        if self.one.peak_bytes is not None:
            return self.one.peak_bytes, "measured"
        if self.counts.activation_bytes is None:
            return self.counts.weight_bytes, "weights alone"
        return self.counts.weight_bytes + self.counts.activation_bytes, "estimated"

    def unreliable(self, cores: int, protocol: Protocol) -> list[str]:
        """Why the times are not to be relied on; empty where they are."""
        kinds = {"latency": self.one, "throughput": self.many}
        taken = {kind: one for kind, one in kinds.items() if one is not None and not one.failure}
        spreads, few = [], []
        for kind, timed in taken.items():
            times = latency(timed.seconds)
            if times.spread > SPREAD:
                spreads.append(f"{100 * times.spread:.0f} % in {kind}")
            if times.passes < protocol.passes:
                few.append(f"time for {times.passes} passes alone in {kind}")
        found = [f"spread of {' and '.join(spreads)}"] if spreads else []
        load = max((timed.load for timed in taken.values()), default=0.0)
        if load > OTHERS * cores:
            found.append(f"other processes used {load:.1f} of {cores} core{'s'[: cores != 1]}")
        return found + few

    def plain(self, cores: int, protocol: Protocol) -> dict[str, Any]:
        """As JSON has it, with the raw times in seconds."""
        one, many = self.latency, self.images_per_second
        memory, how = self.memory
        return {
            "name": self.name,
            "failure": self.failure,
            "latency": None if one is None else asdict(one) | {"spread": one.spread},
            "images_per_second": many,
            "batch": self.many.batch if self.many is not None and many is not None else None,
            "throughput_failure": self.many.failure if self.many is not None else "",
            "search": None if self.searched is None else asdict(self.searched),
            **asdict(self.counts),
            "file_bytes": self.file_bytes,
            "memory_bytes": memory,
            "memory_is": how,
            "unreliable": self.unreliable(cores, protocol),
            "notes": list(self.notes),
            "samples": {
                kind: [round(value, 7) for value in timed.seconds]
                for kind, timed in (("latency", self.one), ("throughput", self.many))
                if timed is not None
            },
        }  # fmt: skip


def latency(seconds: Sequence[float]) -> Latency:
    """Percentiles of raw times, interpolated linearly."""
    low, middle, high, late = np.percentile(np.asarray(seconds), [25, 50, 75, 95]).tolist()
    return Latency(middle, late, (low, high), len(seconds))
