"""Which test images a network got right, and the gain of one network over another, over seeds."""

import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

RESAMPLES, SEED = 20_000, 0


def bits(right: NDArray[np.bool_]) -> dict[str, Any]:
    """Which images (N,) a network got right, for a row: as bits in hexadecimal digits."""
    return {"total": len(right), "right": np.packbits(right).tobytes().hex()}


def right_of(row: dict[str, Any]) -> NDArray[np.bool_]:
    """Which images (N,) a network got right, of a row that has its bits."""
    unpacked = np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), dtype=np.uint8))
    return unpacked[: row["total"]].astype(bool)


def over_images(each: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrap interval of the mean of a value (N,) for each image: 95 %.

    The values are means over seeds, so that a drawn image brings its answers of all seeds.
    """
    values, counts = np.unique(each.round(9), return_counts=True)
    rng = np.random.default_rng(SEED)
    means = rng.multinomial(len(each), counts / len(each), size=RESAMPLES) @ values / len(each)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def over_seeds(gains: list[float]) -> tuple[float, float]:
    """Student's t interval of the mean of a value for each seed: 95 %."""
    mean = statistics.mean(gains)
    if len(gains) < 2:
        return float("-inf"), float("inf")
    half = student_t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    return mean - half, mean + half
