"""The command `tutelage`: a verb and its flags -> the function of the same name."""

import gc
import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from tutelage.distributed import launcher
from tutelage.ends import NO_MEMORY, end_at_once, stop_on_signals, threads_begin
from tutelage.errors import Dismissed, Interrupted, TutelageError, UsageError, out_of_memory

VERBS = {  # name: what it does, an example
    "check": ("look at every image before training", "--data labeled --unlabeled pool"),
    "train": (
        "train by one method, on the labels alone by default",
        "--data labeled --model resnet18 --out runs/labels",
    ),
    "selftrain": (
        "train on labels and pool, and say whether the pool helped",
        "--data labeled --unlabeled pool --model resnet18 --budget 1h --out runs/first",
    ),
    "distill": (
        "train a student on what trained teachers answer",
        "--data labeled --unlabeled pool --teacher runs/first --student resnet18 --out runs/small",
    ),
    "search": (
        "which network for these images and this device, by short trainings",
        "--data labeled --space timm:'resnet*,mobilenet*' --latency 4ms --out runs/search",
    ),
    "methods": ("list the methods, with paper and options", "fixmatch"),
    "label": ("label a pool with a trained model", "--model runs/first --data pool --out labels"),
    "select": (
        "choose what to learn from, out of a pool's labels",
        "labels --out selected --threshold 0.3 --per-class 1000",
    ),
    "evaluate": (
        "how good a trained model is, and how robust",
        "runs/first --data test --robust c,p,fgsm,pgd",
    ),
    "compare": (
        "which of several models is better, and which is faster",
        "runs/first runs/small --latency cpu --out comparison",
    ),
    "calibrate": (
        "calibrate a model's confidences (temperature scaling), on images new to it",
        "runs/first --data val",
    ),
    "predict": ("label image files with a trained model", "runs/first pool --out labels.csv"),
    "report": ("write a run's page again", "runs/first"),
    "models": ("list the networks", "'efficientnet*' --pretrained"),
    "demo": ("self-train on handwritten digits, in a few minutes", ""),
}
TRAINING = ("train", "selftrain", "distill", "search")  # which take --config and --recipe


def run() -> NoReturn:
    """The command, from its words to the end of its process."""
    gc.disable()  # until `_begin`
    end_at_once(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 ok, 2 usage, 3 data, 4 interrupted, 1 anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _write_any_sign()
    try:
        return _main(arguments)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for what is flushed at the end
        return 0


def _write_any_sign() -> None:
    """Write a sign as an escape where a terminal or file has no such sign."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _main(arguments: list[str]) -> int:
    """What `main` does, where someone reads."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"tutelage {version('tutelage')}")
        return 0
    stop_on_signals()
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # the check has said it
    try:
        with threads_begin():
            return _call(arguments[0], arguments[1:])
    except Dismissed as error:
        return error.exit_code
    except KeyboardInterrupt:
        return _stopped("stopped", arguments)
    except Interrupted as error:
        return _stopped(str(error), arguments, aloud=True)
    except BrokenPipeError:
        raise
    except (TutelageError, OSError) as error:
        print(_said(error, arguments[0]), file=sys.stderr)
        return error.exit_code if isinstance(error, TutelageError) else TutelageError.exit_code
    except (MemoryError, RuntimeError) as error:  # torch raises the latter, for a CPU too
        if not out_of_memory(error):
            raise
        why = str(error).partition("\n")[0] or "no more to be had"
        print(f"tutelage {arguments[0]}: out of memory ({why}): {NO_MEMORY}", file=sys.stderr)
        return TutelageError.exit_code


def _said(error: Exception, verb: str) -> str:
    """An error for the screen."""
    from tutelage.values import visible

    words = f"tutelage {verb}: {error}"
    if verb == "select":  # whose flags have a prefix in selftrain
        words = words.replace("--select.", "--")
    return visible(words)


def _stopped(reason: str, arguments: list[str], *, aloud: bool = False) -> int:
    """Say how to go on, where of several processes this is the one to say it."""
    if aloud or not launcher.number():
        again = [word for word in arguments if word != "--overwrite"]
        print(f"{reason}\nto go on: {shlex.join(['tutelage', *again])}", file=sys.stderr)
    return Interrupted.exit_code


def _help() -> str:
    """The verbs, without loading anything."""
    lines = [
        "usage: tutelage VERB [flags]      (tutelage VERB --help lists a verb's flags)",
        "",
        "Turn a few labeled images and many unlabeled ones into an image classifier.",
        "",
        *(f"  {name:<10} {what}" for name, (what, _) in VERBS.items()),
        "",
        "examples",
        *(f"  tutelage {name} {example}".rstrip() for name, (_, example) in VERBS.items()),
        "",
        "exit codes",
        "  0  done",
        "  1  a training given up, no memory or disk space left, or any other error",
        "  2  a wrong flag, name or path; a run folder in use or of other settings; a host that",
        "     doesn't answer; a damaged file of a run or model",
        "  3  a problem with the images",
        "  4  interrupted: the same command resumes",
    ]
    return "\n".join(lines)


def _call(verb: str, arguments: list[str]) -> int:
    """Parse a verb's flags and do it; returns the exit code."""
    from tutelage.values import nearest

    if verb not in VERBS:
        raise UsageError(f"there is no such command, see tutelage --help{nearest(verb, VERBS)}")
    from tutelage import (
        data_verbs,
        jobs,
        judging_settings,
        judging_verbs,
        launch,
        search_settings,
        verbs,
    )

    shared: dict[str, tuple[type[Any], Callable[[Any], object]]] = {  # by several processes
        "train": (jobs.TrainSettings, launch.run_train),
        "selftrain": (jobs.SelftrainSettings, launch.run_selftrain),
        "distill": (jobs.DistillSettings, launch.run_distill),
        "label": (data_verbs.LabelSettings, data_verbs.run_label),
    }
    alone: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
        "search": (search_settings.SearchSettings, launch.run_search),
        "evaluate": (judging_settings.EvaluateSettings, judging_verbs.run_evaluate),
        "compare": (judging_settings.CompareSettings, judging_verbs.run_compare),
        "calibrate": (judging_settings.CalibrateSettings, judging_verbs.run_calibrate),
    }
    functions: dict[str, Callable[..., object]] = {
        "check": data_verbs.check, "select": data_verbs.select,
        "predict": verbs.predict, "report": verbs.report,
        "models": verbs.models, "demo": verbs.demo, "methods": verbs.list_methods,
    }  # fmt: skip
    if verb not in shared:
        launcher.check_alone()
    if verb in functions:
        _begin(heavy=False)
        _parse(functions[verb], verb, arguments)
        return 0
    kind, run = (shared | alone)[verb]
    settings = (_settings if verb in TRAINING else _parse)(kind, verb, arguments)
    if verb in shared and settings.devices > 1 and not launcher.is_launched():
        _begin(heavy=False)
        command = [sys.executable, "-m", "tutelage", verb, *arguments]
        return launcher.run_in_processes(settings.devices, command)
    _begin(heavy=True)
    run(settings)
    return 0


