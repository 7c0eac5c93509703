"""Arrays of images in files: npz, and CIFAR-10, CIFAR-100 and MNIST as they are published."""

from threading import Lock

from tutelage.data import storage
from tutelage.data.array_files import Block, Published, kind_at, read_published
from tutelage.data.columns import Rows, broken, listing_of, unused_classes
from tutelage.data.source import Listing, Raw, Source
from tutelage.errors import DataProblem, UsageError


class Arrays(Source):
    """A file or folder that is read whole; an image's name is its file or split, and its row."""

    layout = (
        "an .npz file with images and labels (or x_train, y_train, x_test, y_test), or the folder "
        "of CIFAR-10, CIFAR-100 or MNIST files as published"
    )

    def __init__(self, address: str) -> None:
        """Remember the address; nothing is read yet."""
        super().__init__(address)
        self._lock = Lock()
        self._published: Published | None = None
        self._blocks: dict[str, Block] = {}

    def __getstate__(self) -> str:
        """The address alone: another process reads the files itself."""
        return self.address

    def __setstate__(self, address: str) -> None:
        """The same source with nothing read yet."""
        Arrays.__init__(self, address)

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether the files are named as those that are known."""
        return kind_at(address) is not None

    def _content(self) -> Published:
        """The arrays, read once; raises DataProblem where they are not as published."""
        with self._lock:
            if self._published is None:
                if kind_at(self.address) is None:
                    raise UsageError(f"there is nothing at {self.address} of {self.layout}")
                try:
                    self._published = read_published(self.address)
                except DataProblem as error:
                    raise broken(self, str(error)) from error
                except FileNotFoundError:
                    raise
                except OSError as error:
                    raise broken(self, f"can't be read: {error}") from error
                for block in self._published.blocks:
                    self._blocks[block.file or block.split] = block
            return self._published

    def listing(self, part: str) -> Listing:
        """All images of all files, with the official splits."""
        content = self._content()
        names, labels, splits = [], list[str](), list[str]()
        for key, block in self._blocks.items():
            count = len(block.images)
            names += [f"{key}/{row}" if key else str(row) for row in range(count)]
            labels += block.labels or ("",) * count
            splits += [block.split] * count
        if not names:
            raise broken(self, "has no images")
        if part != "pool" and not any(labels):
            raise broken(self, "has images without labels")
        rows = Rows(names, labels, splits, classes=content.classes)
        return listing_of(rows, part, unused_classes(content.classes, rows, part, self))

    def read(self, name: str) -> Raw:
        """Pixels (H, W[, 3])."""
        key, _, row = name.rpartition("/")
        if self._published is None:
            self._content()
        try:
            return self._blocks[key].images[int(row)]
        except (KeyError, IndexError, ValueError) as error:
            raise OSError(f"{self.where(name)}: there is no such image") from error

    def where(self, name: str) -> str:
        """The file, and the row in it."""
        return f"{self.address.rstrip('/')}/{name}"

    def stamp(self, name: str) -> tuple[int, int]:
        """The file's bytes and time of change."""
        return storage.stamp(*self.holders(name))

    def holders(self, name: str) -> tuple[str, ...]:
        """The file's path or address."""
        if self.address.lower().endswith(".npz"):
            return (self.address,)
        return (storage.join(self.address, name.rpartition("/")[0]),)
