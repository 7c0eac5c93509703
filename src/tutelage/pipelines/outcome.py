"""The end of a run: judge every network once, say what the pool was worth, keep the model."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tutelage.deploy.model_folder import load_model, save_model
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.evaluation.calibrated import Calibration, calibrated
from tutelage.evaluation.intervals import Accuracy
from tutelage.evaluation.judgement import judged
from tutelage.evaluation.paired import compare, sentence
from tutelage.files import as_written, read_parquet, whole
from tutelage.networks.build import parameters
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.resolution import decided
from tutelage.pipelines.rounds import Round, network_of
from tutelage.reports.contents import CAUSES, JUDGES
from tutelage.run import Run

# what run.json has of a part's judgement, beside the accuracy
SHOWN = ("nll", "brier", "calibration", "temperature", "before_temperature")


def conclude(rounds: Sequence[Round], run: Run, prepared: Prepared) -> None:
    """Judge all rounds on the judging images and keep the last network as the model, or the one
    before where validation images speak against its fix."""
    rounds = decided(rounds, run, prepared)
    if not run.is_done("evaluate"):
        with run.stage("evaluate") as notes:
            notes |= _judge(rounds, run, prepared)
            _add_calibration(notes["rounds"], rounds[-1].name, run, prepared)
    if not run.is_done("model"):
        with run.stage("model") as notes:
            found = _keep(rounds[-1], run, prepared)
            if found is not None:
                notes["calibration"] = found.line()


def _judge(rounds: Sequence[Round], run: Run, prepared: Prepared) -> dict[str, Any]:
    """Accuracy of every round, and the paired verdict of the last against the baseline.

    In float32, as `evaluate` and `predict` compute, so that they agree.
    """
    judge = prepared.judge
    if judge not in prepared.parts:
        return {"judge": None, "rounds": [], "verdict": None}
    labels, right, rows = prepared.parts[judge].label_tensor(), {}, []
    for one in rounds:
        folder = run.path / "rounds" / one.name
        module = network_of(one.name, run, prepared)
        row: dict[str, Any] = {
            "name": one.name, "model": one.recipe.net.name, "parameters": parameters(module)
        }  # fmt: skip
        for part in ("val", "test"):
            if part in prepared.parts:
                size = one.recipe.net.img_size
                probs = predict(module, prepared.pixels(part, canvas_for(size)), size)
                write_predictions(folder / f"predictions-{part}.parquet", prepared, part, probs)
                row[part] = asdict(accuracy(probs, prepared.parts[part].label_tensor()))
                if part == judge:
                    right[one.name] = probs.argmax(-1) == labels
        rows.append(row)
    compared = [one.name for one in rounds if not one.fixes]  # larger images are another cause
    first, last = compared[0], compared[-1]
    notes: dict[str, Any] = {"judge": judge, "rounds": rows, "verdict": None}
    if last != first and run.content["verb"] in CAUSES:
        paired = compare(right[first], right[last], seed=0)
        notes["verdict"] = asdict(paired) | {
            "sentence": sentence(
                paired, f"{paired.total:,} {JUDGES[judge]} images", CAUSES[run.content["verb"]]
            ),
            "outcome": paired.outcome,
            "round": last,
        }
    return notes


def write_predictions(path: Path, prepared: Prepared, part: str, probs: Tensor) -> None:
    """One row an image: path, true label, answer, confidence, and all probabilities."""
    images, classes = prepared.parts[part], prepared.classes
    confidence, answer = probs.max(-1)
    table = pa.table(
        {
            "path": list(images.names),
            "label": [classes[i] for i in images.label_tensor().tolist()],
            "predicted": [classes[i] for i in answer.tolist()],
            "confidence": confidence.numpy(),
            "probs": list(probs.numpy()),
        }
    )
    with whole(path) as part_path:
        pq.write_table(table, part_path, compression="zstd")


def _keep(one: Round, run: Run, prepared: Prepared) -> Calibration | None:
    """Copy the network into model/, with classes, preprocessing, calibration and a card."""
    model = load_model(run.path / "rounds" / one.name)
    its = _calibration(one.name, run, prepared)
    lines = [] if its is None else [its.line()]
    model = replace(model, calibration=its)
    save_model(run.path / "model", model, _card(one, run, prepared, lines))
    return its


def _calibration(name: str, run: Run, prepared: Prepared) -> Calibration | None:
    """That of a round, from its answers to the validation images; None where there are none."""
    if "val" not in prepared.parts:
        return None
    probs = kept_probs(run.path / "rounds" / name, "val")
    labels = prepared.parts["val"].label_tensor()
    return calibrated(probs, labels, "the run's validation part")


def kept_probs(folder: Path, part: str) -> Tensor:
    """The probabilities (N, K) that `write_predictions` kept."""
    file = folder / f"predictions-{part}.parquet"
    column = read_parquet(file, ["probs"])["probs"]
    with as_written(file):
        return torch.tensor(np.stack(column.to_numpy()))


def _add_calibration(
    rows: list[dict[str, Any]], last: str, run: Run, prepared: Prepared
) -> None:  # fmt: skip
    """What the confidences of the last round come to on each part, into its row."""
    if not rows:
        return
    its = _calibration(last, run, prepared)
    for part in ("val", "test"):
        if part in rows[-1]:
            probs = kept_probs(run.path / "rounds" / last, part)
            found = judged(
                probs, prepared.parts[part].label_tensor(), prepared.classes, calibration=its
            )
            plain = found.plain()
            rows[-1].setdefault("calibration", {})[part] = {key: plain[key] for key in SHOWN}


def _card(one: Round, run: Run, prepared: Prepared, more: Sequence[str]) -> str:
    """A short README for whoever gets the model."""
    lines = [
        f"# {one.recipe.net.name} for {len(prepared.classes)} classes",
        "",
        f"Classes: {', '.join(prepared.classes)}.",
        "",
        *summary(run.content),
        *more,
        "",
        "Use: `tutelage predict MODEL_FOLDER IMAGES...`, or in Python "
        "`tutelage.load_model(MODEL_FOLDER)`.",
        "How it was made: config.yaml and environment.json of the run.",
    ]
    return "\n".join(lines) + "\n"


def summary(content: dict[str, Any]) -> list[str]:
    """The outcome of a run in a few lines: each round's accuracy, then the verdict.

    Raises Damaged where its run.json lacks them.
    """
    with as_written(Path("run.json")):
        return _summary(content)


def _summary(content: dict[str, Any]) -> list[str]:
    """The lines."""
    outcome, guard = content["stages"]["evaluate"], content["stages"].get("guard")
    judge = outcome["judge"]
    if judge is None:
        return ["no images to judge on: give --test or --val to learn the accuracy"]
    lines = []
    if guard is not None:
        lines += [f"gave up on {guard['round']}: {guard['reason']}", f"{guard['kept']} is kept"]
    if "fix" in content["stages"]:
        lines.append(content["stages"]["fix"]["sentence"])
    lines.append(f"accuracy on the {JUDGES[judge]} images (95 % interval):")
    names = max(len(row["name"]) for row in outcome["rounds"])
    for row in outcome["rounds"]:
        who = f"{row['name']:<{names}}  {row['model']:<20}"
        lines.append(f"  {who} {Accuracy(**row[judge])}")
    if outcome["verdict"] is not None:
        verdict = outcome["verdict"]
        lines.append(verdict["sentence"])
        test = f"McNemar p = {verdict['p_value']:.2g}"
        lines.append(f"  ({verdict['gained']} images gained, {verdict['lost']} lost, {test})")
        if verdict["outcome"] == "hurt" and guard is None:
            best = outcome["rounds"][0]["name"]
            lines.append(
                f"  the labels alone do better here: their model is rounds/{best} of the run"
            )
    kept = content["stages"].get("model", {})
    return [*lines, kept["calibration"]] if "calibration" in kept else lines
