"""One temperature that makes a model's confidences true, fitted on images it has not learned from.

Paper: Guo et al. 2017 (arXiv 1706.04599), section 4.2, equation 9. Deviation: log T has a standard
normal prior, worth about as much as ten images, so that T stays finite where all answers are right.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core import Dice, fold
from tutelage.evaluation.calibration import ROWS, TINY
from tutelage.evaluation.intervals import Z

LOWEST, HIGHEST = 0.05, 20.0
RESAMPLES = 1_000
GRID = 25  # inverse temperatures at which the images' pulls are known for all resamples
REACH = 6.0  # standard errors to each side that the grid covers
PORTION = 4_000_000  # numbers in memory at once
STEPS = 60  # of the search, at most


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by, with its 95 % interval."""

    value: float
    low: float
    high: float


def tempered(probs: Tensor, temperature: float) -> Tensor:
    """Probs (N, K) as if their logits had been divided by the temperature; float32.

    Probabilities below the smallest float32 count as that, which logits would know better.
    """
    if temperature == 1:
        return probs
    return torch.cat(
        [
            (some.double().clamp(min=TINY).log() / temperature).softmax(-1).float()
            for some in probs.split(ROWS)
        ]
    )


def fit_temperature(probs: Tensor, labels: Tensor, *, seed: int = 0) -> Temperature:
    """The temperature of least negative log-likelihood for probs (N, K) and labels (N,), in
    [0.05, 20]; its interval by bootstrap over images. The same for the same images."""
    logs = probs.double().clamp(min=TINY).log()
    best = _fitted(logs, labels)
    low, high = _interval(logs, labels, best, seed)
    return Temperature(1 / best, 1 / high, 1 / low)


def _pulls(logs: Tensor, labels: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Each image's derivative of the loss by the inverse temperature (N,), and the second one."""
    first, second = [], []
    for rows in torch.arange(len(logs)).split(max(1, PORTION // logs.shape[1])):
        some = logs[rows]
        probs = (beta * some).softmax(-1)
        mean = (probs * some).sum(-1)
        first.append(mean - some.gather(1, labels[rows][:, None])[:, 0])
        second.append((probs * (some - mean[:, None]).square()).sum(-1))
    return torch.cat(first), torch.cat(second)


def _fitted(logs: Tensor, labels: Tensor) -> float:
    """The inverse temperature, by Newton's method on its logarithm within a bracket.

    The slope is that of the whole loss with the prior (log T)^2 / 2.
    """
    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    at = 0.0
    for _ in range(STEPS):
        beta = math.exp(at)
        first, second = (float(part.sum()) for part in _pulls(logs, labels, beta))
        slope, curve = beta * first + at, beta * first + beta * beta * second + 1
        if slope > 0:
            high = at
        else:
            low = at
        step = at - slope / curve if curve > 0 else math.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - at) < 1e-12:
            break
        at = following
    return math.exp(at)


def _interval(logs: Tensor, labels: Tensor, best: float, seed: int) -> tuple[float, float]:
    """The bootstrap interval of the inverse temperature (Efron 1979, percentiles).

    The slope of a resample is a weighted sum of the images' pulls, which are computed once at some
    inverse temperatures around the best; between these it is taken as straight. The interval that
    the loss's curvature and the prior give is part of it: images that are all alike, as few may be,
    have no spread to resample.
    """
    first, second = _pulls(logs, labels, best)
    bend = float(second.sum()) * best * best + 1
    error = math.sqrt(float((best * first).square().sum())) / bend
    reach = min(REACH * max(error, 1e-3), math.log(HIGHEST / LOWEST))
    edge_low, edge_high = -math.log(HIGHEST), -math.log(LOWEST)
    ends = max(edge_low, math.log(best) - reach), min(edge_high, math.log(best) + reach)
    grid = np.linspace(*ends, GRID)
    betas = np.exp(grid)
    pulls = np.stack([_pulls(logs, labels, beta)[0].numpy() for beta in betas.tolist()], 1)
    slopes = resampled(pulls, seed=seed) * len(logs) * betas + grid
    roots = _roots(grid, slopes)
    low, high = np.quantile(roots, [0.025, 0.975]).tolist()
    half = Z / math.sqrt(bend)
    low, high = min(low, math.log(best) - half), max(high, math.log(best) + half)
    return math.exp(max(low, edge_low)), math.exp(min(high, edge_high))


def _roots(grid: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where each row of slopes (R, G) over the grid (G,) changes from below to above zero (R,); an
    end of the grid where it doesn't."""
    above = slopes > 0
    rows = np.arange(len(slopes))
    place = np.clip(above.argmax(1), 1, None)
    before, after = slopes[rows, place - 1], slopes[rows, place]
    share = np.divide(before, before - after, out=np.zeros_like(before), where=after > before)
    found = grid[place - 1] + share * (grid[place] - grid[place - 1])
    found = np.where(above[:, 0], grid[0], found)
    return np.where(above.any(1), found, grid[-1])


def resampled(values: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """Means (RESAMPLES, C) of columns (N, C) under the bootstrap over images: their multinomial
    weights, drawn a portion at a time; fewer resamples where there are very many images."""
    images = len(values)
    rng = np.random.default_rng(fold(seed, Dice.CALIBRATION, 1))
    resamples = max(200, min(RESAMPLES, 50_000_000 // max(1, images)))
    parts, done = [], 0
    while done < resamples:
        rows = min(resamples - done, max(1, PORTION // max(1, images)))
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)
        parts.append(weights @ values / images)
        done += rows
    return np.concatenate(parts)
