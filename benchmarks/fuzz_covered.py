"""The readers of fuzz.py under atheris, which prefers inputs that reach branches it has not seen.

pip install atheris; python -m benchmarks.fuzz_covered TARGET [--runs 20000] [--seed 0] [--out OUT]

Watched are the branches of tutelage's own modules; Pillow, Arrow and torch are compiled and not
watched. It begins with the target's valid inputs, ends at the first error that is not ours, or at
an input of more than 10 s or 4 GB, and leaves that input in OUT.
"""

import argparse
import importlib
import sys
import tempfile
import warnings
from pathlib import Path

MOST_SECONDS, MOST_MB = 10, 4096


def main() -> None:
    """Fuzz one target; ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench-out/fuzz-covered"))
    given = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["tutelage"]):
        targets = importlib.import_module("benchmarks.fuzz_targets").TARGETS
    if given.target not in targets:
        sys.exit(f"there is no target {given.target}: take one of {', '.join(targets)}")
    target, corpus = targets[given.target], given.out / given.target
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, seed in enumerate(target.seeds(Path(scratch))):
            (corpus / f"seed-{number}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp())

    def read(data: bytes) -> None:
        target.read(target.mend(data), folder)

    warnings.simplefilter("ignore")
    words = [
        sys.argv[0], f"-runs={given.runs}", f"-seed={given.seed}", f"-timeout={MOST_SECONDS}",
        f"-rss_limit_mb={MOST_MB}", f"-artifact_prefix={given.out}/{given.target}-",
        "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    atheris.Setup(words, read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
