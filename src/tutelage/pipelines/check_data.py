"""`tutelage check`: look at every image, say what is wrong, and write down what can be used."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tutelage.core import Advance
from tutelage.data.check import Survey, survey
from tutelage.data.cleaned import write_cleaned
from tutelage.data.facts import Part
from tutelage.data.find import Given
from tutelage.data.issues import Issue, stop_if_fatal, write_issues
from tutelage.data.source import Images
from tutelage.data.split import split
from tutelage.progress import Screen
from tutelage.reports import check_table
from tutelage.training_settings import Common


def look(
    data: str, *, val: str | None, test: str | None, pool: str | None, given: Given,
    screen: Screen, narrowed: Callable[[dict[str, Images]], dict[str, Images]] = lambda all: all,
) -> Survey:  # fmt: skip
    """Survey with one bar for all parts; `narrowed` says which of the listed images are read."""
    with screen.bar("check", 0) as bar:

        def advance(name: str, total: int) -> Advance:
            bar.extend(total)
            return bar.advance

        return survey(
            data, val=val, test=test, pool=pool, given=given, advance=advance, narrowed=narrowed
        )


def report_on(found: Survey, out: Path, screen: Screen, *, page: bool, fix: bool) -> None:
    """Table, issues.csv, and where asked for check.html and manifest.csv.

    Raises DataProblem, after all that, where something is fatal.
    """
    was_read = any(part.facts for part in found.parts.values())  # not where a folder is amiss
    say_counts(found.parts, screen, "usable images" if was_read else "images found, not read")
    found = replace(found, issues=[*found.issues, *_too_small(found)])
    if found.issues:
        check_table.show(found.issues)
    if found.issues or (out / "issues.csv").exists():  # an old one would mislead
        write_issues(out / "issues.csv", found.issues)
        screen.say(f"each of them: {out / 'issues.csv'}")
    if page:
        from tutelage.reports.check_page import write_check_page  # which loads matplotlib

        screen.say(f"page: {write_check_page(out / 'check.html', found)}")
    if fix:
        _fix(found, out, screen)
    stop_if_fatal(found.issues, out)
    screen.say(check_table.ready(found.issues))


def _too_small(found: Survey) -> list[Issue]:
    """Notes on the classes that stop a training, which splits validation images off by default."""
    part = found.parts.get("labeled")
    fatal = any(issue.severity == "fatal" for issue in found.issues)
    if fatal or part is None or not part.facts or "val" in found.parts:
        return []
    _, _, issues = split(part, Common.val_fraction, seed=Common.seed)
    return [replace(issue, severity="note") for issue in issues]


def say_counts(parts: Mapping[str, Part], screen: Screen, what: str) -> None:
    """One line with the number of images of each part, and of classes."""
    counts = ", ".join(f"{name} {len(part.images):,}" for name, part in parts.items())
    classes = len(parts["labeled"].images.classes) if "labeled" in parts else 0
    screen.say(f"{what}: {counts or 'none'}; {classes} classes")


def _fix(found: Survey, out: Path, screen: Screen) -> None:
    """Write the cleaned manifest, and say how it is used, or why there is none."""
    left = unfixable(found.issues)
    if left or not all(part.facts for part in found.parts.values()):
        what = f"({left[0].kind}: {left[0].detail})" if left else ""
        screen.say(f"no manifest.csv is written, as leaving images out mends nothing here {what}")
        return
    manifest, pool = write_cleaned(out, found.parts)
    words = ["tutelage", "selftrain" if pool else "train", "--data", str(manifest)]
    words += ["--unlabeled", str(pool)] if pool else []
    screen.say(f"the images that can be used are in {manifest}; {shlex.join(words)} … takes them")


def unfixable(issues: list[Issue]) -> list[Issue]:
    """Fatal issues that leaving images out doesn't mend."""
    return [
        issue for issue in issues if issue.severity == "fatal" and issue.kind != "many unreadable"
    ]
