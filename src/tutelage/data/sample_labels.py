"""The labels beside images in a tar: KEY.cls with a number or a name, or KEY.json with a label."""

import json
from collections.abc import Mapping, Sequence

from tutelage.data import storage
from tutelage.data.issues import Issue
from tutelage.errors import DataProblem
from tutelage.values import nearest

KINDS = ("cls", "json")  # the first that is there counts
CLASS_FILES = ("classes.txt", "classnames.txt")
INFO_FILES = ("dataset_info.json", "info.json", "_info.json")
LONGEST_LABEL = 1000  # characters; more is no name, and Python makes no number of it
Odd = tuple[str, str, str]  # kind, member, detail


def sample_of(member: str) -> tuple[str, str]:
    """dir/0001.mask.png -> its sample dir/0001 and mask.png: the name up to its first dot."""
    folder, _, name = member.rpartition("/")
    key, _, kind = name.partition(".")
    return (f"{folder}/{key}" if folder else key), kind.lower()


def is_label(member: str) -> bool:
    """Whether a member may hold a sample's label."""
    return sample_of(member.removeprefix("./"))[1] in KINDS


def labels_of(
    images: Sequence[str], contents: Mapping[str, bytes]
) -> tuple[tuple[str, ...], list[Odd]]:
    """The label of each image's sample, "" where it has none, and labels that can't be read."""
    if not contents:
        return ("",) * len(images), []
    said: dict[str, str] = {}
    odd: list[Odd] = []
    for kind in reversed(KINDS):
        for member, text in contents.items():
            key, its = sample_of(member.removeprefix("./"))
            if its != kind:
                continue
            label = _label(kind, text)
            if label is None:
                odd.append(("broken label", member, "its label is no number and no text"))
            elif label:
                said[key] = label
    return tuple(said.get(sample_of(image)[0], "") for image in images), odd


def _label(kind: str, text: bytes) -> str | None:
    """The label in a file, "" where it has none, None where the file is broken."""
    try:
        if kind == "cls":
            name = text.decode("utf-8").strip("\ufeff \t\r\n\0")
            return name if len(name) <= LONGEST_LABEL else None
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    label = value.get("label", "")
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or not isinstance(label, int | str):
        return None if label is not None else ""
    written = str(label).strip()
    return written if len(written) <= LONGEST_LABEL else None


def classes_of(
    root: str, names: Sequence[str], labels: Sequence[str], part: str
) -> tuple[tuple[str, ...], list[str], list[Issue]]:
    """The classes in their order, each image's class name, and labels that are no class.

    A file of names beside the shards names the numbers; without it classes are called as in the
    labels, and numbers stand in their order.
    """
    known = class_names(root)
    if not known:
        seen = set(labels) - {""}
        numbers = all(label.isdecimal() for label in seen)
        return tuple(sorted(seen, key=int if numbers else None)), list(labels), []
    given, issues, out = set(known), list[Issue](), []
    for name, label in zip(names, labels, strict=True):
        if label.isdecimal() and label not in given and int(label) < len(known):
            label = known[int(label)]
        elif label and label not in given:
            detail = (
                f"label {label!r} is none of the {len(known)} classes named beside the shards"
                f"{nearest(label, known)}: mend the label, or the file of names"
            )
            issues.append(Issue("fatal", "unknown class", part, storage.join(root, name), detail))
        out.append(label)
    return known, out, issues


def class_names(root: str) -> tuple[str, ...]:
    """Class names in a file beside the shards: one a line, or a dataset_info.json as `datasets`
    writes it; none where there is no such file.

    Raises DataProblem where a name is there twice or the file is broken.
    """
    there = set(storage.names_in(root or "."))
    for file in (*CLASS_FILES, *INFO_FILES):
        if file not in there:
            continue
        address = storage.join(root, file)
        text = storage.read_bytes(address).decode("utf-8-sig", "replace")
        found = _lines(text) if file in CLASS_FILES else _features(address, text)
        if len(set(found)) < len(found):
            twice = next(name for name in found if found.count(name) > 1)
            raise DataProblem(f"{address} names {twice!r} twice: each class has a name of its own")
        if found:
            return found
    return ()


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _features(address: str, text: str) -> tuple[str, ...]:
    """The names of the label's feature."""
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataProblem(f"{address} is no JSON: {error}") from error
    features = info.get("features") if isinstance(info, dict) else None
    for key in ("label", "cls", "labels"):
        feature = features.get(key) if isinstance(features, dict) else None
        if isinstance(feature, dict) and isinstance(feature.get("names"), list):
            return tuple(str(name) for name in feature["names"])
    names = info.get("label_names") if isinstance(info, dict) else None  # timm's _info.json
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
