"""Sources -> the labeled, validation, test and pool images, by the splits that they have."""

from collections import Counter
from collections.abc import Sequence

from tutelage.data.find import Address, Given, open_source
from tutelage.data.issues import Issue
from tutelage.data.source import Images, Listing, Source
from tutelage.data.splits import SPLITS, SplitName, split_name
from tutelage.data.storage import plain
from tutelage.errors import DataProblem

PART_OF: dict[SplitName, str] = {"train": "labeled", "val": "val", "test": "test"}


def list_parts(
    data: Address,
    *,
    val: Address | None = None,
    test: Address | None = None,
    pool: Address | None = None,
    given: Given | None = None,
) -> tuple[dict[str, Images], list[Issue]]:
    """The images of each part, and what is odd about how they lie.

    Splits of `data` are used where no address of their own is given. Raises UsageError where there
    is no source at an address.
    """
    asked = dict.fromkeys(plain(one) for one in (data, val, test, pool) if one is not None)
    sources = {one: open_source(one, given) for one in asked}  # some hold a whole file
    parts, issues = _with_splits(sources[plain(data)], "labeled")
    for name, address in (("val", val), ("test", test)):
        if address is not None:
            if name in parts:
                detail = f"the {name} split of {data} is not used, as --{name} {address} is given"
                issues.append(Issue("note", "split not used", name, str(data), detail))
            parts[name], found = labeled_images(sources[plain(address)], name)
            issues += found
    if pool is not None:
        parts["pool"], found = pool_images(sources[plain(pool)])
        issues += found
    order = [name for name in ("labeled", "val", "test", "pool") if name in parts]
    return {name: parts[name] for name in order}, issues


def labeled_images(source: Source, part: str) -> tuple[Images, list[Issue]]:
    """One labeled part; where the source has splits, the one of that name.

    To judge on, the validation split stands in where there is no test split.
    """
    parts, issues = _with_splits(source, part)
    for name in (part, "val") if part == "test" else (part,):
        if name in parts:
            if name != part:
                detail = f"{source.address} has no {part} split, so its {name} split is judged on"
                issues.append(Issue("note", "splits", part, source.address, detail))
            return parts[name], issues
    splits = ", ".join(parts)
    detail = f"{source.address} has splits ({splits}), but none for {part} images: name one {part}"
    issues.append(Issue("fatal", "no such split", part, source.address, detail))
    return Images(source, (), ()), issues


def pool_images(source: Source) -> tuple[Images, list[Issue]]:
    """All images of a pool but those of a validation or test split; labels are not read."""
    listing = _listed(source, "pool")
    issues = list(listing.issues)
    rows: Sequence[int] = range(len(listing.names))
    if listing.splits is not None:
        judged = [split_name(split) in ("val", "test") for split in listing.splits]
        rows = [row for row in rows if not judged[row]]
        if any(judged):
            detail = f"{sum(judged):,} images of validation or test splits stay out of the pool"
            issues.append(Issue("note", "splits", "pool", source.address, detail))
    names = tuple(listing.names[row] for row in rows)
    if not names and not any(issue.severity == "fatal" for issue in issues):
        outside = " but those of validation or test splits" if listing.names else ""
        detail = f"{source.address} has no images{outside}: give the pool's folder"
        issues.append(Issue("fatal", "empty pool", "pool", source.address, detail))
    return Images(source, names, groups=_some(listing.groups, rows)), issues


def _listed(source: Source, part: str) -> Listing:
    """The source's rows; what is broken in it is one fatal issue."""
    try:
        return source.listing(part)
    except DataProblem as error:
        issue = Issue("fatal", "broken source", part, source.address, str(error))
        return Listing((), issues=(issue,))


