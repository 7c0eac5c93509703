"""Any trained network as a teacher for these images and classes, or a sentence why it can't be one.

A teacher is a run, a model folder or a round's folder, a timm name with pre-trained weights,
NAME=FILE (a timm network with the weights of a file), hf-hub:OWNER/NAME, or a module in Python.
Its answers are put into the data's classes by name; where its head is about other classes, a new
one is fitted on the labels. Then the labels judge it, before anybody learns from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data import storage
from tutelage.data.pixels import Chosen, Pixels
from tutelage.deploy.model_folder import folder_of, run_of
from tutelage.deploy.teacher_check import check_teacher, recorded_accuracy
from tutelage.deploy.teacher_sources import (
    HUB,
    Found,
    from_file,
    from_folder,
    from_module,
    from_timm,
    headless,
    names_for,
    outputs,
)
from tutelage.errors import UsageError
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.evaluation.probe import evenly, features, fit_head, held_out, most_fitted
from tutelage.networks.build import weight_digest
from tutelage.networks.teachers import Probed, Reordered, Resized

CHECKED = 2_000  # labeled images, spread over all, that a teacher is judged on


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode that takes images in [0, 1] and answers in the data's classes."""

    module: nn.Module
    name: str
    notes: tuple[str, ...]  # what was done to make it fit, in words
    digest: str  # of all its weights
    run: Path | None = None  # that trained it, where one did


@dataclass(frozen=True)
class Marked:
    """Labeled images, as a teacher is asked about them."""

    pixels: Pixels
    labels: Tensor  # (N,)
    num_classes: int
    img_size: int  # pixels, the student's

    def some(self, count: int) -> "Marked":
        """At most `count` of them, spread evenly over all."""
        if len(self.labels) <= count:
            return self
        rows = evenly(len(self.labels), count)
        pixels = Chosen(self.pixels, rows)
        return Marked(pixels, self.labels[rows], self.num_classes, self.img_size)


@dataclass(frozen=True)
class Candidate:
    """A network asked at some size, with its answers to labeled images."""

    module: nn.Module
    size: int  # pixels
    probs: Tensor  # (N, K)
    labels: Tensor  # (N,)

    @property
    def right(self) -> float:
        """The share of right answers."""
        return accuracy(self.probs, self.labels).value if len(self.labels) else 0.0


def load_teacher(
    given: str | Path | nn.Module, classes: Sequence[str], *, img_size: int, pixels: Pixels,
    labels: Tensor, device: torch.device,
) -> Teacher:  # fmt: skip
    """A teacher for images of `img_size` pixels and these classes.

    `pixels` with `labels` (N,) are the labeled images, to fit a head where it doesn't fit the
    classes, and to check the answers. Raises UsageError where there is no such teacher, where it
    lacks a class, and where its answers don't fit the labels.
    """
    found = _found(given, img_size, device)
    found.module.to(device).eval().requires_grad_(False)
    marked = Marked(pixels, labels.cpu(), len(classes), img_size)
    sizes = _sizes(found, img_size)
    matched = _matched(found, classes)
    if matched is None:
        chosen, notes = _with_new_head(found, classes, sizes, marked)
    else:
        chosen, notes = _with_own_head(matched[0], sizes, marked), matched[1]
    if chosen.size != img_size:
        notes += (f"asked at {chosen.size} pixels, not at {img_size}",)
    recorded = None if found.folder is None else recorded_accuracy(found.folder)
    notes += (check_teacher(found.name, chosen.probs, chosen.labels, recorded),)
    module = chosen.module.eval().requires_grad_(False)
    run = None if found.folder is None else run_of(found.folder)
    return Teacher(module, found.name, notes, weight_digest(module), run)


def _found(given: str | Path | nn.Module, img_size: int, device: torch.device) -> Found:
    """The network, from wherever it is."""
    if isinstance(given, nn.Module):
        return from_module(given, img_size)
    folder = folder_of(Path(given))
    if folder is not None:
        return from_folder(folder, str(given), device)
    text = str(given)
    name, sign, file = text.partition("=")
    if sign:
        return from_file(name, Path(file), img_size)
    if len(Path(text).parts) > 1 and not text.startswith(HUB):
        raise UsageError(
            f"the teacher {text}: there is no such run, model folder or round"
            + storage.nearby(text)
        )
    return from_timm(text)


