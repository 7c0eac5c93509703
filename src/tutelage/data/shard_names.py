"""Which tar shards an address means: a tar, a folder of tars, a brace pattern, a glob."""

import itertools
import posixpath
import re
from collections.abc import Sequence

from tutelage.data import storage
from tutelage.data.decode import SUFFIXES
from tutelage.data.splits import SplitName, split_name
from tutelage.errors import UsageError
from tutelage.values import nearest

TAR = ".tar"
PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|zstd|lz4)|tgz|tbz2?|txz)$", re.IGNORECASE)
BRACE = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
WILD = re.compile(r"[*?\[]")


def is_shard_name(name: str) -> bool:
    """Whether a file name is that of a tar, compressed or not."""
    return name.lower().endswith(TAR) or PACKED.search(name) is not None


def means_shards(address: str) -> bool:
    """Whether an address is one of tar shards: by its name, or as a folder that holds nothing else.

    A folder with class folders or images beside its tars is a folder of images.
    """
    if is_shard_name(address.rstrip("/")):
        return not storage.is_folder(address)
    if not storage.is_folder(address):
        return False
    names = _visible(address)
    if any(is_shard_name(name) for name in names):
        suffixes = [posixpath.splitext(name)[1].lower() for name in names]
        folders = (name for name, suffix in zip(names, suffixes, strict=True) if not suffix)
        images = any(suffix in SUFFIXES for suffix in suffixes)
        return not images and not any(_is_folder_in(address, name) for name in folders)
    splits = [name for name in names if split_name(name) and _is_folder_in(address, name)]
    return bool(splits) and all(
        any(is_shard_name(inside) for inside in _visible(storage.join(address, name)))
        for name in splits
    )


def _visible(folder: str) -> list[str]:
    return [name for name in storage.names_in(folder) if not name.startswith(".")]


def _is_folder_in(folder: str, name: str) -> bool:
    return storage.is_folder(storage.join(folder, name))


def find_shards(address: str) -> tuple[str, ...]:
    """Addresses of all shards in order; raises UsageError where there are none or some are missing.

    Folders and globs are sorted by name, brace patterns keep their own order.
    """
    if storage.is_file(address):  # its path may have the signs of a pattern
        found = [address]
    elif storage.is_folder(address):
        found = _in_folder(address)
    elif BRACE.search(address):
        found = _expanded(address)
    elif WILD.search(address):
        found = [name for name in storage.matching(address) if is_shard_name(name)]
    else:
        found = [address]
        _all_there(address, found)
    if not found:
        raise UsageError(f"no tar shard matches {address}: give a folder of .tar files, or quote "
                         "a pattern such as 'pool-{0000..0999}.tar'")  # fmt: skip
    for name in found:
        if PACKED.search(name):
            raise UsageError(
                f"{name} is a compressed tar, so no image in it can be read by its position: "
                "decompress it, which costs images hardly any space"
            )
    return tuple(found)


def _in_folder(address: str) -> list[str]:
    """Tars in a folder, or in its folders, which are splits then."""
    names = _visible(address)
    direct = [storage.join(address, name) for name in names if is_shard_name(name)]
    if direct:
        return direct
    folders = [storage.join(address, name) for name in names if split_name(name)]
    return [
        storage.join(folder, name)
        for folder in folders
        for name in _visible(folder)
        if is_shard_name(name)
    ]


def _expanded(pattern: str) -> list[str]:
    """A brace pattern's addresses, all of which must be there."""
    found: list[str] = []
    for address in braces(pattern):
        if WILD.search(address):
            found += [name for name in storage.matching(address) if is_shard_name(name)]
        else:
            found.append(address)
    found = list(dict.fromkeys(found))
    _all_there(pattern, [address for address in found if not WILD.search(address)])
    return found


def braces(pattern: str) -> list[str]:
    """'x-{08..10}.tar' -> x-08.tar, x-09.tar, x-10.tar; '{a,b}' -> a, b; several are multiplied.

    Raises UsageError for a pattern that can't be read.
    """
    pieces = BRACE.split(pattern)
    choices = [_choices(pattern, piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(one) for one in itertools.product(*choices)]


def _choices(pattern: str, inside: str) -> list[str]:
    """What one pair of braces stands for."""
    chosen = []
    for piece in inside.split(","):
        match = RANGE.fullmatch(piece)
        if match is None:
            if ".." in piece:
                raise UsageError(f"{pattern}: {{{inside}}} is no range; write {{0000..0999}}")
            chosen.append(piece)
            continue
        first, last = match.groups()
        if int(last) < int(first):
            raise UsageError(f"{pattern}: {{{inside}}} runs backward; write {{0000..0999}}")
        width = len(first) if first.startswith("0") else 0
        chosen += [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    return chosen


def _all_there(pattern: str, addresses: Sequence[str]) -> None:
    """Raises UsageError with the first missing shard; each folder is listed once."""
    there: dict[str, set[str]] = {}
    missing = []
    for address in addresses:
        folder = storage.parent(address)
        if folder not in there:
            there[folder] = set(storage.names_in(folder or "."))
        if posixpath.basename(address) not in there[folder] and not storage.is_file(address):
            missing.append(address)
    if missing:
        beside = [name for name in there[storage.parent(missing[0])] if is_shard_name(name)]
        number = f"{len(missing):,} of the {len(addresses):,} shards of {pattern} are missing, "
        raise UsageError(
            (number if len(addresses) > 1 else "")
            + f"there is no {missing[0]}{nearest(posixpath.basename(missing[0]), beside)}"
        )


def common_folder(addresses: Sequence[str]) -> str:
    """The deepest folder that holds all of them; "" where there is none."""
    folders = sorted({tuple(storage.parent(address).split("/")) for address in addresses})
    alike = itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(folders[0], folders[-1], strict=False)
    )
    common = "/".join(one for one, _ in alike)
    return "" if storage.is_local(common) and not storage.is_local(addresses[0]) else common


def splits_of(shards: Sequence[str]) -> tuple[SplitName, ...] | None:
    """The split of each shard by its folder, or by its name up to a digit, dash or underscore.

    None where not all shards have one, or all have the same.
    """
    for part in (lambda shard: shard.split("/")[0] if "/" in shard else "",
                 lambda shard: re.split(r"[-_.\d]", posixpath.basename(shard))[0]):  # fmt: skip
        splits = tuple(split_name(part(shard)) for shard in shards)
        if all(splits) and len(set(splits)) > 1:
            return splits
    return None
