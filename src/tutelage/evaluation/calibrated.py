"""What a model knows of its own confidence: temperature, reliability and reject curve, as a value.

It is fitted on images that the model has not learned from, and kept in its config.json.
"""

from dataclasses import dataclass

from torch import Tensor

from tutelage.evaluation.calibration import Bins, log_losses, width_bins
from tutelage.evaluation.reject import Curve, reject_curve
from tutelage.evaluation.temperature import Temperature, fit_temperature, tempered


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model's temperature, and what its confidences came to on the images that gave it."""

    images: int
    source: str  # what the images were, in words
    temperature: Temperature
    nll_before: float  # mean negative log-likelihood
    nll_after: float
    ece_before: float  # expected calibration error, 15 bins of equal width
    ece_after: float
    bins: Bins  # of the tempered confidences
    curve: Curve  # of the tempered confidences
    contents: str = ""  # digest of the images' content hashes, where they are no part of a run

    def probs(self, raw: Tensor) -> Tensor:
        """The network's probabilities (N, K) as calibrated ones."""
        return tempered(raw, self.temperature.value)

    def line(self) -> str:
        """For the terminal."""
        t = self.temperature
        return (
            f"confidences calibrated on {self.images:,} images ({self.source}): temperature "
            f"{t.value:.2f} ({t.low:.2f} to {t.high:.2f}), calibration error "
            f"{self.ece_before:.1%} before, {self.ece_after:.1%} after".replace("%", " %")
        )


def calibrated(probs: Tensor, labels: Tensor, source: str) -> Calibration:
    """The calibration of a model with these probs (N, K) for images with labels (N,)."""
    temperature = fit_temperature(probs, labels)
    after = tempered(probs, temperature.value)
    right = probs.argmax(-1) == labels
    confidence = after.max(-1).values
    bins = width_bins(confidence, right)
    return Calibration(
        images=len(labels),
        source=source,
        temperature=temperature,
        nll_before=float(log_losses(probs, labels).mean()),
        nll_after=float(log_losses(after, labels).mean()),
        ece_before=width_bins(probs.max(-1).values, right).expected,
        ece_after=bins.expected,
        bins=bins,
        curve=reject_curve(confidence, right),
    )
