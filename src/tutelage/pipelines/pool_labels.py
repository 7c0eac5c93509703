"""The labels that a student with stored labels learns from: asked once, selected, on disk."""

import torch
from torch import Tensor, nn

from tutelage.core import Dice, Stage, fold, generator
from tutelage.data import pool as label_table
from tutelage.data.operations import as_bytes
from tutelage.data.pixels import Pixels
from tutelage.data.pool import PseudoLabels
from tutelage.data.sets import PoolSet
from tutelage.data.views import strong
from tutelage.deploy.model_folder import load_model
from tutelage.deploy.teachers import Teacher
from tutelage.jobs import SelftrainSettings
from tutelage.labeling.label import label_pool
from tutelage.labeling.select import select
from tutelage.learner import modes
from tutelage.pipelines.pool_quality import judge_labels, new_to, some_of, write_quality
from tutelage.pipelines.prepare import Prepared, canvas_for
from tutelage.pipelines.rounds import Round
from tutelage.run import Run


def stored_pool(
    settings: SelftrainSettings, run: Run, prepared: Prepared, student: Round,
    given: Teacher | None,
) -> PoolSet:  # fmt: skip
    """The selected pool images with the targets that a student learns from.

    The teacher is the round that the student names, or the given one where it names none.
    """
    table = _table(settings, run, prepared, student, given)
    assert table.copies is not None, "selected"
    rows = table.rows()
    targets = table.targets(soft=settings.pool_targets == "soft", temperature=settings.temperature)
    return PoolSet(prepared.pixels("pool"), rows, table.copies[rows], targets)


def _table(
    settings: SelftrainSettings, run: Run, prepared: Prepared, student: Round,
    given: Teacher | None,
) -> PseudoLabels:  # fmt: skip
    """The teacher's labels, selected; not made again where the stage is done."""
    stage = student.labels_stage
    path = run.path / "labels" / f"{student.name}.parquet"
    if run.is_done(stage):
        return label_table.load(path)
    with run.stage(stage) as notes:
        teacher, size, name = _teacher(run, prepared, student, given)
        val, unseen = _validation(run, prepared, student, given, size)
        names = prepared.parts["pool"].names
        pixels = prepared.pixels("pool", canvas_for(size))
        if settings.teacher_noise:
            pixels = NoisedPixels(pixels, settings, size)
            val = None if val is None else NoisedPixels(val, settings, size)
            teacher = NoisedTeacher(teacher, settings.seed)
        with prepared.screen.bar(f"label with {name}", len(names)) as bar:
            table = label_pool(
                teacher, pixels, names, prepared.classes, run.path / "labels" / student.name,
                size=size, precision=student.recipe.precision, advance=bar.advance,
            )  # fmt: skip
        prepared.forget("pool", unless=prepared.size)
        table = select(table, settings.select, seed=settings.seed)
        label_table.save(path, table)
        kept = len(table.rows())
        notes["teacher"], notes["kept"] = name, kept
        said = [
            f"{kept:,} of {len(names):,} pool images kept, mean confidence "
            f"{float(table.confidence.mean()):.2f}"
        ]
        if val is not None:
            found = judge_labels(
                table, teacher, val, prepared.parts["val"].label_tensor()[unseen], size=size,
                precision=student.recipe.precision, ceiling=settings.select.ceiling,
            )  # fmt: skip
            write_quality(run.path / "labels" / f"{student.name}-quality.json", found)
            notes["accuracy"] = {"overall": vars(found.overall), "kept": vars(found.kept)}
            said.append(found.line())
            prepared.forget("val", unless=prepared.size)
    for line in said:
        prepared.screen.say(f"  {stage}: {line}")
    return table


def _validation(
    run: Run, prepared: Prepared, student: Round, given: Teacher | None, size: int
) -> tuple[Pixels | None, Tensor]:
    """The validation images that the teacher has not learned from, and their rows (M,); None where
    there are none."""
    trained = None if student.teacher is not None or given is None else given.run
    rows = new_to(trained, run.path, prepared)
    if not len(rows):
        return None, rows
    return some_of(prepared.pixels("val", canvas_for(size)), rows), rows


def _teacher(
    run: Run, prepared: Prepared, student: Round, given: Teacher | None
) -> tuple[nn.Module, int, str]:
    """The teacher's network in eval mode, its image size, and its name."""
    if student.teacher is None:
        assert given is not None, "a round names its teacher, or there is a given one"
        return given.module.to(prepared.device), prepared.size, given.name
    model = load_model(run.path / "rounds" / student.teacher, prepared.device)
    return model.module, model.net.img_size, student.teacher


class NoisedPixels:
    """Pool images under the student's augmentation, for the ablation with a noised teacher."""

    def __init__(self, pixels: Pixels, settings: SelftrainSettings, size: int) -> None:
        """Noise as the settings have it."""
        noise = settings.noise
        self.pixels, self.noise, self.seed = pixels, noise, settings.seed
        self.stage = Stage(steps=1, size=size, magnitude=noise.magnitude, cutout=noise.cutout)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def at(self, rows: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 of rows (B,): the same for the same rows."""
        dice = generator(self.seed, Dice.LABEL_NOISE, int(rows[0]))
        images = strong(self.pixels.at(rows), dice, self.stage, self.noise)
        return as_bytes(images)


class NoisedTeacher(nn.Module):
    """A teacher whose dropout and stochastic depth stay on, also in eval mode."""

    def __init__(self, module: nn.Module, seed: int) -> None:
        """Keep the module."""
        super().__init__()
        self.module, self.seed = module, seed

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), the same for the same images."""
        content = int(images.double().sum() * 1000)
        with torch.random.fork_rng(), modes(self.module, noise=True, statistics=False):
            torch.manual_seed(fold(self.seed, Dice.LABEL_NOISE, content))
            logits: Tensor = self.module(images)
        return logits
