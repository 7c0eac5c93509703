"""Folders of image files, here or at any address: one folder a class, or a pool at any depth."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tutelage.data import storage
from tutelage.data.decode import SUFFIXES
from tutelage.data.issues import Issue
from tutelage.data.source import Listing, Raw, Source
from tutelage.data.splits import split_name
from tutelage.errors import UsageError


class Folder(Source):
    """ROOT/<class>/**/image, ROOT/<split>/<class>/**/image, or for a pool ROOT/**/image."""

    layout = "a folder with one folder a class: DATA/cat/1.jpg, DATA/dog/2.jpg"

    def __init__(self, address: str) -> None:
        """Remember the address; nothing is read yet."""
        super().__init__(address)
        self._stamps: dict[str, tuple[int, int]] | None = None  # of a folder that is not here

    @classmethod
    def claims(cls, address: str) -> bool:
        """Whether it is a folder that has no other meaning."""
        return storage.is_folder(address)

    def listing(self, part: str) -> Listing:
        """Images by name, their folders as classes, and what is odd about the layout."""
        exists(self.address)
        files, issues = _image_names(self.address, part)
        inside = storage.names_in(self.address)
        folders = [name for name in inside if storage.is_folder(storage.join(self.address, name))]
        issues += [_hidden(self.address, f, part) for f in folders if is_hidden(f)]
        folders = [name for name in folders if not is_hidden(name)]
        issues += _unwritable(self.address, folders, part)
        folders = [name for name in folders if is_writable_name(name)]
        splits = [name for name in folders if split_name(name)]
        if len(splits) < len(folders) and not _are_splits(splits):
            splits = []  # classes, of which one is named train or test
        if part == "pool":
            return self._pool(files, issues, splits=bool(splits))
        if splits:
            issues += _beside(self.address, splits, folders, part)
            return self._with_splits(splits, files, issues, part)
        issues += _loose(self.address, files, folders, part)
        names, labels = _by_class(folders, files, "")
        issues += _layout(self.address, folders, part, labels)
        return Listing(names, labels, classes=tuple(folders), issues=tuple(issues))

    def _pool(self, files: list[str], issues: list[Issue], *, splits: bool) -> Listing:
        """Every image below the root, sorted by name; labels are never read."""
        if not files:
            kinds = ", ".join(sorted(SUFFIXES)[:6])
            issues.append(
                Issue("fatal", "empty pool", "pool", self.address,
                      f"{self.address} has no images ({kinds}, …) at any depth: give the pool's "
                      "folder")
            )  # fmt: skip
        tops = tuple(name.split("/")[0] for name in files) if splits else None
        return Listing(tuple(files), splits=tops, issues=tuple(issues))

    def _with_splits(
        self, folders: list[str], files: list[str], issues: list[Issue], part: str
    ) -> Listing:
        """ROOT/<split>/<class>: the rows of all splits."""
        names: list[str] = []
        labels: list[str] = []
        splits: list[str] = []
        for split in folders:
            root = storage.join(self.address, split)
            classes = [
                name for name in storage.names_in(root)
                if storage.is_folder(storage.join(root, name)) and not is_hidden(name)
            ]  # fmt: skip
            issues += _unwritable(root, classes, part)
            classes = [name for name in classes if is_writable_name(name)]
            issues += _loose(root, [f.removeprefix(f"{split}/") for f in files
                                    if f.startswith(f"{split}/")], classes, part)  # fmt: skip
            found, its = _by_class(classes, files, f"{split}/")
            issues += _layout(root, classes, part, its)
            names += found
            labels += its
            splits += [split] * len(found)
        return Listing(tuple(names), tuple(labels), tuple(splits), issues=tuple(issues))

    def read(self, name: str) -> Raw:
        """The file's bytes."""
        return storage.read_bytes(self.where(name))

    def where(self, name: str) -> str:
        """The file's path or address."""
        return storage.join(self.address, name)

    def stamp(self, name: str) -> tuple[int, int]:
        """The file's bytes and time of change; elsewhere all are asked for at once."""
        if storage.is_local(self.address):
            return storage.stamp(self.where(name))
        if self._stamps is None:
            entries = storage.entries_below(self.address)
            self._stamps = {entry.name: entry.stamp for entry in entries}
        try:
            return self._stamps[name]
        except KeyError as error:
            raise FileNotFoundError(f"{self.where(name)} is gone") from error


def exists(root: str) -> None:
    """Raises UsageError, with the nearest name beside it, where the folder is missing."""
    if storage.is_folder(root):
        return
    if storage.is_file(root):
        raise UsageError(f"{root} is a file: give a folder of images")
    raise UsageError(f"there is no folder {root}{storage.nearby(root)}")


def images_below(folder: Path) -> Iterator[Path]:
    """Image files at any depth, by their suffix; hidden names are passed over."""
    return (path for path in _files_below(folder) if path.suffix.lower() in SUFFIXES)


