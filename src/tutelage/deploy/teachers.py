"""Any trained network as a teacher for these images and classes, or a sentence why it can't be one.

A teacher is a run, a model folder or a round's folder, a timm name with pre-trained weights,
NAME=FILE (a timm network with the weights of a file), hf-hub:OWNER/NAME, or a module in Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.pixels import Pixels
from tutelage.deploy.foreign import Foreign, from_file, from_module, from_timm
from tutelage.deploy.model_folder import is_model, load_model
from tutelage.errors import UsageError
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.probe import features, fit_head
from tutelage.files import read_json
from tutelage.networks.build import weight_digest
from tutelage.networks.teachers import Probed, Reordered, Resized

SIGMAS = 3.0  # below its recorded accuracy, from where on a teacher is refused


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode that takes images in [0, 1] and answers in the data's classes."""

    module: nn.Module
    name: str
    notes: tuple[str, ...]  # what was done to make it fit, in words
    digest: str = field(default="")


def load_teacher(
    given: str | nn.Module, classes: Sequence[str], *, img_size: int, pixels: Pixels,
    labels: Tensor, device: torch.device,
) -> Teacher:  # fmt: skip
    """A teacher for images of `img_size` pixels and these classes.

    `pixels` with `labels` (N,) are the labeled images, to fit a head where it doesn't fit the
    classes, and to check the answers. Raises UsageError where there is no such teacher, where it
    lacks a class, and where its answers don't fit the labels.
    """
    name = given if isinstance(given, str) else type(given).__name__
    recorded = None
    if isinstance(given, str) and _folder(given) is not None:
        module, notes = _own(_folder(given) or Path(), classes, img_size, device)
        recorded = _recorded(Path(given))
    else:
        foreign = _foreign(given, img_size)
        module, notes = _fitted(foreign, classes, img_size, pixels, labels, device)
    module = module.to(device).eval().requires_grad_(False)
    found = accuracy(predict(module, pixels, img_size), labels)
    check_teacher(name, found, recorded, len(classes))
    notes += (f"{found.value:.1%} of the {found.total:,} labeled images right",)
    return Teacher(module, name, notes, weight_digest(module))


def _folder(name: str) -> Path | None:
    """The run, model or round folder of that name, also by the weights in it."""
    path = Path(name)
    if path.name == "model.safetensors":
        path = path.parent
    return path if is_model(path) else None


def _own(
    folder: Path, classes: Sequence[str], img_size: int, device: torch.device
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network of this package: classes matched by name, asked at the size of its training."""
    model = load_model(folder, device)
    module, notes = by_name(model.module, model.classes, classes, str(folder))
    if model.net.img_size != img_size:
        module = Resized(module, model.net.img_size)
        notes += (f"asked at its own {model.net.img_size} pixels, not at {img_size}",)
    return module, notes


def by_name(
    module: nn.Module, known: Sequence[str], wanted: Sequence[str], name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with its answers in the wanted classes; raises UsageError where it lacks one."""
    if tuple(known) == tuple(wanted):
        return module, ()
    missing = [one for one in wanted if one not in known]
    if missing:
        some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UsageError(
            f"the teacher {name} does not know {some}; it knows {', '.join(list(known)[:5])}"
            f"{', …' if len(known) > 5 else ''}: take one that was trained on the data's classes"
        )
    index = [list(known).index(one) for one in wanted]
    how = f"{len(wanted)} of its {len(known)} classes, by name"
    if len(known) == len(wanted):
        how = "its classes in another order, by name"
    return Reordered(module, index), (how,)


def _foreign(given: str | nn.Module, img_size: int) -> Foreign:
    """A network from elsewhere."""
    if isinstance(given, nn.Module):
        return from_module(given)
    name, sign, file = given.partition("=")
    if sign:
        return from_file(name, Path(file), img_size)
    if len(Path(given).parts) > 1 and not given.startswith("hf-hub:"):
        raise UsageError(f"the teacher {given}: there is no such run, model folder or file")
    return from_timm(given)


def _fitted(
    foreign: Foreign, classes: Sequence[str], img_size: int, pixels: Pixels, labels: Tensor,
    device: torch.device,
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """A foreign network with its own head where that fits the classes, else with a fitted one."""
    notes: tuple[str, ...] = ()
    fits = foreign.num_classes == len(classes)
    if foreign.classes is not None and set(classes) <= set(foreign.classes):
        module, notes = by_name(foreign.module, foreign.classes, classes, foreign.name)
    elif fits and foreign.classes is None:
        module = foreign.module
        notes = (f"its {len(classes)} classes are taken to be in the order of the names",)
    else:
        body = foreign.body.to(device).eval()
        if foreign.size not in (None, img_size):
            body = Resized(body, foreign.size or img_size)
        head = fit_head(features(body, pixels, img_size), labels.cpu(), len(classes))
        what = f"{foreign.num_classes:,} outputs" if not fits else "other classes"
        notes = (f"it has {what}: a linear head was fitted on {len(labels):,} labels",)
        return Probed(body, head.to(device)), notes
    if foreign.size not in (None, img_size):
        module = Resized(module, foreign.size or img_size)
        notes += (f"asked at its own {foreign.size} pixels, not at {img_size}",)
    return module, notes


def _recorded(path: Path) -> Accuracy | None:
    """The accuracy that a run has noted of its model, where it has."""
    file = path / "run.json"
    if not file.exists():
        return None
    outcome = read_json(file)["stages"].get("evaluate", {})
    if not outcome.get("rounds"):
        return None
    return Accuracy(**outcome["rounds"][-1][outcome["judge"]])


def check_teacher(name: str, found: Accuracy, recorded: Accuracy | None, num_classes: int) -> None:
    """Raises UsageError where a teacher's answers can't be about these classes and images.

    It must not be shown to be at chance or below, and, where its accuracy is on record, not more
    than 3 standard deviations of the difference below it.
    """
    chance = 1 / num_classes
    high = found.interval[1]
    if high <= chance or (found.value <= chance and high < 2 * chance):
        raise UsageError(
            f"the teacher {name} gets {found.right} of {found.total} labeled images right, which "
            f"is chance for {num_classes} classes: are its classes in another order, or does it "
            "want other pixels (size, normalization, channel order)?"
        )
    if recorded is None:
        return
    spread = recorded.value * (1 - recorded.value)
    sigma = (spread / found.total + spread / recorded.total) ** 0.5
    if found.value < recorded.value - SIGMAS * sigma:
        raise UsageError(
            f"the teacher {name} gets {found.value:.1%} of the labeled images right, and its run "
            f"noted {recorded.value:.1%}: these are other images or classes than it knows"
        )
