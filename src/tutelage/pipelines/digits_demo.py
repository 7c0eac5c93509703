"""What the demo runs, and says at its end."""

from pathlib import Path

from tutelage.jobs import SelftrainSettings
from tutelage.settings import Noise


def digits_settings(images: Path, out: Path, *, seed: int) -> SelftrainSettings:
    """The demo's settings, chosen on pool images and never on the test."""
    return SelftrainSettings(
        data=images / "labeled",
        unlabeled=images / "unlabeled",
        test=images / "test",
        val_fraction=0.0,
        model="test_resnet",
        img_size=16,
        steps=500,
        batch=32,
        ratio=2,
        seed=seed,
        device="cpu",
        noise=Noise(flip=False),
        out=out,
    )


NEXT = """
360 test images decide little; docs/results.md has this run over five seeds.

Next, on your own images: put the labeled ones in one folder a class and the others in any folder,
look at them with `tutelage check --data LABELED --unlabeled POOL`, then run
`tutelage selftrain --data LABELED --unlabeled POOL --model resnet18 --budget 1h --out RUN`.
Stop it whenever you like: the same command goes on. `tutelage predict {run} {images}/test` shows
how the finished model is used."""
