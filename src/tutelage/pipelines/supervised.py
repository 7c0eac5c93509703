"""`tutelage train`: one round on the labels alone, from the folders to the model."""

from dataclasses import replace

from tutelage.learner import choose_device, choose_precision
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import check_name
from tutelage.pipelines.outcome import conclude
from tutelage.pipelines.plan import planned_steps
from tutelage.pipelines.prepare import Prepared, prepare
from tutelage.pipelines.rounds import Round, announce, recipe_for, resolved_optim, train_once
from tutelage.progress import Screen
from tutelage.run import Run, write_config
from tutelage.settings import Precision, TrainSettings


def supervised(settings: TrainSettings, run: Run, screen: Screen) -> None:
    """Check, train, judge, keep. Finished stages are not repeated; raises what they raise."""
    check_name(settings.model)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    prepared = prepare(settings, run, device, screen)
    settings = replace(settings, optim=resolved_optim(settings, settings.model))

    def rounds(steps: int) -> tuple[Round, ...]:
        return (_only(settings, prepared, steps, precision),)

    steps = planned_steps(settings, run, prepared, rounds)
    resolved = replace(
        settings, steps=steps, budget=None, img_size=prepared.size, device=str(device),
        precision=precision,
    )  # fmt: skip
    write_config(run, resolved)
    announce(rounds(steps), prepared, run)
    train_once(rounds(steps)[0], run, prepared)
    conclude(rounds(steps), run, prepared)


def _only(settings: TrainSettings, prepared: Prepared, steps: int, precision: Precision) -> Round:
    """The one training."""
    method = Supervised(labeled_view=settings.views, smoothing=settings.smoothing)
    recipe = recipe_for(
        settings, prepared, model=settings.model, method=method, number=0, steps=steps,
        precision=precision,
    )  # fmt: skip
    return Round("00-supervised", recipe)
