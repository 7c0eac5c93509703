"""Tar shards as WebDataset writes them: members of one name, up to its first dot, are a sample.

An image is read from its place in the tar by its offset, so shards are never unpacked or run
through. The convention is that of the WebDataset library (Aizman et al. 2020, arXiv 2001.01858):
0001.jpg, 0001.cls, 0001.json.
"""

import posixpath
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data import sample_labels, storage
from tutelage.data.decode import SUFFIXES
from tutelage.data.issues import Issue
from tutelage.data.places import Places
from tutelage.data.shard_names import common_folder, find_shards, means_shards, splits_of
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.sources.folder import is_hidden, is_writable_name
from tutelage.data.splits import SplitName
from tutelage.data.tar_index import TarIndex, read_index
from tutelage.errors import DataProblem

REMEMBERED = 2**25  # images whose places are remembered for reading one by one, in 0.8 GB


@dataclass(frozen=True)
class ShardImages:
    """The images of a shard, in its order, and what is odd about them."""

    members: tuple[str, ...]  # names within the shard
    offsets: NDArray[np.int64]  # bytes
    sizes: NDArray[np.int64]  # bytes
    labels: tuple[str, ...]  # as written beside the images; "": none, or not asked for
    odd: tuple[tuple[str, str, str], ...]  # kind, member, detail of images that are left out
    notes: Counter[str]  # what was passed over, and how often


