"""The images that a run works with, as it wrote them down; the same ones when it goes on."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.data.examine import examine
from tutelage.data.facts import Part
from tutelage.data.find import Given, open_source
from tutelage.data.source import Images, Source
from tutelage.data.stamps import Asked, stamps_of
from tutelage.data.storage import absolute, is_given
from tutelage.deploy.model_folder import run_of, trained_in
from tutelage.errors import DataProblem, UsageError
from tutelage.evaluation.calibrated import Calibration
from tutelage.files import as_written, read_json, read_parquet, write_json, write_with
from tutelage.run import Run
from tutelage.values import digest

COLUMNS = {  # of manifest.parquet, a row an image
    "part": str, "path": str, "label": int, "content": str, "bytes": int, "changed": int
}  # fmt: skip


def write_manifest(data: Path, parts: dict[str, Part]) -> None:
    """Every image in use, and what its file looked like; the roots beside it."""
    columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
    for name, part in parts.items():
        labels = part.images.labels or (-1,) * len(part.images)
        stamps = [stamp for stamp in _asked(part.images).stamps if stamp is not None]  # all
        columns["part"] += [name] * len(part.images)
        columns["path"] += part.images.names
        columns["label"] += labels
        columns["content"] += [fact.content for fact in part.facts]
        columns["bytes"] += [stamp[0] for stamp in stamps]
        columns["changed"] += [stamp[1] for stamp in stamps]
    sources = {name: absolute(part.images.source.address) for name, part in parts.items()}
    write_json(data / "sources.json", sources)
    write_with(data / "manifest.parquet", lambda part: pq.write_table(pa.table(columns), part))


def has_manifest(run: Path) -> bool:
    """Whether a run has written down its images."""
    return (run / "data" / "manifest.parquet").exists()


def read_manifest(
    data: Path, wanted: Sequence[str] = (), *, given: Given | None = None
) -> dict[str, Images]:
    """The parts as written, or the wanted ones of them.

    Files of this machine that change while the parts are in use are refused by `Images.read`.
    Raises DataProblem where a file of theirs is gone, or holds another image than before.
    """
    names = read_json(data / "classes.json")
    columns = read_parquet(data / "manifest.parquet", list(COLUMNS)).to_pydict()
    addresses = read_json(data / "sources.json")
    with as_written(data):
        _check(names, columns, addresses)
    classes = tuple(names)
    rows_of: dict[str, list[int]] = {name: [] for name in addresses}
    for row, name in enumerate(columns["part"]):
        rows_of[name].append(row)
    wanted = [name for name in addresses if not wanted or name in wanted]
    opened = {a: _opened_again(a, given) for a in dict.fromkeys(addresses[n] for n in wanted)}
    parts = {}
    for name in wanted:
        names = tuple(columns["path"][row] for row in rows_of[name])
        labels = tuple(columns["label"][row] for row in rows_of[name])
        source = opened[addresses[name]]  # one for all parts there, as some hold the whole file
        images = Images(source, names, None if name == "pool" else labels, classes)
        before = [(columns["bytes"][row], columns["changed"][row]) for row in rows_of[name]]
        asked = _asked(images)
        changed = [row for row, now in enumerate(asked.stamps) if now != before[row]]
        _check_same(images, changed, [columns["content"][row] for row in rows_of[name]])
        parts[name] = _watched(images, asked)
    return parts


def _check(classes: Any, columns: dict[str, list[Any]], addresses: Any) -> None:
    """Raises ValueError or TypeError where what is written is not what `write_manifest` writes."""
    for name, kind in COLUMNS.items():
        if not all(isinstance(value, kind) for value in columns[name]):
            raise TypeError(f"a value of {name} in manifest.parquet is none")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("classes.json is no list of names")
    if not isinstance(addresses, dict) or not all(isinstance(a, str) for a in addresses.values()):
        raise TypeError("sources.json has no addresses")
    unknown = set(columns["part"]).difference(addresses)
    if unknown:
        raise ValueError(f"sources.json has no address of {min(unknown)}")
    if not all(-1 <= label < len(classes) for label in columns["label"]):
        raise ValueError("a label in manifest.parquet is none of the classes")


def known_to(run: Path | None, contents: Collection[str]) -> defaultdict[str, set[str]]:
    """Which of these content hashes are images of a run, by part: it trained on "labeled", and may
    have learned from "pool", too. None where there is no run, as a model alone doesn't say."""
    known = defaultdict[str, set[str]](set)
    if run is not None and has_manifest(run):
        for part, _, content in _contents(run):
            if content in contents:
                known[part].add(content)
    return known


