"""Labeled images -> those to train on and those to validate on."""

import torch

from tutelage.core import Dice, generator
from tutelage.data.facts import Part
from tutelage.data.issues import Issue

TOO_FEW = "too few labels"  # for a validation part: the kind of such an issue


def split(part: Part, fraction: float, *, seed: int) -> tuple[list[int], list[int], list[Issue]]:
    """Rows to train on and rows to validate on: that share of each class, at least one each.

    Copies of an image and images of a group stay together. What has images of several classes
    counts for the rarest of them.
    """
    labels, counts = part.images.labels or (), part.images.counts()
    bundles: list[list[list[int]]] = [[] for _ in counts]
    for rows in part.together():
        rarest = min({labels[row] for row in rows}, key=lambda label: (counts[label], label))
        bundles[rarest].append(rows)
    train: list[int] = []
    val: list[int] = []
    for number, its in enumerate(bundles):
        order = [its[i] for i in _shuffled(len(its), seed, number)]
        chosen = _share([_images(part, rows) for rows in order], fraction)
        for i, rows in enumerate(order):
            (val if i in chosen else train).extend(rows)
    return sorted(train), sorted(val), _lacking(part, train, val)


def _shuffled(length: int, seed: int, number: int) -> list[int]:
    order: list[int] = torch.randperm(
        length, generator=generator(seed, Dice.SPLIT, number)
    ).tolist()
    return order


def _images(part: Part, rows: list[int]) -> int:
    """How many images there are, copies counted once."""
    return len({part.facts[row].content for row in rows})


def _share(sizes: list[int], fraction: float) -> set[int]:
    """Bundles of those sizes that make about that share, at least one, and never all."""
    wanted = max(1, round(fraction * sum(sizes)))
    chosen: set[int] = set()
    for i, size in enumerate(sizes):
        if len(chosen) < len(sizes) - 1 and size <= wanted:
            chosen.add(i)
            wanted -= size
    if not chosen and len(sizes) > 1:
        chosen.add(min(range(len(sizes)), key=lambda i: sizes[i]))
    return chosen


def _lacking(part: Part, train: list[int], val: list[int]) -> list[Issue]:
    """Fatal for each class that has no image on one of the sides."""
    labels, issues = part.images.labels or (), []
    sides = [{labels[row] for row in rows} for rows in (train, val)]
    counts = [0] * len(part.images.classes)
    for rows in part.together():
        for label in {labels[row] for row in rows}:
            counts[label] += 1
    for number, name in enumerate(part.images.classes):
        if all(number in side for side in sides):
            continue
        images = "image" if counts[number] == 1 else "images"
        apart = ", which groups tie together" if counts[number] > 1 else ""
        issues.append(
            Issue("fatal", TOO_FEW, "labeled", part.images.source.address,
                  f"class {name!r} has {counts[number]} usable {images}{apart}, and splitting off "
                  "a validation part needs 2: add some, give --val, or set --val-fraction 0")
        )  # fmt: skip
    return issues
