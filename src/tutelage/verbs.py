"""The verbs: what one does in the shell, the Python function of the same name does too.

Nothing heavy is imported until a verb is called. `train`, `selftrain` and `distill` take the fields
of their settings in jobs.py as keyword arguments; YAML files and flags have the same names.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from tutelage.data_verbs import Place, SeveralImages
from tutelage.deploy.predictions import Predictions, show, table_path, write_predictions
from tutelage.errors import UsageError
from tutelage.jobs import DistillSettings, SelftrainSettings, TrainSettings
from tutelage.launch import Outcome, run_distill, run_search, run_selftrain, run_train
from tutelage.search_settings import SearchSettings
from tutelage.values import from_plain

if TYPE_CHECKING:
    from tutelage.pipelines.search_answer import Found


def train(*, recipe: str | None = None, **settings: Any) -> Outcome:
    """Train by one method; keyword arguments are the fields of `TrainSettings`.

    `recipe` names settings to begin with, such as "efficientnetv2_progressive".
    """
    from tutelage.data.find import with_addresses
    from tutelage.recipes.read import with_recipe

    plain, given = with_addresses(settings)
    return run_train(from_plain(TrainSettings, with_recipe(recipe, "train", plain)), given)


def selftrain(*, recipe: str | None = None, **settings: Any) -> Outcome:
    """Learn from labels and pool; keyword arguments are the fields of `SelftrainSettings`.

    `recipe` names settings to begin with, such as "noisy_student".
    """
    from tutelage.data.find import with_addresses
    from tutelage.recipes.read import with_recipe

    plain, given = with_addresses(settings)
    return run_selftrain(
        from_plain(SelftrainSettings, with_recipe(recipe, "selftrain", plain)), given
    )


def distill(*, teacher: Any, recipe: str | None = None, **settings: Any) -> Outcome:
    """Learn from ready teachers; keyword arguments are the fields of `DistillSettings`.

    A teacher is a name as on the command line, or a network that takes images in [0, 1]; several
    stand in a list. `recipe` names settings to begin with, such as "usi".
    """
    from tutelage.data.find import with_addresses
    from tutelage.networks.build import weight_digest
    from tutelage.recipes.read import with_recipe

    teachers = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    modules = tuple(one for one in teachers if not isinstance(one, str | Path))
    names = [str(one) for one in teachers if isinstance(one, str | Path)]
    names += [f"module:{weight_digest(module)}" for module in modules]
    plain, given = with_addresses(settings)
    merged = with_recipe(recipe, "distill", plain | {"teacher": names})
    return run_distill(from_plain(DistillSettings, merged), modules, given)


def search(**settings: Any) -> "Found":
    """The best network for data and device; keyword arguments are the fields of `SearchSettings`.

    Several processes may search with the same `out` and share the work.
    """
    from tutelage.data.find import with_addresses

    plain, given = with_addresses(settings)
    return run_search(from_plain(SearchSettings, plain), given)


def predict(
    run: Positional[Place],
    images: Positional[SeveralImages],
    *,
    out: Place | None = None,
    top: int = 5,
    max_error: float | None = None,
    device: str = "auto",
) -> Predictions:
    """Label image files with a trained model.

    Args:
        run: A run folder, a round's folder (RUN/rounds/NAME), or a model folder.
        images: Files, folders (at any depth) and globs, or one address of any other source.
        out: A .csv or .parquet file; default: a table on the terminal.
        top: How many classes to name for each image.
        max_error: Answer "unknown" where the model is not sure enough, so that of its answers at
            most this share is wrong, with 95 % confidence, as in 0.02.
        device: cpu, cuda, mps; auto: the first accelerator, else the CPU.
    """
    from tutelage.deploy.model_folder import load_model
    from tutelage.deploy.predict import images_of, predict_files
    from tutelage.deploy.refuse import answer_from, say_answered
    from tutelage.learner import choose_device
    from tutelage.progress import Screen

    if top < 1:
        raise UsageError(f"--top is at least 1, got {top}")
    if max_error is not None and not 0 < max_error < 1:
        raise UsageError(f"--max-error is above 0 and below 1, as in 0.02, got {max_error}")
    if out is not None:
        out = table_path(Path(out))
    screen = Screen()
    found_images = images_of(images, screen.say)
    model = load_model(Path(run), choose_device(device))
    least = None if max_error is None else answer_from(model, Path(run), max_error, screen)
    with screen.bar("predict", len(found_images)) as bar:
        found = predict_files(
            model, found_images, top=top, answer_from=least, advance=bar.advance
        )  # fmt: skip
    say_answered(found, screen)
    for path, problem in found.unreadable:
        screen.say(f"left out {path}: {problem}")
    if out is None:
        show(found)
    else:
        write_predictions(out, found)
        screen.say(f"{len(found.paths):,} rows in {out}")
    return found


def report(run: Positional[Place]) -> Path:
    """Write RUN/report/index.html: one self-contained page.

    Args:
        run: A run folder, finished or not.
    """
    from tutelage.progress import Screen
    from tutelage.reports.page import write_report

    path = write_report(Path(run))
    Screen().result(f"report: {path}")
    return path


def models(pattern: Positional[str] = "*", *, pretrained: bool = False) -> list[str]:
    """The networks that can be trained: timm's names, and others, that match a pattern.

    Args:
        pattern: With * and ?; a part of a name finds all that contain it.
        pretrained: Only those with pre-trained weights, one line for each set of weights.
    """
    from tutelage.networks.names import listed

    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    names = listed(pattern, pretrained=pretrained)
    if not names:
        from tutelage.values import nearest

        known = listed("*", pretrained=pretrained)
        raise UsageError(f"no model matches {pattern}{nearest(pattern.strip('*'), known)}")
    for name in names:
        print(name)
    return names


def list_methods(name: Positional[str] = "") -> list[str]:
    """The methods there are, with paper and one sentence; or one of them, with its options.

    Args:
        name: A method, to see its options; default: all methods.
    """
    from tutelage.catalog import describe, names

    if name:
        one = describe(name)
        print(
            f"{one.name}: {one.sentence}.\n{one.paper}\n\ntutelage {one.verb} --method {one.name}"
        )
        for field, default, comment in one.options:
            print(f"  {f'--options {field}={default}':<40} {comment}".rstrip())
        return [one.name]
    for verb in ("train", "selftrain", "distill"):
        print(f"tutelage {verb} --method …")
        for one in map(describe, names()):
            if one.verb == verb:
                print(f"  {one.name:<28} {one.sentence}\n  {'':<28} {one.paper}")
    return names()


def demo(*, out: Place = Path("tutelage-demo"), seed: int = 0) -> Outcome:
    """Self-train on 50 handwritten digits and 1,387 unlabeled ones; takes a few minutes.

    Args:
        out: Folder for the images and the run.
        seed: Of the split and of the training.
    """
    from tutelage.data.digits import write_digits
    from tutelage.pipelines.digits_demo import NEXT, digits_settings
    from tutelage.progress import Screen

    out = Path(out)
    images = out / f"digits-{seed}"
    write_digits(images, seed=seed)
    outcome = run_selftrain(digits_settings(images, out / f"run-{seed}", seed=seed))
    Screen().result(NEXT.format(run=out / f"run-{seed}", images=images))
    return outcome
