"""`tutelage label`: a trained model over a folder of images -> Parquet parts."""

from pathlib import Path

from tutelage.data.examine import examine
from tutelage.data.issues import Issue, stop_if_fatal
from tutelage.data.parts import pool_images
from tutelage.data.pixels import OnDisk
from tutelage.data.pool import PseudoLabels
from tutelage.data.source import Source
from tutelage.deploy.model_folder import load_model
from tutelage.labeling.label import label_pool
from tutelage.learner import choose_device, choose_precision
from tutelage.progress import Screen
from tutelage.settings import Precision


def label_files(
    model_path: Path, pool: Source, out: Path, *, device: str, precision: Precision, screen: Screen
) -> PseudoLabels:
    """The model's top classes for every readable image of the pool, in parts in `out`.

    Raises DataProblem where there are no images.
    """
    where = choose_device(device)
    model = load_model(model_path, where)
    images, issues = pool_images(pool)
    stop_if_fatal(issues, out)
    with screen.bar("check", len(images)) as bar:
        facts = examine(images, bar.advance)
    good = [row for row, fact in enumerate(facts) if not fact.problem]
    for row in sorted(set(range(len(images))) - set(good)):
        screen.say(f"left out {images.where(row)}: {facts[row].problem}")
    if not good:
        detail = f"none of {len(images)} images of {pool.address} can be read"
        stop_if_fatal([Issue("fatal", "unreadable", "pool", pool.address, detail)], out)
    images = images.keep(good)
    pixels = OnDisk(images, model.canvas, where)
    with screen.bar("label", len(images)) as bar:
        table = label_pool(
            model.module, pixels, images.names, model.classes, out, size=model.net.img_size,
            precision=choose_precision(precision, where), advance=bar.advance,
        )  # fmt: skip
    screen.say(f"{len(table):,} images labeled in {out}")
    return table