def _with_splits(source: Source, part: str) -> tuple[dict[str, Images], list[Issue]]:
    """Labeled images by part: all of one part where the source has no splits."""
    listing = _listed(source, part)
    issues = list(listing.issues)
    rows, odd = _labeled_rows(source, listing, part)
    issues += odd
    if listing.splits is None:
        images = {part: _images(source, listing, rows)}
    else:
        images, odd = _by_split(source, listing, rows, part)
        issues += odd
    for name, one in images.items():
        issues += _classes_that_collide(one, name)
    only = images.get("labeled")
    if only is not None and part == "labeled" and len(only.classes) == 1:
        detail = f"{source.address} has the one class {only.classes[0]!r}: a classifier needs two"
        issues.append(Issue("fatal", "one class", part, source.address, detail))
    return images, issues


def _labeled_rows(source: Source, listing: Listing, part: str) -> tuple[list[int], list[Issue]]:
    """Rows that have a label, and an issue where some or all have none."""
    labels = listing.labels or ("",) * len(listing.names)
    rows = [row for row, label in enumerate(labels) if label]
    missing = len(labels) - len(rows)
    if rows or not labels:
        issues = [
            Issue("dropped", "no label", part, source.where(listing.names[row]), "has no label")
            for row, label in enumerate(labels) if not label
        ]  # fmt: skip
        return rows, issues
    detail = (
        f"none of the {missing:,} images of {source.address} has a label; tutelage expects "
        f"{source.layout}"
    )
    return rows, [Issue("fatal", "no labels", part, source.address, detail)]


def _by_split(
    source: Source, listing: Listing, rows: list[int], part: str
) -> tuple[dict[str, Images], list[Issue]]:
    """A part for each split, which is said; a split of unknown name is fatal."""
    assert listing.splits is not None, "asked before"
    issues, images = [], {}
    unknown = Counter(name for name in listing.splits if name and not split_name(name))
    for name, count in unknown.items():
        detail = (
            f"{source.address} has {count:,} images of a split {name!r}, which is none of "
            f"{', '.join(SPLITS)}: rename it, or leave those rows out"
        )
        issues.append(Issue("fatal", "unknown split", part, source.address, detail))
    if "" in listing.splits:
        detail = f"{listing.splits.count(''):,} images of {source.address} are in no split"
        issues.append(Issue("note", "no split", part, source.address, detail))
    for split, name in PART_OF.items():
        its = [row for row in rows if split_name(listing.splits[row]) == split]
        if its:
            images[name] = _images(source, listing, its)
    said = ", ".join(f"{len(one):,} {name}" for name, one in images.items())
    detail = f"{source.address} has splits: {said or 'none of them with labels'}"
    issues.append(Issue("note", "splits", part, source.address, detail))
    if part == "labeled" and "labeled" not in images:
        detail = f"{source.address} has splits, but none to train on: name one train"
        issues.append(Issue("fatal", "no such split", part, source.address, detail))
    return images, issues


def _images(source: Source, listing: Listing, rows: Sequence[int]) -> Images:
    """These rows with their class numbers."""
    assert listing.labels is not None or not rows, "rows with labels"
    labels = [listing.labels[row] for row in rows] if listing.labels else []
    classes = listing.classes or tuple(sorted(set(labels)))
    number = {name: i for i, name in enumerate(classes)}
    names = tuple(listing.names[row] for row in rows)
    numbers = tuple(number[label] for label in labels)
    return Images(source, names, numbers, classes, _some(listing.groups, rows))


def _some(values: tuple[str, ...] | None, rows: Sequence[int]) -> tuple[str, ...] | None:
    return None if values is None else tuple(values[row] for row in rows)


def _classes_that_collide(images: Images, part: str) -> list[Issue]:
    """Fatal where two classes differ in case only."""
    issues, by_lower = [], dict[str, str]()
    for name in images.classes:
        twin = by_lower.setdefault(name.lower(), name)
        if twin != name:
            detail = f"classes {twin!r} and {name!r} differ in case only: rename or merge them"
            issues.append(Issue("fatal", "case", part, images.source.address, detail))
    return issues