def _begin(*, heavy: bool) -> None:
    """Let Python look for garbage from here on, where `run` has put that off, and not among what is
    loaded by now: of a start that loads torch and timm such looks took a quarter."""
    if gc.isenabled():  # called by another program
        return
    if heavy:
        import timm  # noqa: F401  # and with it torch and torchvision
    gc.freeze()
    gc.enable()


def _settings(kind: type[Any], verb: str, arguments: list[str]) -> Any:
    """Settings from flags, over those of --config's YAML file, over those of --recipe's."""
    import tyro

    from tutelage.recipes.read import with_recipe
    from tutelage.values import from_plain, load_yaml

    arguments, file = _take("--config", arguments)
    arguments, recipe = _take("--recipe", arguments)
    if file is recipe is None:
        return _parse(kind, verb, arguments)
    given = load_yaml(Path(file)) if file else {}
    if any(argument.split("=")[0] == "--budget" for argument in arguments) and "steps" not in given:
        given = {"budget": "1h"} | given  # takes the place of a recipe's steps; the flag follows
    given = with_recipe(recipe, verb, given)
    required = {f.name for f in fields(kind) if f.default is f.default_factory is MISSING}
    blank = dict.fromkeys(required - set(given), "")
    try:
        default = from_plain(kind, {**blank, **given})
    except UsageError as error:
        raise UsageError(f"{file}: {error}" if file else str(error)) from None
    for name in blank:
        object.__setattr__(default, name, tyro.MISSING)
    return _parse(kind, verb, arguments, default=default)


def _take(flag: str, arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without the flag and its value, and the value."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                what = "the path of a YAML file" if flag == "--config" else "a name, such as usi"
                raise UsageError(f"{flag} needs {what}")
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
        if argument.startswith(f"{flag}="):
            return arguments[:i] + arguments[i + 1 :], argument.removeprefix(f"{flag}=")
    return arguments, None


def _parse(target: Any, verb: str, arguments: list[str], default: Any = None) -> Any:
    """Settings, or what a function returns, for a verb's flags."""
    from tutelage.flags import parse
    from tutelage.recipes.read import recipe_names, verb_of

    what, example = VERBS[verb]
    example = f"tutelage {verb} {example}".rstrip()
    about = f"{what.capitalize()}.\n\nExample: {example}"
    if verb in TRAINING:
        about += "\n\nAlso: --config FILE reads settings from YAML, such as a run's config.yaml"
    if verb in ("train", "selftrain", "distill"):
        recipes = [name for name in recipe_names() if verb_of(name) == verb]
        about += f"; --recipe NAME begins with published settings: {', '.join(recipes)}"
    return parse(
        target, arguments, prog=f"tutelage {verb}", about=about, example=example, default=default
    )