def _matched(found: Found, classes: Sequence[str]) -> tuple[nn.Module, tuple[str, ...]] | None:
    """The network with its own head, answering in the data's classes; None where that is not about
    them."""
    names = names_for(found, classes)
    if names is None:
        if found.num_classes != len(classes):
            return None
        order = ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
        return found.module, (f"its outputs have no names: taken to be {order}",)
    if found.folder is None and not set(classes) <= set(names):
        return None
    return by_name(found.module, names, classes, found.name)


def by_name(
    module: nn.Module, known: Sequence[str], wanted: Sequence[str], name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with its answers in the wanted classes; raises UsageError where it lacks one."""
    if tuple(known) == tuple(wanted):
        return module, ()
    place = {one: number for number, one in enumerate(known)}
    missing = [one for one in wanted if one not in place]
    if missing:
        raise UsageError(
            f"the teacher {name} doesn't know {_few(missing)}; it knows {_few(known)}: take one "
            "that was trained on the data's classes"
        )
    how = f"{len(wanted)} of its {len(known):,} classes, by name"
    if len(known) == len(wanted):
        how = "its classes put into the data's order, by name"
    return Reordered(module, [place[one] for one in wanted]), (how,)


def _few(names: Sequence[str]) -> str:
    """The first five names."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _sizes(found: Found, img_size: int) -> list[int]:
    """Image sizes to ask it at: its own alone where it was trained here, else also the student's.

    Networks with a fixed size refuse all others. Raises UsageError where it refuses all.
    """
    if found.folder is not None:
        return [found.size or img_size]
    wanted = list(dict.fromkeys([img_size, found.size or img_size]))
    taken: list[int] = []
    for size in wanted:
        try:
            outputs(found.module, size, found.name)
        except UsageError:
            if not taken and size == wanted[-1]:
                raise
        else:
            taken.append(size)
    return taken


def _at(module: nn.Module, size: int, img_size: int) -> nn.Module:
    """The network, for images of `img_size`, asked at `size`."""
    return module if size == img_size else Resized(module, size)


def _best(candidates: Iterable[Candidate]) -> Candidate:
    """The one that is right most often; the first of equals."""
    return max(candidates, key=lambda one: one.right)


def _with_own_head(module: nn.Module, sizes: Sequence[int], marked: Marked) -> Candidate:
    """The network at the size where it is right most often."""
    some = marked.some(CHECKED)
    asked = [(size, _at(module, size, marked.img_size)) for size in sizes]
    return _best(
        Candidate(one, size, predict(one, some.pixels, marked.img_size), some.labels)
        for size, one in asked
    )


def _with_new_head(
    found: Found, classes: Sequence[str], sizes: Sequence[int], marked: Marked
) -> tuple[Candidate, tuple[str, ...]]:
    """The network's features under a head that is fitted on the labels.

    It is judged, here and later, by heads that have not seen the image they are asked about.
    """
    body, some = headless(found.module), marked.some(CHECKED)
    tried: list[Candidate] = []
    for size in sizes:
        asked = _at(body, size, marked.img_size)
        seen = features(asked, some.pixels, marked.img_size)
        probs, rows = held_out(seen, some.labels, marked.num_classes)
        tried.append(Candidate(asked, size, probs, some.labels[rows]))
    best = _best(tried)
    most = marked.some(most_fitted(marked.num_classes))
    seen = features(best.module, most.pixels, marked.img_size)
    head = fit_head(seen, most.labels, marked.num_classes)
    device = next(best.module.parameters()).device
    module = Probed(best.module, head.to(device))
    what = f"{found.num_classes:,} outputs" if found.num_classes else "no head"
    if found.num_classes == len(classes):
        what = "other classes"
    note = f"it has {what}: a linear head was fitted on its features of {len(most.labels):,} labels"
    return Candidate(module, best.size, best.probs, best.labels), (note,)
