"""What a training begins with: the weights of a run, of a file, or timm's own, and new classes.

The trunk takes all weights. The classifier's rows are matched by the names of the classes, as
teachers' answers are: the same classes in another order are put in order, classes that both know
keep their row, and others get a new one. Where all are new, the classifier is fitted on the labels
before the training, so that it doesn't spoil the trunk: Kumar et al. 2022, Fine-tuning can distort
pretrained features (arXiv 2202.10054), which calls it LP-FT.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from tutelage.data import storage
from tutelage.deploy.model_folder import folder_of, trained_in
from tutelage.deploy.teacher_sources import (
    HUB,
    Found,
    from_file,
    from_folder,
    from_middle,
    from_timm,
    imagenet_names,
)
from tutelage.errors import RunMismatch, UsageError
from tutelage.evaluation.probe import can_fit, fit_classifier
from tutelage.networks import names
from tutelage.networks.build import Net, Normalized, build, normalizes_batches, weight_digest
from tutelage.networks.freeze import head_names
from tutelage.networks.input_size import resample
from tutelage.networks.pretrained import weights_source
from tutelage.networks.squeeze_excite import SE, Gate, gates_in
from tutelage.pipelines.manifest import has_not_learned_val, has_not_seen
from tutelage.pipelines.prepare import Prepared
from tutelage.recipe import Recipe
from tutelage.recipes.make import se_of
from tutelage.run import Run
from tutelage.training_settings import PRETRAINED, Common

C = TypeVar("C", bound=Common)

SHOWN = 3  # classes that are named on the screen


@dataclass(frozen=True)
class Begun:
    """A new network with given weights, and what was done in words."""

    module: Normalized
    note: str
    fitted: bool  # whether its classifier is to be fitted: a linear one of which no row was kept


def check_init(settings: Common, model: str, run: Run) -> None:
    """Raises UsageError where there is nothing to begin with, before images are read."""
    given = settings.begins_as
    if given is None or run.is_done("check"):
        return
    if given == PRETRAINED:
        weights_source(model)
    _check_source(given)


def _check_source(given: str) -> None:
    """Raises UsageError where there is no such run, folder or file."""
    path = Path(given)
    elsewhere = given == PRETRAINED or given.startswith(HUB) or "=" in given
    if not (elsewhere or path.is_file() or folder_of(path) is not None):
        raise UsageError(
            f"--init {given}: there is no such run, model folder, round or weights file"
            + (storage.nearby(given) or f"; give one, or `{PRETRAINED}` for timm's own weights")
        )


def open_source(given: str, model: str, img_size: int) -> Found:
    """The network that `--init` names, on the CPU; `model` is the one to be trained.

    Raises UsageError where there is none, or it is damaged.
    """
    _check_source(given)
    path, folder = Path(given), folder_of(Path(given))
    if given == PRETRAINED:
        found = from_timm(model, img_size)
    elif folder is not None:
        found = from_folder(folder, given, torch.device("cpu"))
    elif trained_in(path) is not None:
        found = from_middle(path)
    elif path.is_file():
        found = from_file(model, path, img_size)
    elif "=" in given:
        name, _, file = given.partition("=")
        found = from_file(name, Path(file), img_size)
    else:
        found = from_timm(given)
    return found


def begin_as(found: Found, net: Net, classes: Sequence[str], *, seed: int, where: str) -> Begun:
    """The network `net` with the trunk of the one found, and its classifier for these classes.

    Rows for classes that are new to it are drawn from the seed. `where` is how the user called the
    source. Raises UsageError where a tensor doesn't fit, naming the first.
    """
    _check_gates(where, found.se, net.se)
    module = build(net, seed=seed)
    source = _at_size(found, net.img_size, where)
    given, own = source.state_dict(), module.state_dict()
    heads = [f"{name}.{kind}" for name in head_names(module) for kind in ("weight", "bias")]
    gates = tuple(f"{path}." for path in gates_in(module)) if found.se is None else ()
    trunk = [key for key in own if key not in heads and not key.startswith(gates)]
    _check_fit(where, net.name, {key: own[key] for key in trunk}, given)
    taken = {key: own[key] for key in own if key.startswith(gates)}
    taken |= {key: given[key] for key in trunk}
    more = f", {len(gates)} gates new" if gates else ""
    note = f"{where}: all weights of the trunk kept{more}; classes: "
    with torch.no_grad():
        rows, words = _rows(found, classes)
        present = [key for key in heads if key in own]
        fits = all(key in given and given[key].shape[1:] == own[key].shape[1:] for key in present)
        rows = rows if fits else {}
        for key in present:
            taken[key] = own[key].clone()
            for new, old in rows.items():
                taken[key][new] = given[key][old]
    module.load_state_dict(taken)
    fitted = not rows and can_fit(module, len(classes))
    if not rows:
        words = f"all {len(classes):,} new" + (", fitted on the labels" if fitted else "")
    return Begun(module, note + words, fitted)


def _check_gates(where: str, given: SE | None, asked: SE | None) -> None:
    """Raises UsageError where the source was trained with other gates than are asked."""
    if given is None or given == asked:
        return
    more = "" if given.where == "auto" else f" --se-where {given.where!r}"
    raise UsageError(
        f"--init {where} was trained with squeeze-and-excitation: give "
        f"--se {given.reduction}{more}, without --se-gate"
    )


def _rows(found: Found, classes: Sequence[str]) -> tuple[dict[int, int], str]:
    """Row of the source's classifier for each class that it knows, and what that means in words."""
    names = found.classes or imagenet_names(found.num_classes)
    if names is None:
        if found.num_classes != len(classes):
            return {}, ""
        same = {row: row for row in range(len(classes))}
        return same, f"all {len(classes):,} kept in the data's order, as the file names none"
    place = {name: row for row, name in enumerate(names)}
    rows = {new: place[name] for new, name in enumerate(classes) if name in place}
    missing = [name for name in classes if name not in place]
    words = f"{len(rows):,} of {len(classes):,} kept by name"
    if not missing:
        moved = any(new != old for new, old in rows.items())
        return rows, words + (" and put into the data's order" if moved else "")
    more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    return rows, f"{words}, {len(missing):,} new ({', '.join(missing[:SHOWN])}{more})"


