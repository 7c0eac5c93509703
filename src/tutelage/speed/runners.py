"""What is timed: a network that answers a batch, by PyTorch on a device or by ONNX Runtime."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UsageError
from tutelage.frozen import answer

SEED = 0  # of the images that are timed


class Runner(ABC):
    """One model on one backend."""

    precision = "fp32"

    @abstractmethod
    def load(self, batch: int) -> None:
        """Put a batch of that many images where the network reads it; not timed."""

    @abstractmethod
    def run(self) -> None:
        """Answer the batch; the device may still be at it afterwards."""

    @abstractmethod
    def wait(self) -> None:
        """Return once the device is done."""

    @abstractmethod
    def peak_bytes(self) -> int | None:
        """Most memory held on the device since `load`, where it can be measured."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""


class Eager(Runner):
    """PyTorch, channels last in float32, as `evaluate` and `predict` ask."""

    def __init__(self, module: nn.Module, size: int, device: torch.device) -> None:
        """Take the network to the device; `size` is the side of its images in pixels."""
        self.device, self.size = device, size
        place: Any = {"device": device, "memory_format": torch.channels_last}
        self.module = module.eval().requires_grad_(False).to(**place)
        self.images: Tensor | None = None
        self.others = 0  # bytes on the device that are not this network's

    def load(self, batch: int) -> None:
        """Random images in [0, 1], on the device."""
        self.images = None  # before the next ones are made, that both needn't fit
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        images = random_images(batch, self.size)
        self.images = images.to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            held = [*self.module.parameters(), *self.module.buffers(), self.images]
            own = sum(tensor.nbytes for tensor in held)
            self.others = torch.cuda.memory_allocated(self.device) - own

    def run(self) -> None:
        """One forward pass."""
        assert self.images is not None, "loaded before"
        with torch.inference_mode():
            answer(self.module, self.images, self.precision)

    def wait(self) -> None:
        """Synchronize where the device works by itself."""
        wait_for(self.device)

    def peak_bytes(self) -> int | None:
        """As CUDA's allocator counts: weights, images, and what a pass needs at most."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) - self.others

    def close(self) -> None:
        """Free the images and the device's cache."""
        self.images = None
        if self.device.type == "cuda":
            self.module.to("cpu")
            torch.cuda.empty_cache()


class Onnx(Runner):
    """ONNX Runtime on the CPU, with one session for all batches."""

    def __init__(self, file: Path, size: int, threads: int) -> None:
        """Open the exported network; raises UsageError where ONNX Runtime is missing."""
        self.size = size
        self.session = open_session(file, threads)
        self.images: dict[str, Any] = {}

    def load(self, batch: int) -> None:
        """Random images in [0, 1]."""
        self.images = {}
        self.images = {self.session.get_inputs()[0].name: random_images(batch, self.size).numpy()}

    def run(self) -> None:
        """One forward pass, which is done when the call returns."""
        self.session.run(None, self.images)

    def wait(self) -> None:
        """Nothing is under way."""

    def peak_bytes(self) -> int | None:
        """ONNX Runtime doesn't tell."""
        return None

    def close(self) -> None:
        """Free the images."""
        self.images = {}


def random_images(batch: int, size: int) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], always the same."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.rand(batch, 3, size, size, generator=generator)


def wait_for(device: torch.device) -> None:
    """Return once the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def open_session(file: Path, threads: int) -> Any:
    """An ONNX Runtime session on that many CPU threads.

    Raises UsageError where ONNX Runtime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(missing_onnx(error)) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors; what it optimizes is nobody's concern
    return onnxruntime.InferenceSession(
        str(file), sess_options=options, providers=["CPUExecutionProvider"]
    )


def missing_onnx(error: ImportError) -> str:
    """What to do where a package for ONNX is missing."""
    return f"ONNX needs {error.name or 'a package'} too: pip install 'tutelage[onnx]'"