def has_not_seen(name: str, run: Run, judge: str, *, what: str = "the teacher") -> None:
    """Raises UsageError where a network's run trained on images of the part that judges here."""
    known = _known_by(name, run, judge)
    seen = known["labeled"] | known["pool"]
    if seen:
        raise UsageError(
            f"{what} {name} was trained on {len(seen)} of the images that would judge it: "
            "give --test images that no run has seen, or the same --seed and --val-fraction"
        )


def has_not_learned_val(name: str, run: Run) -> None:
    """Raises UsageError where given weights have learned the labels of images that are to watch and
    to calibrate what is made of them."""
    learned = _known_by(name, run, "val")["labeled"]
    if learned:
        raise UsageError(
            f"--init {name} was trained on {len(learned)} of the validation images, so that they "
            "would call the model too sure: give the --seed and --val-fraction of that run, other "
            "--val images, or --val-fraction 0"
        )


def _known_by(name: str, run: Run, part: str) -> defaultdict[str, set[str]]:
    """Which images of a part a network's run knows, as `known_to` says it."""
    folder = trained_in(Path(name))
    trained = None if folder is None else run_of(folder)
    return known_to(trained, contents_of(run.path, (part,)))


def learned_notes(run: Path, contents: set[str], its: Calibration | None) -> list[str]:
    """What to say where a run was trained, validated or calibrated on images that it is judged on,
    or had them in its pool; `its` is the model's calibration."""
    notes, of, known = [], f"of these {len(contents):,} images", known_to(run, contents)
    trained, validated = known["labeled"], known["val"]
    if trained:
        notes.append(
            f"warning: {run} was trained on {len(trained):,} {of}, of which it knows more than of "
            "others: what is said of it is too good"
        )
    if pooled := known["pool"]:
        notes.append(
            f"note: {len(pooled):,} {of} were in the pool of {run}, which may have been learned "
            "from without their labels: others are a fairer test"
        )
    if validated:
        how = "validated" if its is None or its.contents else "validated and calibrated"
        notes.append(
            f"warning: {run} was {how} on {len(validated):,} {of}: calibration error and answers "
            "at a stated error rate look better than they are, and accuracy may"
        )
    if its is not None and its.contents == digest(sorted(contents)):
        notes.append(
            f"warning: {run} was calibrated on these {len(contents):,} images: calibration error "
            "and answers at a stated error rate look better than they are"
        )
    return notes


def contents_of(run: Path, parts: Sequence[str]) -> set[str]:
    """Content hashes of a run's images in these parts, as its manifest has them."""
    return {content for part, _, content in _contents(run) if part in parts}


def contents_by_name(run: Path, part: str) -> dict[str, str]:
    """Content hash of each image of a part, by its name."""
    return {name: content for its, name, content in _contents(run) if its == part}


def _contents(run: Path) -> Iterator[tuple[str, str, str]]:
    """Part, name and content hash of each image of a run."""
    wanted = ["part", "path", "content"]
    columns = read_parquet(run / "data" / "manifest.parquet", wanted).to_pydict()
    return zip(*(columns[name] for name in wanted), strict=True)


def _opened_again(address: str, given: Given | None) -> Source:
    """The source of a run; raises DataProblem where it is no longer there."""
    try:
        return open_source(address, given)
    except UsageError as error:
        if is_given(address):
            raise DataProblem(str(error)) from error
        raise DataProblem(
            f"{address} is gone since the run began: put it back, or start a new run"
        ) from error


def _asked(images: Images) -> Asked:
    """What every image's file is like; raises DataProblem where one is gone."""
    found = stamps_of(images.source, images.names)
    if None in found.stamps:
        raise DataProblem(
            f"{images.where(found.stamps.index(None))} is gone since the run began: put it back, "
            "or start a new run"
        )
    return found


def _watched(images: Images, asked: Asked) -> Images:
    """The images, whose files must stay as they are where they lie on this machine."""
    here = np.array(asked.here, bool)
    if not here.any():
        return images
    kept = np.array(asked.stamps, np.int64).reshape(-1, 2)
    kept[~here] = -1
    return replace(images, stamps=kept)


def _check_same(images: Images, rows: Sequence[int], contents: Sequence[str]) -> None:
    """Raises DataProblem where the file of one of these rows holds another image than the run
    began with; one that was copied back has another time, and the same pixels."""
    if not rows:
        return
    for row, facts in zip(rows, examine(images.keep(rows)), strict=True):
        if not facts.content or facts.content != contents[row]:
            raise DataProblem(
                f"{images.where(row)} has changed since the run began: put it back, or start a "
                "new run"
            )
