"""What benchmarks/fuzz.py feeds: for each target valid inputs to begin with, and what reads them.

A reader gets bytes and a folder of its own. It returns whether they were read; where not, it has
met one of our own errors, or for an image what decoders raise and `check` records. Anything else
that it raises is a finding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import fuzz_images, fuzz_models, fuzz_runs, fuzz_tables
from benchmarks.fuzz_changes import vary_json, vary_parquet


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    share: float  # of all inputs
    seeds: Callable[[Path], Sequence[bytes]]  # valid inputs, made with a scratch folder
    read: Callable[[bytes, Path], bool]
    words: tuple[bytes, ...] = ()  # that are put into inputs now and then
    text: bool = False  # changes put letters in most places
    mend: Callable[[bytes], bytes] = bytes  # checksums made right again, so that more is read
    vary: Callable[[Random, bytes], bytes] | None = None  # how half of the inputs are changed first


CELLS = (b'"', b"\0", b"\n", b",", b"s3://", b"\xff")
JSON = (
    b"null", b"1e999", b"-1", b"9" * 12, b"[" * 3000, b'"x"', b"{}", b"[]", b"NaN", b"true",
    b"9" * 5000, b'"\\ud800"', b"\n",
)  # fmt: skip
YAML = (
    b"&a [*a]", b"!!python/object/apply:os.system [x]", b"[" * 3000, b"? ", b"2001-99-99",
    b"1e999", b"9" * 5000, b"!!int ''", b"!!timestamp x", b"!!float x", b"!!bool x", b"\xff",
)  # fmt: skip
OF_SUFFIX = {".json": JSON, ".jsonl": JSON, ".yaml": YAML, ".csv": CELLS}  # others are binary
VARIED = {".json": vary_json, ".jsonl": vary_json, ".parquet": vary_parquet}


def _of_run(kind: str) -> Target:
    """A file of a run folder."""
    suffix = Path(fuzz_runs.RUN_FILES[kind]).suffix
    words = OF_SUFFIX.get(suffix, ())
    return Target(
        0.002, fuzz_runs.seeds_of_run(kind), fuzz_runs.reads_run(kind), words, text=bool(words),
        vary=VARIED.get(suffix),
    )  # fmt: skip


TARGETS = {
    "images": Target(
        0.30, fuzz_images.image_seeds, fuzz_images.read_image,
        (b"\xff\xff\xff\x7f", b"\0\0\0\0"), mend=fuzz_images.png_sums,
    ),
    "tables": Target(0.14, fuzz_tables.csv_seeds, fuzz_tables.read_csv, CELLS, text=True),
    "parquet": Target(0.06, fuzz_tables.parquet_seeds, fuzz_tables.read_parquet, vary=vary_parquet),
    "tars": Target(
        0.08, fuzz_images.tar_seeds, fuzz_images.read_tar, (b"../", b"\0" * 512, b"9" * 5000),
        mend=fuzz_images.tar_sums,
    ),
    "names": Target(
        0.02, fuzz_images.names_seeds, fuzz_images.read_names, JSON, text=True, vary=vary_json,
    ),
    "arrays": Target(0.05, fuzz_images.array_seeds, fuzz_images.read_arrays),
    "published": Target(0.02, fuzz_images.published_seeds, fuzz_images.read_published),
    "labels": Target(0.05, fuzz_tables.label_seeds, fuzz_tables.read_labels, vary=vary_parquet),
    "selections": Target(
        0.03, fuzz_tables.selection_seeds, fuzz_tables.read_selection, JSON, vary=vary_parquet,
    ),
    "pools": Target(0.03, fuzz_tables.pool_seeds, fuzz_tables.read_pool, vary=vary_parquet),
    "facts": Target(0.01, fuzz_tables.fact_seeds, fuzz_tables.read_facts, vary=vary_parquet),
    "issues": Target(
        0.01, fuzz_tables.issue_seeds, fuzz_tables.read_issue_file, CELLS, text=True
    ),
    "yaml": Target(0.066, fuzz_models.yaml_seeds, fuzz_models.read_yaml, YAML, text=True),
    "checkpoints": Target(
        0.02, fuzz_models.checkpoint_seeds, fuzz_models.read_checkpoint,
        mend=fuzz_models.checkpoint_sum,
    ),
    "weights": Target(0.02, fuzz_models.weight_seeds, fuzz_models.read_weights_as("weights.pt")),
    "safetensors": Target(
        0.02, fuzz_models.safetensors_seeds, fuzz_models.read_weights_as("model.safetensors")
    ),
    "own-weights": Target(0.02, fuzz_models.own_weight_seeds, fuzz_models.read_own_weights),
    "models": Target(
        0.02, fuzz_models.model_seeds, fuzz_models.read_model, JSON, text=True, vary=vary_json,
    ),
    **{f"run-{kind}": _of_run(kind) for kind in fuzz_runs.RUN_FILES},
}  # fmt: skip