def _files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth but hidden ones; raises OSError for a folder that can't be read.

    Links to folders are followed, each real folder once, but for those that lead back up: the
    folders beside this one belong to other classes or parts.
    """
    seen = {str(parent) for parent in folder.resolve().parents}
    for where, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable_folder):
        real = os.path.realpath(where)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(where, name) for name in files if not is_hidden(name))


def _unreadable_folder(error: OSError) -> None:
    raise error


def _names_below(root: str, *, pool: bool) -> Iterator[str]:
    """Names of all files that are not hidden, relative to the root."""
    if not storage.is_local(root):
        for entry in storage.entries_below(root):
            if not any(is_hidden(piece) for piece in entry.name.split("/")):
                yield entry.name
        return
    top = Path(root)
    if pool:
        yield from (path.relative_to(top).as_posix() for path in _files_below(top))
        return
    for inside in sorted(top.iterdir()):  # each class folder follows its links on its own
        if is_hidden(inside.name):
            continue
        if inside.is_dir():
            yield from (path.relative_to(top).as_posix() for path in _files_below(inside))
        else:
            yield inside.name


def _image_names(root: str, part: str) -> tuple[list[str], list[Issue]]:
    """Images below a folder by name, and what was passed over."""
    images, issues = [], []
    others: dict[str, int] = defaultdict(int)
    for name in _names_below(root, pool=part == "pool"):
        if PurePosixPath(name).suffix.lower() not in SUFFIXES:
            top, inside, _ = name.partition("/")
            if inside or part == "pool":
                others[top if inside and part != "pool" else ""] += 1
        elif is_writable_name(name):
            images.append(name)
        else:
            shown = _shown(storage.join(root, name))
            issues.append(Issue("dropped", "file name", part, shown, why_unwritable(name)))
    for top, count in others.items():
        where = _shown(storage.join(root, top)) if top else root
        detail = f"{count} files below {where} are no images by their suffix"
        if count == 1:
            detail = f"1 file below {where} is no image by its suffix"
        issues.append(Issue("note", "other files", part, where, detail))
    return sorted(images), issues


def is_writable_name(name: str) -> bool:
    """Whether tables and CSV files, which are UTF-8, can hold the name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def why_unwritable(name: str) -> str:
    """What is wrong with a name that tables can't hold, and what to do."""
    try:
        os.fsencode(name).decode()
    except UnicodeError:
        return "the name is not UTF-8: rename the file or folder"
    return (
        f"the name is UTF-8, and Python reads names as {sys.getfilesystemencoding()} here: set "
        "PYTHONUTF8=1"
    )


def _shown(name: str) -> str:
    """The name as tables can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Whether a person would not count this as data: .git, .ipynb_checkpoints, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def _by_class(
    folders: Iterable[str], files: Iterable[str], prefix: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Images of each class folder in turn, with the folder's name."""
    of: dict[str, list[str]] = {folder: [] for folder in folders}
    for name in files:
        if name.startswith(prefix):
            folder, inside, _ = name.removeprefix(prefix).partition("/")
            if inside:
                of[folder].append(name)
    names = tuple(name for inside in of.values() for name in inside)
    return names, tuple(folder for folder, inside in of.items() for _ in inside)


def _unwritable(root: str, folders: list[str], part: str) -> list[Issue]:
    """Class folders whose names no table could hold; of a pool, its images are left out alone."""
    odd = [name for name in folders if not is_writable_name(name)] if part != "pool" else []
    return [
        Issue("fatal", "file name", part, folder, f"class folder {folder}: {why_unwritable(name)}")
        for name in odd
        for folder in [_shown(storage.join(root, name))]
    ]


def _are_splits(names: list[str]) -> bool:
    """Whether the names can be no classes: there is something to train on and to judge on."""
    meant = {split_name(name) for name in names}
    return "train" in meant and len(meant) > 1


def _beside(root: str, splits: list[str], folders: list[str], part: str) -> list[Issue]:
    """Folders beside those of splits, which are neither splits nor classes."""
    others = [name for name in folders if name not in splits]
    if not others:
        return []
    detail = (
        f"{root} has the splits {', '.join(splits)}, and beside them {', '.join(others[:5])}"
        f"{', …' * (len(others) > 5)}: move what is no split out, or give the folders one by one, "
        f"as --data {storage.join(root, splits[0])}"
    )
    return [Issue("fatal", "unknown split", part, root, detail)]


def _hidden(root: str, name: str, part: str) -> Issue:
    folder = _shown(storage.join(root, name))
    return Issue("note", "hidden folder", part, folder, f"hidden folder {folder} is ignored")


def _loose(root: str, files: list[str], folders: list[str], part: str) -> list[Issue]:
    """Images beside the class folders."""
    loose = [name for name in files if "/" not in name]
    if not loose or not folders:
        return []
    detail = f"{len(loose)} images beside the class folders are ignored"
    return [Issue("note", "loose images", part, storage.join(root, loose[0]), detail)]


def _layout(root: str, folders: list[str], part: str, labels: tuple[str, ...]) -> list[Issue]:
    """What is wrong with the class folders as such."""
    if not folders:
        detail = (
            f"{root} has no class folders: put each class's images in a folder with the class's "
            "name"
        )
        if part == "labeled":
            detail += "; or are --data and --unlabeled swapped?"
        return [Issue("fatal", "no classes", part, root, detail)]
    found = set(labels)
    empty = [storage.join(root, name) for name in folders if name not in found]
    return [
        Issue("fatal", "empty class", part, folder,
              f"class folder {folder} has no images: add some, or remove the folder")
        for folder in empty
    ]  # fmt: skip
