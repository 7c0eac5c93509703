"""What the demo runs, and says at its end."""

from pathlib import Path

from tutelage.jobs import SelftrainSettings
from tutelage.recipes.read import with_recipe
from tutelage.values import from_plain


def digits_settings(images: Path, out: Path, *, seed: int) -> SelftrainSettings:
    """The recipe `digits`, with the method that auto takes."""
    given = {
        "data": images / "labeled", "unlabeled": images / "unlabeled", "test": images / "test",
        "method": "auto", "seed": seed, "device": "cpu", "out": out,
    }  # fmt: skip
    return from_plain(SelftrainSettings, with_recipe("digits", "selftrain", given))


NEXT = """
360 test images decide little; docs/results.md has this run over five seeds.

Next, on your own images: put the labeled ones in one folder a class and the others in any folder,
look at them with `tutelage check --data LABELED --unlabeled POOL`, then run
`tutelage selftrain --data LABELED --unlabeled POOL --model resnet18 --budget 1h --out RUN`.
Stop it whenever you like: the same command goes on. `tutelage predict {run} {images}/test` shows
how the finished model is used."""
