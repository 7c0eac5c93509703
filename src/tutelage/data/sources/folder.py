"""Folders of image files: one folder a class, or a pool at any depth."""

import os
from collections.abc import Iterator
from pathlib import Path

from tutelage.data.decode import SUFFIXES
from tutelage.data.issues import Issue
from tutelage.data.source import Images
from tutelage.errors import UsageError
from tutelage.values import nearest

SPLITS = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing"])


def labeled_folder(root: Path, part: str) -> tuple[Images, list[Issue]]:
    """ROOT/<class>/**/image -> images with labels, and what is odd about the layout.

    Raises UsageError where there is no such folder.
    """
    exists(root)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    issues = [_hidden(folder, part) for folder in folders if is_hidden(folder.name)]
    folders = [folder for folder in folders if not is_hidden(folder.name)]
    issues += _layout(root, folders, part)
    names, labels = [], []
    for label, folder in enumerate(folders):
        found, odd = _sorted_images(folder, part)
        issues += odd
        if not found:
            issues.append(
                Issue("fatal", "empty class", part, str(folder),
                      f"class folder {folder} has no images: add some, or remove the folder")
            )  # fmt: skip
        names += [path.relative_to(root).as_posix() for path in found]
        labels += [label] * len(found)
    classes = tuple(folder.name for folder in folders)
    return Images(root, tuple(names), tuple(labels), classes), issues


def pool_folder(root: Path) -> tuple[Images, list[Issue]]:
    """Every image below ROOT, sorted by name; labels are never read.

    Raises UsageError where there is no such folder.
    """
    exists(root)
    found, issues = _sorted_images(root, "pool")
    names = [path.relative_to(root).as_posix() for path in found]
    issues += [
        _hidden(e, "pool") for e in sorted(root.iterdir()) if e.is_dir() and is_hidden(e.name)
    ]
    if not names:
        kinds = ", ".join(sorted(SUFFIXES)[:6])
        issues.append(
            Issue("fatal", "empty pool", "pool", str(root),
                  f"{root} has no images ({kinds}, …) at any depth: give the pool's folder")
        )  # fmt: skip
    return Images(root, tuple(names)), issues


def exists(root: Path) -> None:
    """Raises UsageError, with the nearest name beside it, where the folder is missing."""
    if root.is_dir():
        return
    if root.exists():
        raise UsageError(f"{root} is a file: give a folder of images")
    beside = root.parent
    known = [entry.name for entry in beside.iterdir()] if beside.is_dir() else []
    raise UsageError(f"there is no folder {root}{nearest(root.name, known)}")


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


def _sorted_images(folder: Path, part: str) -> tuple[list[Path], list[Issue]]:
    """Images below a folder by name, and what was passed over."""
    images, others, issues = [], [], []
    for path in _files_below(folder):
        if path.suffix.lower() not in SUFFIXES:
            others.append(path)
        elif is_writable_name(str(path)):
            images.append(path)
        else:
            shown = str(path).encode("utf-8", "backslashreplace").decode()
            detail = "the name is not UTF-8: rename the file"
            issues.append(Issue("dropped", "file name", part, shown, detail))
    if others:
        detail = f"{len(others)} files below {folder} are no images by their suffix"
        issues.append(Issue("note", "other files", part, str(folder), detail))
    return sorted(images), issues


def is_writable_name(name: str) -> bool:
    """Whether tables and CSV files, which are UTF-8, can hold the name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a person would not count this as data: .git, .ipynb_checkpoints, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def _hidden(folder: Path, part: str) -> Issue:
    return Issue("note", "hidden folder", part, str(folder), f"hidden folder {folder} is ignored")


def _layout(root: Path, folders: list[Path], part: str) -> list[Issue]:
    """What is wrong with the class folders as such."""
    issues: list[Issue] = []

    def fatal(kind: str, detail: str) -> None:
        issues.append(Issue("fatal", kind, part, str(root), detail))

    if not folders:
        fatal("no classes", f"{root} has no class folders: put each class's images in a folder "
              "with the class's name")  # fmt: skip
    elif {folder.name.lower() for folder in folders} <= SPLITS:
        names = ", ".join(folder.name for folder in folders)
        fatal("splits as classes", f"{root} holds the splits {names}, not classes: give "
              f"--data {root / folders[0].name} and --val or --test for the others")  # fmt: skip
    elif len(folders) == 1 and part == "labeled":
        fatal("one class", f"{root} has the one class {folders[0].name!r}: a classifier needs two")
    by_lower: dict[str, str] = {}
    for folder in folders:
        twin = by_lower.setdefault(folder.name.lower(), folder.name)
        if twin != folder.name:
            fatal("case", f"class folders {twin!r} and {folder.name!r} differ in case only: "
                  "rename or merge them")  # fmt: skip
    loose = [p for p in root.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES]
    if loose and folders:
        issues.append(
            Issue("note", "loose images", part, str(loose[0]),
                  f"{len(loose)} images beside the class folders are ignored")
        )  # fmt: skip
    return issues
