"""Look at every image before training: what can't be read, what is there twice, what is missing."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tutelage.core import Advance
from tutelage.data.class_names import class_numbers, odd_names
from tutelage.data.examine import examine
from tutelage.data.facts import MISSING, Part
from tutelage.data.find import Address, Given
from tutelage.data.issues import Issue
from tutelage.data.parts import list_parts
from tutelage.data.source import Images
from tutelage.data.surveys import surveys
from tutelage.data.twins import Pair, look_alikes, repeated

BAD_SHARE = 0.01  # more unreadable images than this are no accident


@dataclass
class Survey:
    """All images that can be used, and all that was found on the way."""

    parts: dict[str, Part]  # labeled, and where given: val, test, pool
    issues: list[Issue]
    pairs: list[Pair] = field(default_factory=list)  # that look alike


def survey(
    data: Address,
    *,
    val: Address | None = None,
    test: Address | None = None,
    pool: Address | None = None,
    given: Given | None = None,
    advance: Callable[[str, int], Advance] = lambda name, total: lambda done: None,
    narrowed: Callable[[dict[str, Images]], dict[str, Images]] = lambda listed: listed,
) -> Survey:
    """List and read all images, and leave out what can't be trained or judged on.

    `advance(name, total)`, asked for all parts before any is read, gives a function that hears how
    many more images are read; `narrowed` says which of the listed ones are. Fatal issues are in
    the result for the caller to raise; where there is no source at an address it raises UsageError
    itself.
    """
    images, issues = list_parts(data, val=val, test=test, pool=pool, given=given)
    for name in ("val", "test"):
        if name in images and "labeled" in images:
            labeled = images["labeled"]
            images[name], found = class_numbers(
                images[name], labeled.classes, labeled.source.address, name
            )
            issues += found
    if "labeled" in images:
        issues += odd_names(images["labeled"])
    if any(issue.severity == "fatal" for issue in issues):
        return Survey({name: Part(one) for name, one in images.items()}, issues)
    parts = {name: Part(one) for name, one in narrowed(images).items()}
    heard = {name: advance(name, len(part.images)) for name, part in parts.items()}
    for name, part in parts.items():
        part.facts = examine(part.images, heard[name])
        parts[name], found = readable(part, name)
        issues += found
    for judge in ("test", "val"):
        if judge in parts:
            issues += _unseen(parts, judge)
    issues += _contradictions(parts)
    issues += _emptied(parts)
    issues += repeated(parts)
    for name, part in parts.items():
        issues += surveys(part, name)
    alike, pairs = look_alikes(parts)
    return Survey(parts, issues + alike, pairs)


def readable(part: Part, name: str) -> tuple[Part, list[Issue]]:
    """Drop what can't be read; fatal above 1 %."""
    bad = [row for row, fact in enumerate(part.facts) if fact.problem]
    if not bad:
        return part, []
    many = len(bad) > BAD_SHARE * len(part.images)
    issues = [
        Issue("dropped", _trouble(part.facts[row].problem), name, part.images.where(row),
              part.facts[row].problem)
        for row in bad
    ]  # fmt: skip
    kept = part.keep([row for row, fact in enumerate(part.facts) if not fact.problem])
    if many:
        first = part.images.where(bad[0])
        issues.append(
            Issue("fatal", "many unreadable", name, part.images.source.address,
                  f"{len(bad)} of {len(part.images)} images can't be read, which is above "
                  f"{BAD_SHARE:.0%}; the first is {first}: mend or remove them")
        )  # fmt: skip
    return kept, issues


def _trouble(problem: str) -> str:
    """What to call an image that can't be read."""
    return "missing file" if problem.startswith(MISSING) else "unreadable"


def _unseen(parts: dict[str, Part], judge: str) -> list[Issue]:
    """Take what is judged on out of what is trained on; equal pixels are the same image."""
    issues = []
    for name in ("labeled", "val", "pool"):
        if name not in parts or name == judge:
            continue
        part = parts[name]
        twins, grouped = part.also_in(parts[judge])
        issues += [
            Issue("dropped", f"also in {judge}", name, part.images.where(row),
                  f"the same pixels are among the {judge} images")
            for row in twins
        ]  # fmt: skip
        groups = part.images.groups or ()
        issues += [
            Issue("dropped", f"group also in {judge}", name, part.images.where(row),
                  f"its group {groups[row]!r} is also in {judge}")
            for row in grouped
        ]  # fmt: skip
        parts[name] = part.without([*twins, *grouped])
    return issues


def _contradictions(parts: dict[str, Part]) -> list[Issue]:
    """Leave out labeled images whose pixels stand under two classes."""
    part = parts["labeled"]
    labels, names = part.images.labels or (), part.images.classes
    issues: list[Issue] = []
    out: set[int] = set()
    for rows in part.copies().values():
        classes = sorted({names[labels[row]] for row in rows})
        if len(classes) > 1:
            out |= set(rows)
            issues += [
                Issue("dropped", "two classes", "labeled", part.images.where(row),
                      f"the same pixels are labeled {' and '.join(classes)}")
                for row in rows
            ]  # fmt: skip
    parts["labeled"] = part.without(list(out))
    return issues


def _emptied(parts: dict[str, Part]) -> list[Issue]:
    """Fatal where a part, or a class to train on, has lost its last image."""
    lost = [
        (name, part.images.source.address) for name, part in parts.items() if not part.images.names
    ]
    labeled = parts["labeled"].images
    if labeled.names:
        classes = zip(labeled.classes, labeled.counts(), strict=True)
        address = labeled.source.address
        lost += [("labeled", f"class {n} of {address}") for n, count in classes if not count]
    return [
        Issue("fatal", "no images left", name, place,
              f"no image in {place} can be used: each is unreadable, or in a part that is judged "
              "on; add others")
        for name, place in lost
    ]  # fmt: skip
