"""A pool in tar shards, drawn batch by batch without a list of its images.

Batch t is a function of (seed, t), so there is nothing to save. An epoch's order: the shards in a
random order, laid end to end, each image as often as its copies. Lanes share that layout evenly,
so that each reads shards of its own, and a lane reads in windows, each of which is shuffled. A
batch takes as many images from each lane. What is held is one number a shard, and for each lane
the places and labels of a few windows.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core import Dice, generator
from tutelage.data.entries import Entries, EntryPixels, ShardedPool, joined
from tutelage.data.label_parts import ids_of
from tutelage.data.pixels import own_threads
from tutelage.data.pool import StoredTargets
from tutelage.data.sets import Drawn
from tutelage.data.shard_labels import Parts
from tutelage.distributed.collectives import own_device, part_of
from tutelage.errors import DataProblem

LANES = 8  # whatever the number of processes, so that the batches are the same for any
WINDOW = 16_384  # entries of a lane that are shuffled together
KEPT = 2  # windows of a lane beside those of a draw: the next, and the last, as draws may overlap
PREPARING = 2  # threads that look up the next windows
CHANGED = (
    "the shard has changed since it was labeled; put it back, or delete that part, label the pool "
    "again, which makes what is missing, and select anew"
)
EPOCHS_KEPT = 3  # orders of shards; lanes end their epochs a step apart


def lanes_for(counts: Iterable[int], entries: int) -> int:
    """The most lanes that divide every batch's pool images, none of them empty."""
    common = math.gcd(*counts)
    return max(n for n in range(1, LANES + 1) if common % n == 0 and n <= max(1, entries))


