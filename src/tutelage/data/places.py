"""Where the images of a shard lie, by name: 24 bytes an image, whatever its name's length."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Place = tuple[int, int]  # offset and size in bytes


class Places:
    """Offset and size by name. Names are known by their 64-bit hashes alone; where two of a shard
    have the same one, which is seen at once, the names themselves are kept."""

    def __init__(
        self, names: Sequence[str], offsets: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        """Of images that are in no order."""
        hashes = np.fromiter(_hashes(names), np.int64, len(names))
        order = np.argsort(hashes)
        self._hashes, self._offsets, self._sizes = hashes[order], offsets[order], sizes[order]
        self._by_name: dict[str, Place] | None = None
        if (self._hashes[1:] == self._hashes[:-1]).any():
            where = zip(offsets.tolist(), sizes.tolist(), strict=True)
            self._by_name = dict(zip(names, where, strict=True))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._hashes)

    def get(self, name: str) -> Place | None:
        """An image's place; None where there is no such image."""
        if self._by_name is not None:
            return self._by_name.get(name)
        (wanted,) = _hashes([name])
        row = int(np.searchsorted(self._hashes, wanted))
        if row == len(self._hashes) or self._hashes[row] != wanted:
            return None
        return int(self._offsets[row]), int(self._sizes[row])


def _hashes(names: Iterable[str]) -> Iterable[int]:
    """Python's own, which differ from process to process, so that no names can be made to clash."""
    return map(hash, names)
