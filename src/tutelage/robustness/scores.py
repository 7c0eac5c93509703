"""Scores of robustness: corruption errors against AlexNet's or another model's, AURRA, and RMS
calibration error.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4: CE, mCE and relative mCE;
Hendrycks et al. 2021, Natural adversarial examples (arXiv 1907.07174): AURRA and RMS calibration
error. Errors are shares of 1; scores that are divided by AlexNet's or another model's errors are in
percent, as papers give them. Deviations: the authors' loop leaves out the last calibration bin,
that of the surest answers, which is counted here; answers of the same confidence are counted in
their mean order in AURRA, so that it does not depend on the order of the images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutelage.core import Dice, fold
from tutelage.corruptions.levels import TEST
from tutelage.evaluation.intervals import Z, wilson_of_shares
from tutelage.evaluation.paired import RESAMPLES
from tutelage.values import percent

# Top-1 errors of AlexNet (torchvision's weights) on the published ImageNet-C at severities 1 to 5:
# the author's answer in issue 10 of github.com/hendrycks/robustness.
ALEXNET: dict[str, tuple[float, float, float, float, float]] = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
# Means over the five severities: imagenet.py of github.com/google-research/augmix; those of the 15
# are the means of the rows above.
ALEXNET_MEANS: dict[str, float] = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948,
    "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572, "fog": 0.819324,
    "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500, "speckle_noise": 0.845388,
    "gaussian_blur": 0.787108, "spatter": 0.717512, "saturate": 0.658248,
}  # fmt: skip
ALEXNET_CLEAN = 0.43478  # 1 - acc@1 of torchvision's AlexNet_Weights.IMAGENET1K_V1
BIN = 100  # images of a calibration bin, as the authors have them
FEW = 1000  # distinct values, up to which the bootstrap is one multinomial draw a resample


def corruption_error(name: str, errors: Sequence[float]) -> float:
    """CE in percent of a corruption's errors at severities 1 to 5."""
    return 100 * _mean(errors) / ALEXNET_MEANS[name]


def relative_corruption_error(name: str, errors: Sequence[float], clean: float) -> float:
    """Relative CE in percent: what the corruption adds to the clean error, over AlexNet's."""
    return 100 * (_mean(errors) - clean) / (ALEXNET_MEANS[name] - ALEXNET_CLEAN)


def mean_corruption_error(errors: Mapping[str, Sequence[float]]) -> float:
    """mCE in percent; raises ValueError where one of the 15 corruptions is missing."""
    return _mean([corruption_error(name, errors[name]) for name in _all(errors)])


def mean_relative_corruption_error(errors: Mapping[str, Sequence[float]], clean: float) -> float:
    """Relative mCE in percent; raises ValueError where one of the 15 corruptions is missing."""
    return _mean([relative_corruption_error(one, errors[one], clean) for one in _all(errors)])


def mean_error(errors: Mapping[str, Sequence[float]]) -> float:
    """The mean over corruptions of the mean error over severities, which is no mCE."""
    return _mean([_mean(values) for values in errors.values()])


def relative_error(errors: Sequence[float], reference: Sequence[float]) -> float | None:
    """Errors in percent of another model's; None where that one makes none."""
    total = math.fsum(reference)
    return 100 * math.fsum(errors) / total if total else None


def _all(errors: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    missing = [name for name in TEST if len(errors.get(name, ())) != len(ALEXNET[name])]
    if missing:
        raise ValueError(f"mCE is of 15 corruptions at 5 severities; missing: {', '.join(missing)}")
    return TEST


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class Mean:
    """A mean over images, with its 95 % interval."""

    value: float
    low: float
    high: float
    total: int  # images

    def __str__(self) -> str:
        """As in '31.2 % (30.1 % to 32.2 %, 2,000 images)'."""
        low, high = percent(self.low), percent(self.high)
        return f"{percent(self.value)} ({low} to {high}, {self.total:,} images)"

    def points(self) -> str:
        """As a difference: '-2.1 points (-2.9 to -1.3, 95 % interval, 2,000 images)'."""
        value, low, high = (f"{100 * one:+.1f}" for one in (self.value, self.low, self.high))
        return f"{value} points ({low} to {high}, 95 % interval, {self.total:,} images)"


def mean_share(shares: Tensor) -> Mean:
    """The mean of one share an image (N,) in [0, 1]; its interval has a width also where all
    images are alike."""
    mean, total = float(shares.double().mean()), len(shares)
    variance = float(shares.double().var()) if total > 1 else 0.0
    return Mean(mean, *wilson_of_shares(mean, variance, total), total)


def mean_of(values: Tensor) -> Mean:
    """The mean of one difference an image (N,), by a bootstrap of the images (Efron 1979).

    Images with equal values are drawn together, so that a resample is one multinomial draw; where
    there are too many different values the interval is the normal one. One image says nothing.
    """
    if len(values) == 1:
        return Mean(float(values), -1.0, 1.0, 1)
    found, counts = np.unique(values.double().numpy(), return_counts=True)
    total, mean = len(values), float(values.double().mean())
    if len(found) > FEW:
        half = Z * float(values.double().std()) / math.sqrt(total)
        return Mean(mean, mean - half, mean + half, total)
    rng = np.random.default_rng(fold(0, Dice.BOOTSTRAP, 0))
    draws = rng.multinomial(total, counts / total, size=RESAMPLES) @ found / total
    low, high = np.quantile(draws, [0.025, 0.975])
    return Mean(mean, float(low), float(high), total)


def aurra(confidence: Tensor, right: Tensor) -> float:
    """Area under the response rate and accuracy curve of answers (N,): the mean, over all numbers
    of the surest answers, of the share of right ones (N,) bool among them."""
    _, order, counts = torch.unique(-confidence.double(), return_inverse=True, return_counts=True)
    shares = torch.zeros(len(counts), dtype=torch.float64)
    shares = shares.index_add(0, order, right.double()) / counts
    expected = shares.repeat_interleave(counts)  # sorted by confidence; ties share alike
    answered = torch.arange(1, len(expected) + 1, dtype=torch.float64)
    return float((expected.cumsum(0) / answered).mean())


def rms_calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Root of the mean square distance of confidence (N,) and share of right answers (N,) bool, in
    bins of 100 answers of like confidence; the last one, which the authors' code leaves out, has
    the rest too."""
    order = confidence.double().argsort(stable=True)
    gaps = right.double()[order] - confidence.double()[order]
    starts = [BIN * place for place in range(max(1, len(gaps) // BIN))]
    bins = [*(gaps[one : one + BIN] for one in starts[:-1]), gaps[starts[-1] :]]
    square = math.fsum(len(one) / len(gaps) * float(one.mean()) ** 2 for one in bins)
    return math.sqrt(square)
