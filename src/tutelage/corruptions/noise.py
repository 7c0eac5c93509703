"""Noise of a sensor: Gaussian, of photons, of broken pixels, and in step with the brightness.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1. Each channel of a pixel gets
noise of its own. The counts of photons are drawn for whole gray levels, from tables.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level

GRAYS = 256  # gray levels
GUIDES = 1024  # shares of the random numbers from 0 to 1 whose first count is known


def gaussian_noise(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) and normal noise of the same strength everywhere."""
    (sigma,) = level
    return draws.normal(*images.shape[1:]).mul_(sigma).add_(images)


def speckle_noise(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) and normal noise in proportion to them."""
    (sigma,) = level
    return draws.normal(*images.shape[1:]).mul_(sigma).mul_(images).add_(images)


def impulse_noise(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W), a share of their values black and white by even chances."""
    (amount,) = level
    chance = draws.uniform(*images.shape[1:])
    white = chance.clone().lt_(amount / 2)  # in place, as floats: 4 times as fast as by masks
    return chance.ge_(amount).mul_(images).add_(white)


def shot_noise(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) as counts of photons, of which white has `level` on average."""
    (photons,) = level
    return counts(images, photons, draws.uniform(*images.shape[1:])).div_(photons)


def counts(images: Tensor, photons: float, chance: Tensor) -> Tensor:
    """Poisson counts (B, 3, H, W) float32 at chances from 0 to 1, of images in [0, 1] as levels."""
    rising, exact, guide = _tables(photons)
    rising, guide = rising.to(images.device), guide.to(images.device)
    width = len(rising) // GRAYS
    gray = images.mul(GRAYS - 1).round_().to(torch.int32).flatten()
    flat = chance.flatten()
    place = guide.index_select(0, (flat * GUIDES).to(torch.int32).add_(gray, alpha=GUIDES))
    place += rising.index_select(0, place).sub_(flat).le_(0).to(torch.int32)
    beyond = rising.index_select(0, place).sub_(flat).le_(0)
    left = beyond.nonzero()[:, 0]  # in shares with several counts, as those at the ends
    spot = flat[left].cpu().double() + gray[left].cpu()  # few; and not each device has doubles
    place[left] = torch.searchsorted(exact, spot, right=True, out_int32=True).to(place.device)
    return place.sub_(gray, alpha=width).float().view_as(chance)


@lru_cache(32)
def _tables(photons: float) -> tuple[Tensor, Tensor, Tensor]:
    """Chances of at most n counts, for all gray levels in a row, and where to begin in them.

    The chance (256 * N,) float32, N counts a level; the same plus the level, float64, so that they
    rise; the place in them (256 * 1024,) of each level and share of the chances.
    """
    rates = photons * np.arange(GRAYS)[:, None] / (GRAYS - 1)
    number = np.arange(int(photons + 8 * np.sqrt(photons) + 16))
    logs = np.cumsum(np.log(np.maximum(number, 1)))  # of n!
    each = np.exp(number * np.log(np.maximum(rates, 1e-300)) - rates - logs)
    rising = np.cumsum(each, axis=1).clip(max=1).astype(np.float32)
    rising[:, -1] = 1  # nothing is beyond
    exact = (rising.astype(np.float64) + np.arange(GRAYS)[:, None]).ravel()
    starts = np.arange(GRAYS * GUIDES) / GUIDES
    places = np.searchsorted(exact, starts, side="right").astype(np.int32)
    return torch.from_numpy(rising.ravel()), torch.from_numpy(exact), torch.from_numpy(places)
