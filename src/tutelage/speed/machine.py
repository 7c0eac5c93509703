"""What the machine is, and what else it was doing."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "tutelage", "torch", "timm", "numpy", "pillow", "pyarrow", "onnx", "onnxruntime", "onnxscript",
)  # fmt: skip
STAT, CPUINFO = Path("/proc/stat"), Path("/proc/cpuinfo")


class Load:
    """CPU time of other processes since it was made, on the cores that this one may use."""

    def __init__(self) -> None:
        """Begin to count."""
        self.cores = available_cores()
        self.begun, self.busy, self.own = time.monotonic(), _busy(self.cores), _own()

    def others(self) -> float:
        """Cores that others kept busy on average; where the system doesn't count, its load average
        without this process."""
        seconds = max(time.monotonic() - self.begun, 1e-3)
        mine = (_own() - self.own) / seconds
        busy = _busy(self.cores)
        if busy is None or self.busy is None:
            return max(0.0, os.getloadavg()[0] - mine)
        return max(0.0, (busy - self.busy) / seconds - mine)


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if platform.system() == "Linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy(cores: list[int]) -> float | None:
    """Seconds that these cores have worked since the machine started, where Linux counts them."""
    if not STAT.exists():
        return None
    wanted, ticks, total = {f"cpu{core}" for core in cores}, os.sysconf("SC_CLK_TCK"), 0.0
    for line in STAT.read_text().splitlines():
        name, *counts = line.split()
        if name in wanted:  # user, nice, system, -, -, irq, softirq, steal
            total += sum(int(counts[place]) for place in (0, 1, 2, 5, 6, 7) if place < len(counts))
    return total / ticks


def _own() -> float:
    """CPU seconds of this process."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def processor() -> str:
    """The CPU's name."""
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(threads: int) -> dict[str, Any]:
    """Everything about machine and packages that times and results depend on."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": len(available_cores()),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: has for name in PACKAGES if (has := _version(name))},
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["tf32"] = {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def _version(package: str) -> str | None:
    """A package's version, where it is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
