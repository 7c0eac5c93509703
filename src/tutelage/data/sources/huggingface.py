"""Data sets of Hugging Face `datasets`: of the hub by hf://OWNER/NAME, or a folder it has saved."""

from hashlib import blake2b
from threading import Lock
from time import monotonic
from typing import Any

from tutelage.data import storage
from tutelage.data.columns import (
    ALIASES,
    Rows,
    broken,
    listing_of,
    pick,
    taken,
    text_of,
    unused_classes,
)
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.storage import HUB
from tutelage.errors import UsageError

SAVED = (  # files of a folder that `save_to_disk` has written
    frozenset({"dataset_dict.json"}),
    frozenset({"dataset_info.json", "state.json"}),
)


FRESH = 1.0  # seconds for which the files of a split, which may be hundreds, are not asked again


class HuggingFace(Source):
    """A data set with a column of images; an image's name is SPLIT/ROW, or ROW without splits."""

    layout = (
        "a data set of Hugging Face with an image column: hf://OWNER/NAME, hf://OWNER/NAME:CONFIG, "
        "or a folder that save_to_disk has written"
    )

    def __init__(self, address: str, *, given: Any = None) -> None:
        """Remember the address, and the data set where a program gave one; nothing is read yet."""
        super().__init__(address)
        self._given = given
        self._lock = Lock()
        self._splits: dict[str, Any] | None = None
        self._column = ""
        self._hollow: set[str] = set()  # splits in which not all images have their bytes
        self._stamps: dict[str, tuple[float, tuple[int, int]]] = {}  # when a split's was asked for

    def __getstate__(self) -> tuple[str, Any]:
        """What it was made of: another process opens the files itself."""
        return self.address, self._given

    def __setstate__(self, state: tuple[str, Any]) -> None:
        """The same source with nothing opened yet."""
        HuggingFace.__init__(self, state[0], given=state[1])

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether it names a data set of the hub, or a saved one."""
        if address.startswith(HUB):
            return _hub_name(address) is not None
        inside = set(storage.names_in(address))
        return any(files <= inside for files in SAVED)

    def listing(self, part: str) -> Listing:
        """Rows of one split after another."""
        splits = self._opened()
        first = next(iter(splits.values()))
        others = [name for name in first.features if name != self._column]
        found: dict[str, str | None] = {"image": self._column}
        found |= {key: pick(key, others) for key in ("split", "group")}
        if part != "pool":
            found["label"] = _label_column(first.features) or pick("label", others)
            if found["label"] is None:
                raise broken(
                    self, f"has the columns {', '.join(others) or '(none)'}, of which none is a "
                    f"label: name it one of {', '.join(ALIASES['label'])}"
                )  # fmt: skip
        names = [
            f"{split}/{row}" if split else str(row)
            for split, rows in splits.items() for row in range(len(rows))
        ]  # fmt: skip
        if not names:
            raise broken(self, "has no rows")
        texts = {key: self._texts(name) for key, name in found.items() if name and key != "image"}
        own = [split for split, rows in splits.items() for _ in range(len(rows))]
        classes = _class_names(first.features, found.get("label"))
        rows = Rows(
            names, texts.get("label"), own if any(own) else texts.get("split"),
            texts.get("group"), classes,
        )  # fmt: skip
        issues = taken(found, part, self) + unused_classes(classes, rows, part, self)
        return listing_of(rows, part, issues)

    def _texts(self, column: str) -> list[str]:
        """A column of all splits as text; numbers of named classes as their names."""
        texts = []
        for split, rows in self._opened().items():
            if column not in rows.features:
                raise broken(self, f"has no column {column!r} in split {split}, as in others")
            classes = _class_names(rows.features, column)
            for value in rows.select_columns([column])[:][column]:
                if not classes or value is None:
                    texts.append(text_of(value))
                elif int(value) < len(classes):
                    texts.append(classes[int(value)] if int(value) >= 0 else "")
                else:
                    raise broken(
                        self, f"has label {value}, where 0 to {len(classes) - 1} are named"
                    )
        return texts

    def _opened(self) -> dict[str, Any]:
        """The data sets by split, with images as they are stored; "" for one without splits."""
        with self._lock:
            if self._splits is None:
                import_datasets(self.address)
                from datasets import Dataset, Image

                loaded = self._loaded()
                splits = {"": loaded} if isinstance(loaded, Dataset) else dict(loaded)
                if not splits:
                    raise broken(self, "has no splits")
                self._column = self._image_column(next(iter(splits.values())).features)
                splits = {
                    name: rows.with_format(None).cast_column(self._column, Image(decode=False))
                    for name, rows in splits.items()
                }
                self._hollow = {n for n, rows in splits.items() if _lacks_bytes(rows, self._column)}
                self._splits = splits
            return self._splits

    def _loaded(self) -> Any:
        """What `datasets` has at the address."""
        from datasets import load_dataset, load_from_disk

        if self._given is not None:
            return self._given
        name = _hub_name(self.address)
        try:
            if name is None:
                return load_from_disk(self.address)
            return load_dataset(*name)
        except Exception as error:  # the hub, the net, scripts and files each have their own
            why = str(error).split("\n")[0] or type(error).__name__
            if name is None:
                raise broken(self, f"can't be opened: {why}") from error
            raise UsageError(
                f"{self.address} can't be loaded: {why}; expected is {self.layout}"
            ) from error

    def _image_column(self, features: Any) -> str:
        """The column of images; raises DataProblem where there is none."""
        from datasets import Image

        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        if not images:
            raise broken(self, f"has the columns {', '.join(features)}, of which none holds images")
        return pick("image", images) or images[0]

    def read(self, name: str) -> Raw:
        """The image's bytes; raises OSError where there is none."""
        split, _, row = name.rpartition("/")
        try:
            value = self._opened()[split][int(row)][self._column]
        except (KeyError, IndexError, ValueError) as error:
            raise OSError(f"{self.where(name)}: there is no such image") from error
        if value and value["bytes"]:
            data: bytes = value["bytes"]
            return data
        if not value or not value["path"]:
            raise OSError(f"{self.where(name)} is empty")
        return storage.read_bytes(value["path"])

    def where(self, name: str) -> str:
        """The data set, split and row."""
        return f"{self.address.rstrip('/')}/{name}"

    def stamp(self, name: str) -> tuple[int, int]:
        """Bytes and newest time of the files that hold the split, with those of an image that lies
        outside; of the hub's, rows and version,
        as the files are a cache that may be made again."""
        split = name.rpartition("/")[0]
        try:
            rows = self._opened()[split]
        except KeyError as error:
            raise FileNotFoundError(f"{self.where(name)} is gone") from error
        if self.address.startswith(HUB):
            version = blake2b(rows._fingerprint.encode(), digest_size=7).digest()
            return len(rows), int.from_bytes(version, "big")
        size, time = self._stamp_of_files(split, rows)
        outside = self._outside(name)
        own = (0, 0) if outside is None else storage.stamp(outside)
        return size + own[0], max(time, own[1])

    def _stamp_of_files(self, split: str, rows: Any) -> tuple[int, int]:
        """Bytes and newest time of the files that hold a split, as they were up to a second ago."""
        asked, stamp = self._stamps.get(split, (float("-inf"), (0, 0)))
        if monotonic() - asked > FRESH:
            asked = monotonic()
            stamps = [storage.stamp(file["filename"]) for file in rows.cache_files]
            stamp = sum(size for size, _ in stamps), max((time for _, time in stamps), default=0)
            self._stamps[split] = asked, stamp
        return stamp

    def holders(self, name: str) -> tuple[str, ...]:
        """The split, whose files are one to whoever asks; and an image that lies outside."""
        outside = self._outside(name)
        own = f"{self.address.rstrip('/')}/{name.rpartition('/')[0]}"
        return (own,) if outside is None else (own, outside)

    def _outside(self, name: str) -> str | None:
        """The path of an image of which the data set knows no more; None where it has its bytes."""
        split, _, row = name.rpartition("/")
        rows = self._opened().get(split)
        if self.address.startswith(HUB) or split not in self._hollow or rows is None:
            return None
        try:
            value = rows[int(row)][self._column]
        except (IndexError, ValueError):  # it is another data set than it was
            return None
        return value["path"] or None if value and not value["bytes"] else None


def import_datasets(address: str) -> None:
    """Raises UsageError where the package is missing."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{address} is read by Hugging Face's datasets: pip install 'tutelage[hf]'"
        ) from error


def _lacks_bytes(rows: Any, column: str) -> bool:
    """Whether some images are paths alone."""
    stored = rows.data.column(column)
    return any(chunk.field("bytes").null_count for chunk in stored.chunks)


def _hub_name(address: str) -> tuple[str, ...] | None:
    """hf://OWNER/NAME:CONFIG -> (OWNER/NAME, CONFIG); None for a file of the hub."""
    if not address.startswith(HUB):
        return None
    name, _, config = address.removeprefix(HUB).strip("/").partition(":")
    if not 1 <= len(name.split("/")) <= 2 or not name:
        return None
    return (name, config) if config else (name,)


def _label_column(features: Any) -> str | None:
    """The one column of named classes, where there is just one."""
    from datasets import ClassLabel

    named = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    return named[0] if len(named) == 1 else pick("label", named)


def _class_names(features: Any, column: str | None) -> tuple[str, ...]:
    """Names of a column's classes, where it has any."""
    from datasets import ClassLabel

    feature = features.get(column)
    return tuple(map(str, feature.names)) if isinstance(feature, ClassLabel) else ()
