"""From settings to a finished run: a pipeline in its run folder, and the report at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.jobs import DistillSettings, SelftrainSettings, TrainSettings
from tutelage.search_settings import SearchSettings
from tutelage.training_settings import check_shared

if TYPE_CHECKING:
    from tutelage.pipelines.search_answer import Found

Given = Mapping[str, Any]  # sources of images that a program gave, by their address


@dataclass(frozen=True)
class Outcome:
    """What a finished run says of itself."""

    run: Path
    content: dict[str, Any]  # of run.json
    summary: tuple[str, ...]  # accuracies and verdict in words

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The paired comparison of the last student with the baseline, where there is one."""
        found: dict[str, Any] | None = self.content["stages"]["evaluate"]["verdict"]
        return found


def run_train(settings: TrainSettings, given: Given | None = None) -> Outcome:
    """`train` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.train import train as pipeline

    return _run("train", settings, pipeline, given)


def run_selftrain(settings: SelftrainSettings, given: Given | None = None) -> Outcome:
    """`selftrain` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.selftrain import selftrain as pipeline

    return _run("selftrain", settings, pipeline, given)


def run_distill(
    settings: DistillSettings, modules: tuple[Any, ...] = (), given: Given | None = None
) -> Outcome:
    """`distill` for settings that are made already, and teachers given as networks."""
    from tutelage.pipelines.distill import distill as pipeline

    return _run("distill", settings, partial(pipeline, modules=modules), given)


def run_search(settings: SearchSettings, given: Given | None = None) -> "Found":
    """`search` for settings that are made already, and images that a program gave."""
    from tutelage.pipelines.search import search as pipeline
    from tutelage.progress import Screen
    from tutelage.reports.search_text import answer_lines

    found = pipeline(_named(settings), given or {})
    screen = Screen(log=found.run / "logs" / "log.txt")
    for line in answer_lines(found.content):
        screen.result(line)
    screen.result(f"report: {found.run / 'report' / 'index.html'}")
    return found


def _named(settings: Any) -> Any:
    """The settings with names in the place of YAML files that describe networks.

    A name says all of it: the run doesn't need the file again.
    """
    from tutelage.networks.names import name_in

    if isinstance(settings, DistillSettings):
        return replace(settings, student=name_in(settings.student))
    if isinstance(settings, SearchSettings):
        return replace(settings, base=name_in(settings.base))
    changed: dict[str, Any] = {"model": name_in(settings.model)}
    if isinstance(settings, SelftrainSettings):
        changed["students"] = tuple(name_in(one) for one in settings.students)
        changed["teacher"] = None if settings.teacher is None else name_in(settings.teacher)
    return replace(settings, **changed)


def _run(verb: str, settings: Any, pipeline: Any, given: Given | None) -> Outcome:
    """A pipeline in its run folder, and the report at the end."""
    from tutelage.distributed.collectives import world
    from tutelage.distributed.crew import led
    from tutelage.distributed.launcher import check_devices
    from tutelage.pipelines.outcome import summary
    from tutelage.progress import Screen
    from tutelage.reports.page import write_report
    from tutelage.run import open_run

    def work() -> Outcome:
        named = _named(settings)
        check_devices(named.devices)
        check_shared(named.batch_size, world())
        with open_run(verb, named, overwrite=named.overwrite, given=given) as run:
            screen = Screen(log=run.path / "logs" / "log.txt")
            pipeline(named, run, screen)
            with run.stage("report"):
                write_report(run.path, given)
        lines = summary(run.content)
        lines.append(f"report: {named.out / 'report' / 'index.html'}")
        lines.append(f"model:  {named.out / 'model'}")
        for line in lines:
            screen.result(line)
        return Outcome(named.out, run.content, tuple(lines))

    return led(work, device=settings.device)
