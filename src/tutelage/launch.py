"""From settings to a finished run: a pipeline in its run folder, and the report at the end."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.jobs import DistillSettings, SelftrainSettings, TrainSettings


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


def run_train(settings: TrainSettings) -> Outcome:
    """`train` for settings that are made already."""
    from tutelage.pipelines.train import train as pipeline

    return _run("train", settings, pipeline)


def run_selftrain(settings: SelftrainSettings) -> Outcome:
    """`selftrain` for settings that are made already."""
    from tutelage.pipelines.selftrain import selftrain as pipeline

    return _run("selftrain", settings, pipeline)


def run_distill(settings: DistillSettings, modules: tuple[Any, ...] = ()) -> Outcome:
    """`distill` for settings that are made already, and teachers given as networks."""
    from tutelage.pipelines.distill import distill as pipeline

    return _run("distill", settings, partial(pipeline, modules=modules))


def _run(verb: str, settings: Any, pipeline: Any) -> Outcome:
    """A pipeline in its run folder, and the report at the end."""
    from tutelage.pipelines.outcome import summary
    from tutelage.progress import Screen
    from tutelage.reports.page import write_report
    from tutelage.run import open_run

    with open_run(verb, settings, overwrite=settings.overwrite) as run:
        screen = Screen(log=run.path / "logs" / "log.txt")
        pipeline(settings, run, screen)
        with run.stage("report"):
            write_report(run.path)
    lines = summary(run.content)
    lines.append(f"report: {settings.out / 'report' / 'index.html'}")
    lines.append(f"model:  {settings.out / 'model'}")
    for line in lines:
        screen.result(line)
    return Outcome(settings.out, run.content, tuple(lines))