def _check_fit(where: str, name: str, own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Raises UsageError, naming the first tensor of the network that the source lacks or that has
    another shape there."""
    for key, tensor in own.items():
        shown = key.removeprefix("net.")
        if key not in given:
            raise UsageError(
                f"--init {where} is another network than {name}: it lacks {shown} of shape "
                f"{tuple(tensor.shape)}; take the --model that it was trained as"
            )
        if given[key].shape != tensor.shape:
            raise UsageError(
                f"--init {where} doesn't fit {name}: {shown} has shape {tuple(given[key].shape)} "
                f"there and {tuple(tensor.shape)} here; take the --model and --img-size that it "
                "was trained with"
            )


def _at_size(found: Found, size: int, where: str) -> nn.Module:
    """The source, its position tables resampled by timm where they are made for another size."""
    if not isinstance(found.module, Normalized):
        raise UsageError(f"--init {where} is no timm network")
    module = deepcopy(found.module)
    if found.size is not None and found.size != size:
        try:
            resample(module, size)  # others than transformers have nothing to resample
        except ValueError as error:
            raise UsageError(f"--init {where} can't be put to {size} pixels: {error}") from error
    return module


def begun_network(found: Found, recipe: Recipe, prepared: Prepared, *, where: str) -> Normalized:
    """`begin_as` for a recipe that has the source's digest, with a new classifier fitted on the
    labeled images, once for all recipes that begin alike."""
    net, key = recipe.net, (recipe.init, recipe.net)
    begun = begin_as(found, net, prepared.classes, seed=recipe.seed, where=where)
    if begun.fitted:
        if key not in prepared.classifiers:
            labels = prepared.parts["labeled"].label_tensor()
            pixels = prepared.labeled_set(net.img_size).pixels
            made = fit_classifier(begun.module.to(prepared.device), pixels, labels, net)
            prepared.classifiers[key] = made
        begun.module.load_state_dict(prepared.classifiers[key], strict=False)
    return begun.module


def open_init(settings: C, run: Run, prepared: Prepared, models: Sequence[str]) -> C:
    """Look at the source once, before anything is trained, and note its weights in the run; returns
    the settings with the gate and the first layers that suit them.

    Raises UsageError where it doesn't fit one of the networks to be trained, or has learned from
    the images that judge; RunMismatch where the weights have changed since the run began.
    """
    given = settings.begins_as
    if given is None:
        return _with_gate(settings, None)
    if run.is_done("init"):
        notes = run.notes("init")
    else:
        if given != PRETRAINED:
            has_not_seen(given, run, prepared.judge, what="--init")
            has_not_learned_val(given, run)
        with run.stage("init") as notes:
            for model in dict.fromkeys(models):
                names.check_name(model)
                found = open_source(given, model, prepared.size)
                own = _with_gate(settings, None if found.se is None else found.se.gate)
                net = Net(
                    name=model, num_classes=len(prepared.classes), img_size=prepared.size,
                    se=se_of(own),
                )  # fmt: skip
                begun = begin_as(found, net, prepared.classes, seed=0, where=given)
                kept = settings.keeps_norms and normalizes_batches(begun.module)
                notes[model] = {
                    "digest": weight_digest(found.module), "stem_size": found.stem_size,
                    "note": begun.note + ("; batch norm keeps its statistics" if kept else ""),
                    "gate": None if own.se is None else own.se_gate, "fitted": begun.fitted,
                }  # fmt: skip
    for model in dict.fromkeys(models):
        prepared.screen.say(f"  {model} begins as {notes[model]['note']}")
    if settings.stem == "auto" and not any(notes[model].get("stem_size") for model in models):
        settings = replace(settings, stem="keep")
    gates = [notes[model].get("gate") for model in models]
    return _with_gate(settings, next((gate for gate in gates if gate), None))


def _with_gate(settings: C, learned: Gate | None) -> C:
    """The settings without `auto`: the gate that was learned, or what a new one begins as."""
    if settings.se is None or settings.se_gate != "auto":
        return settings
    if learned is not None:
        return replace(settings, se_gate=learned)
    made = se_of(settings)
    assert made is not None  # as se is given
    return replace(settings, se_gate=made.gate)


def digest_of(settings: Common, run: Run, model: str) -> str:
    """Digest of the weights that the network begins with; "" where they are new."""
    return "" if settings.begins_as is None else str(run.notes("init")[model]["digest"])


def as_learned(net: Net, settings: Common, run: Run) -> Net:
    """The network with its first layers as given weights know them, whatever its image size."""
    if settings.begins_as is None or not net.small_stem:
        return net
    side = run.notes("init").get(net.name, {}).get("stem_size")
    return net if side in (None, net.img_size) else replace(net, stem_size=side)


def first_network(given: str, recipe: Recipe, prepared: Prepared) -> nn.Module:
    """The network before the first step of a recipe that begins with given weights.

    Raises RunMismatch where these are not the weights that the run began with.
    """
    found = open_source(given, recipe.net.name, recipe.net.img_size)
    if weight_digest(found.module) != recipe.init:
        raise RunMismatch(
            f"the weights of --init {given} have changed since the run began: put them back, "
            "choose another --out, or --overwrite to start anew"
        )
    return begun_network(found, recipe, prepared, where=given)