class WebDataset(Source):
    """Tar shards: a folder of them, one, a brace pattern, or a glob."""

    layout = (
        "tar shards in the WebDataset way: a folder of .tar files or 'pool-{0000..0999}.tar', with "
        "0001.jpg and, for labels, 0001.cls or 0001.json beside it"
    )

    def __init__(self, address: str) -> None:
        """Remember the address; raises nothing before shards are asked for."""
        super().__init__(address)
        self._found: tuple[str, ...] | None = None  # shards, in order
        self._known: frozenset[str] = frozenset()  # the same
        self._of_pool: tuple[str, ...] | None = None
        self._root = ""
        self._places: OrderedDict[str, Places] = OrderedDict()
        self._held = 0  # images in them
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}  # by shard, while its headers are read

    def __getstate__(self) -> dict[str, Any]:
        """Without the locks and what is remembered."""
        return {"address": self.address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin anew with the address."""
        WebDataset.__init__(self, state["address"])

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether it names tars, or is a folder that holds tars and nothing else."""
        return means_shards(address)

    def shards(self) -> tuple[str, ...]:
        """Names of the shards, below the folder that holds all of them.

        Raises UsageError where there are none, or some of a pattern are missing.
        """
        with self._lock:
            if self._found is None:
                found = find_shards(self.address)
                self._root = common_folder(found)
                start = f"{self._root}/" if self._root else ""
                self._found = tuple(address.removeprefix(start) for address in found)
                self._known = frozenset(self._found)
            return self._found

    @property
    def root(self) -> str:
        """The folder that holds all shards."""
        self.shards()
        return self._root

    def splits_of_shards(self) -> tuple[SplitName, ...] | None:
        """The split of each shard, where they are of several."""
        return splits_of(self.shards())

    def pool_shards(self) -> tuple[str, ...]:
        """The shards that a pool is made of, which are asked for with each image."""
        if self._of_pool is None:
            self._of_pool = super().pool_shards()
        return self._of_pool

    def images_in(self, shard: str, *, labels: bool = False) -> ShardImages:
        """A shard's images and where they lie; nothing is remembered.

        Raises DataProblem, naming the shard, where it is damaged, and OSError where it is gone.
        """
        wanted = sample_labels.is_label if labels else (lambda name: False)
        return shard_images(read_index(storage.join(self.root, shard), wanted))

    def names_in(self, shard: str) -> tuple[str, ...]:
        """Names of a shard's images, in its order."""
        images = self.images_in(shard)
        self._remember(shard, images)
        return tuple(f"{shard}/{member}" for member in images.members)

    def listing(self, part: str) -> Listing:
        """All images of all shards; labels are read where the part is not the pool."""
        names: list[str] = []
        labels: list[str] = []
        splits: list[str] = []
        issues: list[Issue] = []
        by_split = self.splits_of_shards()
        for number, shard in enumerate(self.shards()):
            try:
                images = self.images_in(shard, labels=part != "pool")
            except DataProblem as problem:
                where = storage.join(self.root, shard)
                issues.append(Issue("fatal", "damaged shard", part, where, str(problem)))
                continue
            self._remember(shard, images)
            names += [f"{shard}/{member}" for member in images.members]
            labels += images.labels
            if by_split is not None:
                splits += [by_split[number]] * len(images.members)
            issues += self._issues(shard, images, part)
        if not names:
            detail = f"the tars of {self.address} hold no images; tutelage expects {self.layout}"
            issues.append(Issue("fatal", "no images", part, self.address, detail))
        if len(names) > REMEMBERED:
            detail = (
                f"{self.address} has {len(names):,} images, and the places of {REMEMBERED:,} are "
                "remembered: reading others begins with a shard's headers each time, which takes "
                "long; train from shards with --labels (docs/streaming.md)"
            )
            issues.append(Issue("note", "many images", part, self.address, detail))
        if part == "pool":
            return Listing(tuple(names), splits=tuple(splits) or None, issues=tuple(issues))
        classes, labels, more = sample_labels.classes_of(self.root, names, labels, part)
        return Listing(
            tuple(names), tuple(labels), tuple(splits) or None, classes=classes,
            issues=(*issues, *more),
        )  # fmt: skip

    def _issues(self, shard: str, images: ShardImages, part: str) -> list[Issue]:
        """What a shard's images tell as rows for a person."""
        place = storage.join(self.root, shard)
        shown = [(kind, member.encode("utf-8", "backslashreplace").decode(), detail)
                 for kind, member, detail in images.odd]  # fmt: skip
        return [
            Issue("dropped", kind, part, f"{place}/{member}", detail)
            for kind, member, detail in shown
        ] + [
            Issue("note", "other files", part, place, f"{count:,} {words}")
            for words, count in images.notes.items()
        ]

    def read(self, name: str) -> Raw:
        """The image's bytes, by one positioned read; raises OSError where it is gone."""
        shard, member = self._split(name)
        try:
            place = self._places_in(shard).get(member)
        except DataProblem as problem:
            raise OSError(str(problem)) from problem
        if place is None:
            raise FileNotFoundError(f"{storage.join(self.root, shard)} has no member {member}")
        return storage.read_range(storage.join(self.root, shard), *place)

    def where(self, name: str) -> str:
        """The shard's path or address with the member's name behind it."""
        return storage.join(self.root, name)

    def stamp(self, name: str) -> tuple[int, int]:
        """Bytes and time of change of the shard."""
        return storage.stamp(storage.join(self.root, self._split(name)[0]))

    def holders(self, name: str) -> tuple[str, ...]:
        """The shard."""
        try:
            return (storage.join(self.root, self._split(name)[0]),)
        except FileNotFoundError:
            return (self.where(name),)

    def _split(self, name: str) -> tuple[str, str]:
        """A name's shard and member; raises FileNotFoundError where there is no such shard."""
        self.shards()
        end = name.lower().find(".tar/")
        while end >= 0:
            if name[: end + 4] in self._known:
                return name[: end + 4], name[end + 5 :]
            end = name.lower().find(".tar/", end + 1)
        raise FileNotFoundError(f"{name} lies in no shard of {self.address}")

    def _places_in(self, shard: str) -> Places:
        """Where a shard's images lie; one thread reads the headers, and others wait.

        Raises as `images_in`.
        """
        with self._lock:
            opening = self._opening.setdefault(shard, threading.Lock())
        with opening:
            with self._lock:
                if shard in self._places:
                    self._places.move_to_end(shard)
                    return self._places[shard]
            return self._remember(shard, self.images_in(shard))

    def _remember(self, shard: str, images: ShardImages) -> Places:
        """What a shard's headers say; the shards that were asked for longest ago are forgotten."""
        places = Places(images.members, images.offsets, images.sizes)
        with self._lock:
            before = self._places.pop(shard, None)
            self._held += len(places) - (0 if before is None else len(before))
            self._places[shard] = places
            while self._held > REMEMBERED and len(self._places) > 1:
                self._held -= len(self._places.popitem(last=False)[1])
        return places


def shard_images(index: TarIndex) -> ShardImages:
    """The images among a shard's members, each with the label of its sample.

    Of a name that is there twice the last counts, as when a tar is unpacked. Where a sample has an
    image 0001.jpg, others of it, such as 0001.mask.png, are no rows of their own.
    """
    notes: Counter[str] = Counter()
    odd: list[tuple[str, str, str]] = []
    kept: dict[str, int] = {}
    whole = set()  # samples with an image KEY.jpg
    for row, name in enumerate(index.names):
        plain = name.removeprefix("./")
        if any(is_hidden(piece) for piece in plain.split("/")):
            notes["hidden members are passed over"] += 1
        elif posixpath.splitext(plain)[1].lower() not in SUFFIXES:
            if not sample_labels.is_label(plain):
                notes["members are no images by their suffix"] += 1
        elif not is_writable_name(plain):
            odd.append(("file name", plain, "the name is not UTF-8: rename the file"))
        else:
            if plain in kept:
                odd.append(("twice in a shard", plain, "the last member of that name is used"))
                del kept[plain]
            kept[plain] = row
            key, kind = sample_labels.sample_of(plain)
            if "." not in kind:
                whole.add(key)
    for plain in list(kept):
        key, kind = sample_labels.sample_of(plain)
        if "." in kind and key in whole:
            notes["further images of samples are passed over"] += 1
            del kept[plain]
    rows = np.fromiter(kept.values(), np.int64, len(kept))
    labels, broken = sample_labels.labels_of(list(kept), index.contents)
    return ShardImages(
        tuple(kept), index.offsets[rows], index.sizes[rows], labels, (*odd, *broken), notes
    )
