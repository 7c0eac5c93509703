"""Images a second of a training on several processes against one, at the same threads in all.

python -m benchmarks.scaling [--devices 2] [--steps 60] [--repeats 5] [--out bench-out/scaling]

The command `tutelage train` on scikit-learn's digits, which lie in memory, in turns: one process
with N threads, and N processes with one each; the same images, networks and batch of all together.
A process has its network's gradients to average, and one thread its operations' parallel parts to
wait for. Counted is the time of the steps alone, without the first fifth, by metrics.jsonl.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.journal import Row, complete, machine
from tutelage.data.digits import write_digits

MODELS = ("resnet18", "efficientnetv2_rw_t", "vit_tiny_patch16_224")
SIZE = {"vit_tiny_patch16_224": 64}  # pixels; else 32
BATCH = 64


def images_per_second(row: Row, steps: int, images: Path, out: Path) -> float:
    """Of one run of the command."""
    devices, model = row["processes"], row["model"]
    command = [
        sys.executable, "-m", "tutelage", "train", "--data", str(images / "labeled"),
        "--val-fraction", "0", "--model", model, "--img-size", str(SIZE.get(model, 32)),
        "--batch", str(BATCH), "--steps", str(steps), "--device", "cpu",
        "--devices", str(devices), "--out", str(out), "--overwrite",
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(row["threads"] // devices)}
    subprocess.run(command, env=os.environ | threads, check=True, capture_output=True)
    (metrics,) = out.glob("rounds/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    counted = [line for line in lines if line["step"] > steps // 5]
    begun = max(line["seconds"] for line in lines if line["step"] <= steps // 5)
    done = counted[-1]["step"] - max(line["step"] for line in lines if line not in counted)
    return float(done * BATCH / (counted[-1]["seconds"] - begun))


def table(rows: list[Row], devices: int) -> str:
    """Medians, and the ratio of runs that were made in the same turn."""
    lines = [
        f"| network | 1 process, {devices} threads | {devices} processes, 1 thread each | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for model in MODELS:
        speeds = {
            n: [row["speed"] for row in rows if (row["model"], row["processes"]) == (model, n)]
            for n in (1, devices)
        }
        ratios = [two / one for one, two in zip(*speeds.values(), strict=True)]
        one, two = (statistics.median(values) for values in speeds.values())
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {model} | {one:.0f} img/s | {two:.0f} img/s | {spread} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench-out/scaling"))
    asked = parser.parse_args()
    images = asked.out / "digits"
    if not images.exists():
        write_digits(images, per_class=40)
    wanted: list[Row] = [
        {"repeat": repeat, "model": model, "processes": n, "threads": asked.devices}
        for repeat in range(asked.repeats)
        for model in MODELS
        for n in (1, asked.devices)
    ]
    rows = complete(
        asked.out,
        wanted,
        lambda row: {"speed": images_per_second(row, asked.steps, images, asked.out / "run")},
    )
    print(table(rows, asked.devices))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
