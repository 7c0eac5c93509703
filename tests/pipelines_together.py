"""Whole commands that several real processes work at, or one alone: run by torchrun in tests.

python pipelines_together.py IMAGES OUT: every command of COMMANDS, its run in OUT/name.
"""

import sys
from pathlib import Path

from torchrun import lose_patience

from tutelage.cli import main
from tutelage.ends import end_at_once

SIZE = ["--img-size", "32", "--batch", "8", "--device", "cpu", "--val-fraction", "0"]
EXACT = ["--optim.name", "sgd", "--optim.lr", "0.05", "--noise.dropout", "0",
         "--noise.drop-path", "0"]  # fmt: skip
SMALL = [*SIZE, *EXACT, "--model", "test_vit"]
POOL = ["--unlabeled", "{images}/pool", "--ratio", "2", "--steps", "4"]
SHORT = ["--baseline-length", "steps"]
FEW = ["--steps", "4"]
KEPT = ["--select.threshold", "0.1"]
STAGES = ["--progressive.stages", "2", "--progressive.multiple", "16"]
LARGER = ["--fix-size", "48", "--optim.ema", "0.9"]
COMMANDS = {
    "teacher": ["train", *SMALL, "--steps", "30", *STAGES],
    "larger": ["train", *SIZE, *EXACT, "--model", "test_convnext", *FEW, *LARGER],
    "probe": ["train", *SMALL, *FEW, "--init", "{out}/teacher", "--transfer", "probe"],
    "given": ["train", *SIZE, *EXACT[4:], "--model", "test_resnet", *FEW, "--optim.name", "sgd",
              "--optim.lr", "0.0001", "--init", "{images}/given.safetensors"],
    "noisy": ["selftrain", *SMALL, *POOL, *KEPT, "--method", "noisy-student", "--rounds", "2"],
    "mpl": ["selftrain", *SMALL, *POOL, *SHORT, "--method", "meta-pseudo-labels"],
    "reduced": ["selftrain", *SMALL, *POOL, "--method", "reduced-meta-pseudo-labels"],
    "usi": ["distill", *SIZE, *EXACT, *POOL, "--student", "test_vit", "--method", "usi",
            "--teacher", "{out}/teacher"],
}  # fmt: skip


def run(name: str, images: str, out: str) -> int:
    """One command; what it returns."""
    verb, *flags = (part.format(images=images, out=out) for part in COMMANDS[name])
    data = ["--data", f"{images}/labeled", "--test", f"{images}/test"]
    return main([verb, *data, *flags, "--out", str(Path(out) / name)])


if __name__ == "__main__":
    lose_patience()
    for command in COMMANDS:
        code = run(command, *sys.argv[1:3])
        if code:
            sys.exit(code)
    end_at_once(0)
