"""`--robust p`: how steady a model's answers are while an image slowly changes.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.2. The flip probability and the
distance of the five surest classes are the paper's, without its normalization by AlexNet's; where
there is a reference run, by that one's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage.core import Advance
from tutelage.evaluation.intervals import Z
from tutelage.robustness.flips import TOP, flip_probability, pairs, surest, top5_distance
from tutelage.robustness.scores import mean_share
from tutelage.robustness.sequences import COURSES, NOISES, course, frames, set_for
from tutelage.robustness.suite import (
    Case,
    Columns,
    Reference,
    Subject,
    Suite,
    Summary,
    joined,
)

VIDEOS = "frames are generated: results on the published ImageNet-P videos are not the same"


@dataclass(frozen=True)
class Perturbed(Suite):
    """The 10 perturbation sequences."""

    confident: ClassVar[bool] = False

    seed: int = 0

    @property
    def name(self) -> str:
        """As in --robust."""
        return "p"

    @property
    def settings(self) -> dict[str, Any]:
        """What else the answers depend on."""
        return {"seed": self.seed, "version": 1}

    def cases(self, subject: Subject) -> tuple[Case, ...]:
        """Each perturbation, all of its frames."""
        return tuple(
            Case(self.name, name, "", course(name, subject.size).frames) for name in COURSES
        )

    def run(
        self, case: Case, subject: Subject, before: Mapping[str, Columns], advance: Advance
    ) -> Columns:
        """Of each image the share of frames whose answer flips, and how far its top 5 move."""
        return joined(
            [
                self._steadiness(case.name, subject, rows, images, advance)
                for rows, images in subject.batches()
            ]
        )

    def _steadiness(
        self, name: str, subject: Subject, rows: Tensor, images: Tensor, advance: Advance
    ) -> Columns:
        """The columns of some images (B, 3, S, S)."""
        tops = []
        for frame in frames(images, name, keys=subject.keys(rows), seed=self.seed):
            tops.append(surest(subject.logits(frame)))
            advance(len(rows))
        lists = torch.stack(tops).cpu()  # (T, B, 5)
        with_first = name in NOISES
        found = {"flips": flip_probability(lists[..., 0], with_first=with_first).float()}
        if len(subject.classes) > TOP:
            distances = top5_distance(*pairs(lists, with_first=with_first))
            found["top5"] = distances.double().mean(0).float()
        return found

    def summary(
        self, subject: Subject, found: Mapping[str, Columns], reference: Reference | None
    ) -> Summary:
        """The flip probability of each perturbation and their mean, beside the reference's."""
        flips = _means(found, "flips")
        numbers = {f"flips_{name}": value for name, value in flips.items()}
        numbers["mean_flips"] = _mean(flips)
        columns: dict[str, list[str | float]] = {
            "sequence": [name.replace("_", " ") for name in (*COURSES, "mean")],
            "flips": [*flips.values(), _mean(flips)],
        }
        lines = [f"answers that flip from frame to frame: {_with_interval(found)}"]
        notes = [VIDEOS]
        if len(subject.classes) > TOP:
            moves = _means(found, "top5")
            numbers |= {f"top5_{name}": value for name, value in moves.items()}
            numbers["mean_top5"] = _mean(moves)
            columns["top-5 distance"] = [
                f"{value:.2f}" for value in (*moves.values(), _mean(moves))
            ]
            lines.append(f"the five surest classes move by {_mean(moves):.2f} of 15 on average")
        if reference is not None:
            theirs = _means(reference.found, "flips")
            ratios = {name: flips[name] / theirs[name] for name in flips if theirs[name]}
            shown = [f"{ratios[name]:.2f}" if name in ratios else "-" for name in COURSES]
            columns[f"flips of {reference.name}"] = [*theirs.values(), _mean(theirs)]
            columns["relative"] = [*shown, f"{_mean(ratios):.2f}" if ratios else "-"]
            lines.append(f"those of {reference.name}: {_with_interval(reference.found)}")
            lines.append(f"difference: {_difference(found, reference.found)}")
            if ratios:
                numbers["relative_flips"] = _mean(ratios)
                lines.append(f"relative flip rate {_mean(ratios):.2f} ({reference.name}: 1)")
            if len(ratios) < len(COURSES):
                absent = ", ".join(sorted(set(COURSES) - set(ratios)))
                notes.append(
                    f"{reference.name} never flips under {absent}: not in the relative rate"
                )
        return Summary(
            suite=self.name,
            title=f"sequences, generated as for ImageNet-P at {set_for(subject.size)} px",
            numbers=numbers,
            lines=tuple(lines),
            notes=tuple(notes),
            columns=tuple(columns),
            rows=tuple(zip(*columns.values(), strict=True)),
        )


def _means(found: Mapping[str, Columns], column: str) -> dict[str, float]:
    """The mean over all images, by perturbation."""
    return {name: float(found[f"p-{name}"][column].double().mean()) for name in COURSES}


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _of_images(found: Mapping[str, Columns]) -> Tensor:
    """Each image's flip probability (N,), the mean over all perturbations."""
    return torch.stack([found[f"p-{name}"]["flips"] for name in COURSES]).double().mean(0)


def _with_interval(found: Mapping[str, Columns]) -> str:
    """As in '4.2 % (3.6 % to 4.9 %, 500 images)'."""
    return str(mean_share(_of_images(found)))


def _difference(found: Mapping[str, Columns], theirs: Mapping[str, Columns]) -> str:
    """Of the same images, by the normal approximation."""
    points = 100 * (_of_images(found) - _of_images(theirs))
    mean = float(points.mean())
    half = Z * float(points.std()) / math.sqrt(len(points)) if len(points) > 1 else math.inf
    return f"{mean:+.1f} points ({mean - half:+.1f} to {mean + half:+.1f}, 95 % interval)"
