"""The models that are to be compared: what each answers on the same test images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data.find import Given, open_source
from tutelage.data.source import Source
from tutelage.deploy.judge import (
    answers,
    keep_answers,
    keep_judgement,
    kept_evaluation,
    labeled_part,
    still_true,
)
from tutelage.deploy.model_folder import calibration_in, is_model, load_model, run_of
from tutelage.errors import UsageError
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.judgement import judged
from tutelage.evaluation.kept import FOLDER, Kept, kept_for
from tutelage.files import as_written, read_json, read_parquet
from tutelage.judging_settings import CompareSettings
from tutelage.learner import choose_device
from tutelage.pipelines.manifest import contents_by_name, has_manifest, learned_notes
from tutelage.pipelines.outcome import kept_probs
from tutelage.progress import Screen
from tutelage.reports.contents import JUDGES
from tutelage.run import read_run


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model answers on its test images, in an order that all models share."""

    name: str
    path: Path
    network: str
    img_size: int  # pixels
    weights: str  # digest
    classes: tuple[str, ...]
    images: tuple[tuple[str, str], ...]  # content hash and class of each, sorted
    right: Tensor  # (N,) bool
    measures: dict[str, float]  # beside the accuracy
    kept: Kept | None  # the evaluation of these images, where there is one

    @property
    def accuracy(self) -> Accuracy:
        """Top-1."""
        return Accuracy(int(self.right.sum()), len(self.right))


