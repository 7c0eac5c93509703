"""A source's images in batches, decoded by a few threads before they are asked for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.decode import decode
from tutelage.data.label_parts import Portion
from tutelage.data.memory import exhausted
from tutelage.data.source import Source
from tutelage.labeling.answers import Batch, Problem

CHUNK = 16  # images a thread takes at once: one by one, handing them over takes the time


class Fetcher:
    """Begins to decode a batch, to be waited for later; an unreadable image is black, and said."""

    def __init__(self, source: Source, canvas: int, *, threads: int, pinned: bool = False) -> None:
        """Images of a source at a square canvas; pinned memory where a GPU is to have them."""
        self.source, self.canvas, self.pinned = source, canvas, pinned
        self.threads = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """End the threads, without what nobody waits for."""
        self.threads.shutdown(cancel_futures=True)

    def __call__(self, portion: Portion, rows: Tensor) -> Callable[[], Batch]:
        """Begin with the rows of a portion; the result waits for their images (B, 3, C, C)."""
        side = self.canvas
        images = torch.empty(len(rows), side, side, 3, dtype=torch.uint8, pin_memory=self.pinned)
        first, pixels = int(rows[0]) if len(rows) else 0, images.numpy()
        begun: list[Future[list[Problem]]] = [
            self.threads.submit(
                self._decode, portion.names, first + at, pixels[at : at + CHUNK]
            )
            for at in range(0, len(rows), CHUNK)
        ]  # fmt: skip

        def wait() -> Batch:
            problems = [problem for future in begun for problem in future.result()]
            return images.permute(0, 3, 1, 2), problems

        return wait

    def _decode(
        self, names: tuple[str, ...], first: int, pixels: NDArray[np.uint8]
    ) -> list[Problem]:
        """Fill pixels (M, C, C, 3) from row `first` on; raises Exhausted where memory or open files
        are lacking."""
        problems = []
        for row, place in enumerate(pixels, first):
            try:
                place[:] = decode(self.source.read(names[row]), self.canvas)
            except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, …
                lacking = exhausted(self.source.where(names[row]), error)
                if lacking is not None:
                    raise lacking from error
                place[:] = 0
                problems.append((row, f"{type(error).__name__}: {error}"))
        return problems
