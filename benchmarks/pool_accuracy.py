"""Estimated accuracy of pool labels against their truth: each round, and by draws of judged images.

python -m benchmarks.pool_accuracy RUN --pool POOL --truth TRUTH.csv --out OUT [--judged 400]
    [--draws 150] [--quick]

RUN is a run of train or selftrain on folders of images, with a validation part. TRUTH.csv has the
columns path and label of each pool image. Every round's network labels the pool images that are no
copies of the run's labeled or validation images (kept in OUT, and not asked again; --quick: the
last round alone). Then

round   the estimate from the run's own validation part against the truth: overall, of the labels
        with a confidence of 0.5 or more, by class and by bin of calibrated confidence
draws   of the same answers so many judged images are drawn, which leave the pool, and the estimate
        is made again for each draw: how often the 95 % interval holds the truth, its width, and the
        error; beside it the mean of calibrated confidences alone, with the temperature's interval
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.journal import machine
from tutelage.data.examine import examine
from tutelage.data.find import open_source
from tutelage.data.parts import pool_images
from tutelage.data.source import Images
from tutelage.deploy.judge import answers
from tutelage.deploy.model_folder import load_model
from tutelage.evaluation.intervals import Z
from tutelage.evaluation.pool_accuracy import (
    CONFIDENCE_BINS,
    Answered,
    Estimate,
    Quality,
    quality,
    stored_top,
    tempered_top,
)
from tutelage.evaluation.temperature import fit_temperature
from tutelage.files import write_json, write_with
from tutelage.pipelines.manifest import contents_of, read_manifest
from tutelage.progress import Screen

KEPT = 0.5  # raw confidence
TOP = 10


def unseen(pool: str, run: Path, screen: Screen) -> Images:
    """The pool's images of which the run has no copy among its labels."""
    images, _ = pool_images(open_source(pool))
    known = contents_of(run, ("labeled", "val"))
    with screen.bar("look", len(images)) as bar:
        facts = examine(images, bar.advance)
    return images.keep([row for row, fact in enumerate(facts) if fact.content not in known])


def said(folder: Path, images: Images, file: Path, screen: Screen) -> Tensor:
    """A round's answers (N, K), from the file where they are there."""
    if not file.exists():
        probs = answers(load_model(folder), images, screen, folder.name)
        write_with(file, lambda part: torch.save(probs, part))
    found: Tensor = torch.load(file, weights_only=True)
    return found


def answered(probs: Tensor, temperature: float) -> Answered:
    """As a label table would have them."""
    classes, top, surest = stored_top(probs, TOP)
    tempered = tempered_top(top, surest, probs.shape[1], temperature)
    return Answered(classes[:, 0], surest, tempered)


def alone(its: Answered, probs: Tensor, low: float, high: float) -> Estimate:
    """The mean calibrated confidence, with the temperature's interval and the binomial part."""
    mean = float(its.confidence.mean())
    ends = [float(answered(probs, value).confidence.mean()) for value in (low, high)]
    spread = float((its.confidence * (1 - its.confidence)).mean())
    half = Z * (spread / len(probs)) ** 0.5
    return Estimate(len(probs), mean, min(ends) - half, max(ends) + half, 0)


def parts_of(found: Quality, its: Answered, truth: Tensor, classes: tuple[str, ...]) -> list[
    tuple[str, str, Estimate, float]
]:  # fmt: skip
    """Kind, name, estimate and truth of every part of an estimate."""
    right = (its.labels == truth).double()
    place = (its.confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    parts = [
        ("overall", "", found.overall, float(right.mean())),
        ("kept", "", found.kept, float(right[its.surest >= KEPT].mean())),
    ]
    for name, one in found.per_class:
        parts.append(("class", name, one, float(right[its.labels == classes.index(name)].mean())))
    for low, high, one in found.per_bin:
        some = right[place == round(low * CONFIDENCE_BINS)]
        parts.append(("bin", f"{low:.1f} to {high:.1f}", one, float(some.mean())))
    return parts


def estimate(
    probs: Tensor, truth: Tensor, judged: Tensor, known: Tensor, classes: tuple[str, ...]
) -> list[tuple[str, str, Estimate, float]]:
    """All parts of one estimate, and of confidences alone, overall and by class."""
    temperature = fit_temperature(judged, known)
    its, other = answered(probs, temperature.value), answered(judged, temperature.value)
    found = quality(
        its, its.surest >= KEPT, other, known, classes=classes, temperature=temperature.value
    )  # fmt: skip
    parts = parts_of(found, its, truth, classes)
    for k, name in enumerate(("", *classes), -1):
        some = torch.ones_like(its.labels) > 0 if k < 0 else its.labels == k
        if some.any():
            fewer = Answered(its.labels[some], its.surest[some], its.confidence[some])
            one = alone(fewer, probs[some], temperature.low, temperature.high)
            right = float((its.labels == truth)[some].double().mean())
            parts.append((f"alone, {'overall' if k < 0 else 'class'}", name, one, right))
    return parts


def of_draws(
    probs: Tensor, truth: Tensor, classes: tuple[str, ...], judged: int, draws: int
) -> dict[str, dict[str, float]]:
    """Coverage, mean width and root mean squared error of each kind of part."""
    found: dict[str, list[tuple[bool, float, float]]] = defaultdict(list)
    for seed in range(draws):
        order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(seed))
        some, rest = order[:judged], order[judged:]
        for kind, _, one, right in estimate(
            probs[rest], truth[rest], probs[some], truth[some], classes
        ):
            inside = one.low <= right <= one.high
            found[kind].append((inside, one.high - one.low, (one.value - right) ** 2))
    table = {}
    for kind, rows in found.items():
        inside, width, square = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
        table[kind] = {"holds": inside, "width": width, "error": square**0.5}
    return table


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--judged", type=int, default=400)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    screen, images = Screen(), unseen(given.pool, given.run, Screen())
    classes = tuple(json.loads((given.run / "data" / "classes.json").read_text()))
    with given.truth.open() as file:
        labels = {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}
    truth = torch.tensor([classes.index(labels[Path(name).name]) for name in images.names])
    val = read_manifest(given.run / "data", ("val",))["val"]
    rounds = sorted((given.run / "rounds").iterdir())[-1 if given.quick else 0 :]
    print(f"{len(images):,} pool images, {len(val)} validation images; {machine()}")
    given.out.mkdir(parents=True, exist_ok=True)
    for folder in rounds:
        probs = said(folder, images, given.out / f"{folder.name}.pt", screen)
        known = said(folder, val, given.out / f"{folder.name}-val.pt", screen)
        parts = estimate(probs, truth, known, val.label_tensor(), classes)
        for kind, name, one, right in parts:
            print(f"{folder.name}  {kind:<15} {name:<12} {one!s:<20} truth {100 * right:.1f} %")
        table = of_draws(probs, truth, classes, given.judged, given.draws)
        for kind, row in table.items():
            shown = ", ".join(f"{key} {100 * value:.1f} %" for key, value in row.items())
            print(f"{folder.name}  {given.draws} draws of {given.judged}: {kind:<15} {shown}")
        write_json(given.out / f"{folder.name}.json", {"draws": table})


if __name__ == "__main__":
    main()
