"""To be filled."""

from torch import Tensor

from tutelage.robustness.draws import Draws
from tutelage.robustness.levels import Level


def gaussian_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """To be filled."""
    return images + 0 * level[0] * len(draws)


def defocus_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """To be filled."""
    return images + 0 * level[0] * len(draws)


def zoom_blur(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """To be filled."""
    return images + 0 * level[0] * len(draws)
