"""Names of classes: the same ones in every part, and two that may mean the same."""

import unicodedata
from collections.abc import Iterator
from dataclasses import replace

from tutelage.data.issues import Issue
from tutelage.data.source import Images
from tutelage.values import nearest

LONGEST = 100  # letters; a longer text has as many forms, each as long, as it has letters
LONG = 6  # letters; shorter names that differ in one letter are usually different words


def class_numbers(
    images: Images, classes: tuple[str, ...], owner: str, part: str
) -> tuple[Images, list[Issue]]:
    """The same images numbered as in `classes`; a class that isn't among them is fatal."""
    issues = []
    for extra in [c for c in images.classes if c not in classes]:
        issues.append(
            Issue("fatal", "unknown class", part, images.source.address,
                  f"class {extra!r} of {images.source.address} is not among the classes of {owner}"
                  f"{nearest(extra, classes)}: rename it, or train with images of it")
        )  # fmt: skip
    for missing in [c for c in classes if c not in images.classes]:
        issues.append(
            Issue("note", "class not judged", part, images.source.address,
                  f"{images.source.address} has no images of class {missing!r}")
        )  # fmt: skip
    if any(issue.severity == "fatal" for issue in issues):
        return images, issues
    number = {name: i for i, name in enumerate(classes)}
    labels = tuple(number[images.classes[label]] for label in images.labels or ())
    return replace(images, labels=labels, classes=classes), issues


def odd_names(images: Images) -> list[Issue]:
    """Classes of the labeled images that may be the same, and names with spaces at an end."""
    place, issues = images.source.address, []
    twins = list(same_word(images.classes))
    for one, other, why in twins:
        detail = f"classes {one!r} and {other!r} {why}: where they mean the same, merge them"
        issues.append(Issue("note", "class names alike", "labeled", place, detail))
    said = {name for one, other, _ in twins for name in (one, other)}
    for name in images.classes:
        if name != name.strip() and name not in said:
            detail = f"class {name!r} begins or ends with a space: rename it"
            issues.append(Issue("note", "class name", "labeled", place, detail))
    return issues


def same_word(classes: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Pairs of names that a slip may have made of one, and how they differ.

    Those that differ in case alone are not among them. Each name is compared only with those that
    it shares a form with, so thousands of classes take no time.
    """
    seen: dict[tuple[str, str], str] = {}
    told: set[tuple[str, str]] = set()
    for name in classes:
        for how, form in _forms(name):
            twin = seen.setdefault((how, form), name)
            if twin.lower() != name.lower() and (twin, name) not in told:
                told.add((twin, name))
                yield twin, name, how


def _forms(name: str) -> Iterator[tuple[str, str]]:
    """What a name shares with another that differs from it in this way."""
    word = unicodedata.normalize("NFKC", name).casefold().strip()
    has_digits = any(sign.isdigit() for sign in word)
    if not has_digits:  # -1 and 1 are two
        word = "".join(sign for sign in word if sign not in " _-\t")
    if not word:
        return
    yield "differ only in case, spaces, dashes or how letters are encoded", word
    yield "differ as one and many", _singular(word)
    if LONG <= len(word) <= LONGEST and not has_digits:
        for i in range(len(word)):
            yield "differ in one letter", word[:i] + "\0" + word[i + 1 :]  # another letter
            swapped = "".join(sorted(word[i : i + 2]))
            yield "differ in the order of two letters", f"{i} {word[:i]}{swapped}{word[i + 2 :]}"
        for i in range(len(word)):  # a letter more or less
            yield "differ in one letter more", word[:i] + word[i + 1 :]
        yield "differ in one letter more", word


def _singular(word: str) -> str:
    """A word without the ending of the English plural."""
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ches", "shes", "xes", "sses"):
        if word.endswith(ending):
            return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word