def all_answers(
    settings: CompareSettings, screen: Screen, given: Given | None = None
) -> list[Answers]:
    """The answers of all models on the same images.

    Raises UsageError where images, labels or classes differ, and where a run has no test answers.
    """
    names = distinct_names(settings.runs)
    if settings.data is None:
        found = []
        for path, name in zip(settings.runs, names, strict=True):
            with as_written(path):
                found.append(_stored(path, name))
    else:
        source = open_source(settings.data, given)
        found = [
            _asked(path, name, source, settings, screen)
            for path, name in zip(settings.runs, names, strict=True)
        ]
    for other in found[1:]:
        _check_same(found[0], other, settings)
    return found


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """As few last parts of each path as tell it from the others; RUN/model counts as RUN."""
    whole = [path.absolute() for path in paths]
    runs = [path.parent if path.name == "model" and run_of(path) else path for path in whole]
    parts = [
        path.parts if run in whole else run.parts for path, run in zip(whole, runs, strict=True)
    ]
    longest = max(map(len, parts))
    for count in range(1, longest + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _stored(path: Path, name: str) -> Answers:
    """What a run has written down of its test images."""
    run = run_of(path)
    if run is None:
        if is_model(path):
            raise UsageError(f"{path} is a model alone and has no stored answers: give --data TEST")
        read_run(path)  # says what is wrong
        raise UsageError(f"{path} holds no model: give a finished run, or its folder model/")
    outcome = read_run(run)["stages"].get("evaluate", {})
    if outcome.get("state") != "done":
        raise UsageError(f"{run} has not been judged yet: let the run finish, then compare")
    if outcome["judge"] != "test" or not has_manifest(run):
        judge = outcome["judge"]
        why = "without labeled images" if judge is None else f"on {JUDGES[judge]} images only"
        raise UsageError(
            f"{run} was judged {why}, which is no comparison: give --data TEST, labeled images "
            "that no model has learned from"
        )
    config = read_json((path / "model" if path.absolute() == run else path) / "config.json")
    its = calibration_in(config)
    folder = _judged_round(path, run, [row["name"] for row in outcome["rounds"]], config["weights"])
    table = read_parquet(folder / "predictions-test.parquet", ["path", "label"])
    contents = contents_by_name(run, "test")
    names, labels = table["path"].to_pylist(), table["label"].to_pylist()
    images = [(contents[image], label) for image, label in zip(names, labels, strict=True)]
    classes = tuple(config["classes"])
    numbers = torch.tensor([classes.index(label) for label in labels])
    probs = kept_probs(folder, "test")
    found = _in_order(
        Answers(
            name=name, path=path, network=config["net"]["name"],
            img_size=config["net"]["img_size"], weights=config["weights"], classes=classes,
            images=tuple(images), right=probs.argmax(-1) == numbers,
            measures=measures(judged(probs, numbers, classes, calibration=its).plain()), kept=None,
        )
    )  # fmt: skip
    return replace(found, kept=_evaluation(found, path, run))


def _judged_round(path: Path, run: Path, rounds: Sequence[str], weights: str) -> Path:
    """The folder of the judged round whose network this is."""
    if path.absolute().parent.name == "rounds":
        if path.name not in rounds:
            raise UsageError(f"{path} was not judged: {run} has judged {', '.join(rounds)}")
        return path
    for name in reversed(rounds):
        folder = run / "rounds" / name
        if read_json(folder / "config.json")["weights"] == weights:
            return folder
    raise UsageError(f"the model of {run} is none of its judged rounds: give --data TEST")


def _evaluation(found: Answers, path: Path, run: Path) -> Kept | None:
    """What `evaluate` has kept of the same weights on the same images, whatever they are called."""
    numbers = torch.tensor([found.classes.index(label) for _, label in found.images])
    for model in dict.fromkeys((path, run, run / "model")):
        kept = kept_for(
            model, "data", weights=found.weights, size=found.img_size,
            contents=[content for content, _ in found.images], labels=numbers,
        )  # fmt: skip
        key = kept.path.name.rpartition("-")[2]
        for file in sorted((model / FOLDER).glob(f"*-{key}/evaluation.json")):
            return Kept(file.parent)
    return None


def _asked(
    path: Path, name: str, source: Source, settings: CompareSettings, screen: Screen
) -> Answers:
    """What a model answers on these images, as `evaluate` keeps it; read where it is kept."""
    model = load_model(path, choose_device(settings.device))
    test = labeled_part(source, model, "test", screen)
    for note in learned_notes(run_of(path) or path, set(test.copies()), model.calibration):
        screen.say(note)
    kept = kept_evaluation(path, source.address, model, test)
    file, its, before = kept.path / "answers.parquet", model.calibration, kept.read()
    temperature = None if its is None else its.temperature.value
    if not file.exists() or before.get("temperature", "not known") != temperature:
        probs = answers(model, test.images, screen, name)
        keep_answers(kept, model, test, probs)
        found = judged(probs, test.images.label_tensor(), model.classes, calibration=its)
        keep_judgement(kept, source.address, model, found, still_true(before, temperature))
    table = read_parquet(file, ["content", "label", "predicted"]).to_pydict()
    right = [a == b for a, b in zip(table["label"], table["predicted"], strict=True)]
    now = kept.read()
    with as_written(kept.path):
        return _in_order(
            Answers(
                name=name, path=path, network=model.net.name, img_size=model.net.img_size,
                weights=now["weights"], classes=model.classes,
                images=tuple(zip(table["content"], table["label"], strict=True)),
                right=torch.tensor(right), measures=measures(now), kept=kept,
            )
        )  # fmt: skip


def measures(plain: dict[str, Any]) -> dict[str, float]:
    """A judgement's numbers beside the accuracy; of answers as `predict` gives them, calibrated
    where the model is."""
    found: dict[str, float] = {
        "balanced": plain["balanced"]["value"],
        "log_loss": plain["nll"]["value"],
        "calibration_error": plain["calibration"]["width"]["ece"],
        "brier": plain["brier"]["value"],
    }
    top5 = plain["top5"]
    return found if top5 is None else found | {"top5": top5["right"] / top5["total"]}


def _in_order(found: Answers) -> Answers:
    """By content, so that file names and folders don't matter. Copies have one answer."""
    order = sorted(range(len(found.images)), key=lambda row: found.images[row])
    images = tuple(found.images[row] for row in order)
    return replace(found, images=images, right=found.right[torch.tensor(order)])


def _check_same(one: Answers, other: Answers, settings: CompareSettings) -> None:
    """Raises UsageError where two models have other classes, images or labels."""
    if sorted(one.classes) != sorted(other.classes):
        odd = sorted(set(one.classes) ^ set(other.classes))
        raise UsageError(
            f"{one.name} and {other.name} have different classes ({', '.join(odd[:5])}"
            f"{', …' if len(odd) > 5 else ''}): compare models of the same classes"
        )
    if one.images == other.images:
        return
    mine, its = (Counter(content for content, _ in a.images) for a in (one, other))
    only, missing, shared = (mine - its).total(), (its - mine).total(), (mine & its).total()
    again = f"tutelage compare {' '.join(map(str, settings.runs))} --data TEST"
    if only or missing:
        raise UsageError(
            f"{one.name} and {other.name} were judged on different test images: {only:,} are in "
            f"the first one's alone, {missing:,} in the second one's alone, {shared:,} in both. "
            f"To judge all on one set: {again}"
        )
    same = (Counter(one.images) & Counter(other.images)).total()
    raise UsageError(
        f"{one.name} and {other.name} were judged on the same images, of which {shared - same:,} "
        f"have different labels. To judge all by one set of labels: {again}"
    )
