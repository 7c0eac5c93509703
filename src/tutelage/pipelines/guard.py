"""Watches a student, and gives up on one that leads nowhere: the baseline is kept instead.

Three reasons: the loss is not finite (found by the loop), the answers have collapsed into a few
classes, or the finished student is below the baseline on the validation images. A pool may itself
be of few classes, so that validation images have to agree that the answers collapsed, where there
are any. Test images are never asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.catalog import name_of
from tutelage.core import Dice, generator
from tutelage.data.pixels import Chosen, Pixels
from tutelage.errors import GivenUp
from tutelage.evaluation.accuracy import accuracy, predict
from tutelage.loop import Exam
from tutelage.methods.method import Method
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.rounds import Round, compare_on_val, network_of
from tutelage.recipe import Recipe
from tutelage.run import Run
from tutelage.training_settings import NOISY_STUDENT

WATCHED = 512  # pool images that are asked at each exam
COLLAPSED = 1 / 3  # of the expected number of classes beyond one
PATIENCE = 0.5  # share of training before which few classes are no sign yet,
SETTLED = 200  # and updates: batch-norm statistics and the weights' average lag behind


@dataclass(frozen=True)
class Watch:
    """Images to ask, and how many classes a sound network finds in them."""

    pixels: Pixels
    expected: float | None  # effective number of classes; None where nothing tells it


def advice(method: Method) -> str:
    """What may help, in the words of the command line: not every method has every setting."""
    known, ways = vars(method), ["a lower --optim.lr", "more labels"]
    if "weight" in known:
        flag = "--weight" if name_of(method) == NOISY_STUDENT else "--options weight="
        ways.insert(0, f"a smaller weight of the pool ({flag}, now {known['weight']:g})")
    if "threshold" in known:
        ways.insert(0, f"a higher threshold (--options threshold=, now {known['threshold']:g})")
    if method.stored:
        ways.insert(0, "a higher --select.threshold")
    return f"try {', '.join(ways[:-1])}, or {ways[-1]}"


def effective_classes(labels: Tensor, num_classes: int) -> float:
    """exp of the entropy of the classes' shares: K where all are alike, 1 where there is one."""
    shares = torch.bincount(labels, minlength=num_classes) / len(labels)
    return float(torch.special.entr(shares).sum().exp())


def collapsed(found: float, expected: float | None) -> bool:
    """Whether so few effective classes are answered where these were expected; None: any number."""
    return expected is not None and found - 1 < COLLAPSED * (expected - 1)


def watch(prepared: Prepared, run: Run, baseline: Round | None, *, seed: int) -> Watch | None:
    """What to ask a student: pool images, and as many classes as the baseline finds in them.

    Without a baseline as many as so many labels have, where validation images can agree; None where
    there is no pool.
    """
    if "pool" not in prepared.parts:
        return None
    count = len(prepared.parts["pool"])
    dice = generator(seed, Dice.WATCH, 0)
    pixels = Chosen(prepared.pixels("pool"), torch.randperm(count, generator=dice)[:WATCHED])
    if baseline is not None:
        module = network_of(baseline.name, run, prepared)
        labels = predict(module, pixels, baseline.recipe.net.img_size).argmax(-1)
    elif "val" in prepared.parts:
        every = prepared.parts["labeled"].label_tensor()
        labels = every[torch.randint(len(every), (len(pixels),), generator=dice)]
    else:
        return Watch(pixels, None)
    return Watch(pixels, effective_classes(labels, len(prepared.classes)))


def exam_for(recipe: Recipe, prepared: Prepared, watched: Watch | None = None) -> Exam | None:
    """Looks at a network while it learns: validation accuracy, and the classes it answers.

    None where there is nothing to look at. The exam raises GivenUp where the answers collapse.
    """
    if "val" not in prepared.parts and watched is None:
        return None

    def judged(done: float) -> bool:
        return done >= PATIENCE and done * recipe.steps >= SETTLED * recipe.optim.accumulate

    size, precision, classes = recipe.net.img_size, recipe.precision, len(prepared.classes)

    def exam(module: nn.Module, done: float) -> dict[str, float]:
        found, agreed = {}, True
        if "val" in prepared.parts:
            pixels = prepared.pixels("val", canvas_for(size))
            truth = prepared.parts["val"].label_tensor()
            probs = predict(module, pixels, size, precision=precision)
            found["val_accuracy"] = accuracy(probs, truth).value
            answers = effective_classes(probs.argmax(-1), classes)
            agreed = collapsed(answers, effective_classes(truth, classes))
        if watched is not None:
            probs = predict(module, watched.pixels, size, precision=precision)
            found["classes"] = effective_classes(probs.argmax(-1), classes)
            if judged(done) and agreed and collapsed(found["classes"], watched.expected):
                raise GivenUp(
                    f"the answers have collapsed into {found['classes']:.1f} classes on "
                    f"{len(watched.pixels)} pool images, where {watched.expected:.1f} were "
                    f"expected; {advice(recipe.method)}"
                )
        return found

    return exam


def check_against(baseline: Round, student: Round, run: Run, prepared: Prepared) -> None:
    """Raises GivenUp where a finished student is below the baseline on the validation images.

    "Below" as in the verdict: paired interval and McNemar's test must agree.
    """
    if "val" not in prepared.parts:
        return
    paired = compare_on_val(baseline, student, run, prepared)
    if paired.outcome == "hurt":
        raise GivenUp(
            f"{student.name} is below the baseline on {paired.total} validation images: "
            f"{paired.points} points; {advice(student.recipe.method)}"
        )


def give_up(
    run: Run, prepared: Prepared, rounds: Sequence[Round], one: Round, reason: GivenUp
) -> None:
    """Note why the run ends here, and which network is kept: the last that passed."""
    with run.stage("guard") as notes:
        notes["round"], notes["reason"] = one.name, str(reason)
        notes["kept"] = _passed(rounds, one.name)[-1].name
    run.content["stages"][one.name]["state"] = "given up"
    prepared.screen.say(f"gave up on {one.name}: {reason}")


def sound(rounds: Sequence[Round], run: Run) -> tuple[Round, ...]:
    """All rounds, or where the guard gave up on one, those up to the last that passed."""
    if not run.is_done("guard"):
        return tuple(rounds)
    return _passed(rounds, run.notes("guard")["round"])


def _passed(rounds: Sequence[Round], failed: str) -> tuple[Round, ...]:
    """The baseline, and whole rounds before the one that failed."""
    names = [one.name for one in rounds]
    before = rounds[: names.index(failed)]
    whole = [place for place, one in enumerate(before) if one.judged]
    return tuple(before[: whole[-1] + 1] if whole else before[:1])