def _shares(own: slice, each: int) -> Iterator[tuple[int, range]]:
    """Lanes that some of a draw's images are of, and which of a lane's `each` images they are."""
    for lane in range(own.start // each, math.ceil(own.stop / each)):
        first = lane * each
        yield lane, range(max(own.start - first, 0), min(own.stop - first, each))


class StreamedPool:
    """Draws from a pool in shards; processes that train together read what is theirs."""

    in_memory = False

    def __init__(
        self, pool: ShardedPool, *, canvas: int, device: torch.device, lanes: int = LANES,
        window: int = WINDOW,
    ) -> None:  # fmt: skip
        """Nothing is read yet."""
        self.pool, self.canvas, self.device = pool, canvas, device
        self.lanes, self.window = lanes, window
        self.total = int(pool.entries.sum())
        self.shards = pool.source.pool_shards()
        self._decoders = ThreadPoolExecutor(own_threads())
        self._preparers = ThreadPoolExecutor(PREPARING)
        self._ready: dict[int, OrderedDict[tuple[int, int, int], Future[Entries]]] = {}
        self._orders: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        """What it is made of: another process reads for itself, to its own device."""
        return _opened, (self.pool, self.canvas, self.device, self.lanes, self.window)

    def __len__(self) -> int:
        """Number of images in all shards."""
        return self.pool.num_images

    def draw(self, start: int, count: int, *, seed: int) -> Drawn:
        """This process's share of `count` pool images after `start` earlier ones.

        Raises DataProblem where labels and shard are not of one another.
        """
        entries = self.entries(start, count, seed=seed)
        everyone = torch.arange(len(entries.rows))
        pool = self.pool
        targets = StoredTargets(
            torch.from_numpy(entries.top_classes), torch.from_numpy(entries.top_probs).float(),
            len(pool.numbers), soft=pool.soft, temperature=pool.temperature,
        )  # fmt: skip
        return Drawn(
            torch.from_numpy(entries.rows),
            EntryPixels(
                pool, entries, canvas=self.canvas, device=self.device, threads=self._decoders
            ),
            everyone,
            targets.at(everyone),
        )

    def entries(self, start: int, count: int, *, seed: int) -> Entries:
        """This process's entries of a draw, of one lane after the other, not decoded."""
        assert count % self.lanes == 0, "lanes_for"
        assert start % self.lanes == 0, "lanes_for"
        each, own = count // self.lanes, part_of(count)
        with self._lock:
            return joined(
                [
                    self._of_lane(lane, start // self.lanes + rows.start, len(rows), seed)
                    for lane, rows in _shares(own, each)
                ]
            )

    def _of_lane(self, lane: int, position: int, count: int, seed: int) -> Entries:
        """`count` entries of a lane after `position` earlier ones, over all epochs."""
        _, length = self._range(lane)
        found, used = [], []
        while count:
            epoch, inside = divmod(position, length)
            number, first = divmod(inside, self.window)
            stop = min(self.window, length - number * self.window, first + count)
            used.append((seed, epoch, number))
            found.append(self._prepared(lane, used[-1]).at(slice(first, stop)))
            position, count = position + stop - first, count - (stop - first)
        seed, epoch, number = used[-1]
        last = (number + 1) * self.window >= length  # of the epoch
        following = (seed, epoch + 1, 0) if last else (seed, epoch, number + 1)
        self._prepare(lane, following)
        ready = self._ready[lane]
        while len(ready) > len(used) + KEPT:
            ready.popitem(last=False)[1].cancel()
        return joined(found)

    def _range(self, lane: int) -> tuple[int, int]:
        """Where a lane begins in an epoch's layout, and its length."""
        start = lane * self.total // self.lanes
        return start, (lane + 1) * self.total // self.lanes - start

    def _prepared(self, lane: int, key: tuple[int, int, int]) -> Entries:
        """A lane's window, which was prepared before where batches are asked for in turn."""
        self._prepare(lane, key)
        return self._ready[lane][key].result()

    def _prepare(self, lane: int, key: tuple[int, int, int]) -> None:
        """Let a thread look up a window."""
        ready = self._ready.setdefault(lane, OrderedDict())
        if key in ready:
            ready.move_to_end(key)
        else:
            seed, epoch, _ = key
            ready[key] = self._preparers.submit(self._made, lane, key, self._order(seed, epoch))

    def _order(self, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in an epoch's order, and where each ends in the layout."""
        if (seed, epoch) not in self._orders:
            dice = generator(seed, Dice.POOL_ORDER, epoch)
            order = torch.randperm(len(self.shards), generator=dice).numpy()
            self._orders[seed, epoch] = order, self.pool.entries[order].cumsum()
            while len(self._orders) > EPOCHS_KEPT:
                del self._orders[next(iter(self._orders))]
        return self._orders[seed, epoch]

    def _made(
        self, lane: int, key: tuple[int, int, int],
        layout: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> Entries:  # fmt: skip
        """A window from its shards' headers and labels, shuffled."""
        seed, epoch, number = key
        (order, ends), (start, length) = layout, self._range(lane)
        first = start + number * self.window
        stop = start + min((number + 1) * self.window, length)
        pieces = []
        for place in range(
            int(np.searchsorted(ends, first, "right")),
            int(np.searchsorted(ends, stop - 1, "right")) + 1,
        ):
            shard = int(order[place])
            begin = int(ends[place] - self.pool.entries[shard])
            if ends[place] > begin:
                pieces.append(self._piece(shard, slice(max(0, first - begin), stop - begin)))
        windows = -(-self.total // self.window) + 1  # more than a lane has
        use = (epoch * self.lanes + lane) * windows + number
        dice = generator(seed, Dice.POOL_WINDOW, use)
        return joined(pieces).at(torch.randperm(stop - first, generator=dice).numpy())

    def _piece(self, shard: int, wanted: slice) -> Entries:
        """Some entries of a shard, in its order; raises DataProblem where its labels don't fit."""
        pool, name = self.pool, self.shards[shard]
        labels = pool.parts.read(shard, name)
        images = pool.source.images_in(name)
        _check_aligned(pool.parts, shard, name, labels.names, images.members)
        if labels.checksum != pool.sums[shard]:
            raise DataProblem(
                f"the labels or the selection of {name} have changed since the run began: put them "
                "back, or start a new run"
            )
        rows = np.repeat(np.arange(len(labels.copies)), labels.copies)[wanted]
        return Entries(
            np.full(len(rows), shard, np.int32), images.offsets[rows], images.sizes[rows],
            ids_of(shard, rows), pool.numbers[labels.top_classes[rows]], labels.top_probs[rows],
        )  # fmt: skip


def _check_aligned(
    parts: Parts, number: int, shard: str, labeled: list[str], members: tuple[str, ...]
) -> None:
    """Raises DataProblem where a part's rows are not the shard's images."""
    if len(labeled) != len(members):
        raise DataProblem(
            f"{parts.part(number)} has {len(labeled):,} rows and shard {shard} has "
            f"{len(members):,} images: {CHANGED}"
        )
    for row, (name, member) in enumerate(zip(labeled, members, strict=True)):
        if name != f"{shard}/{member}":
            raise DataProblem(
                f"row {row} of {parts.part(number)} is {name}, and shard {shard} has {member} "
                f"there: {CHANGED}"
            )


def _opened(
    pool: ShardedPool, canvas: int, device: torch.device, lanes: int, window: int
) -> StreamedPool:
    """The same pool in another process."""
    return StreamedPool(pool, canvas=canvas, device=own_device(device), lanes=lanes, window=window)
