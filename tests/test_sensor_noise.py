"""The noises' statistics, and counts beside SciPy's Poisson distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from test_corruptions import keys

from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import LEVELS, SIZES
from tutelage.corruptions.noise import (
    counts,
    gaussian_noise,
    impulse_noise,
    shot_noise,
    speckle_noise,
)

CPU = torch.device("cpu")
COUNT, SIDE = 4, 128
VALUES = COUNT * 3 * SIDE * SIDE


def flat(level):
    return torch.full((COUNT, 3, SIDE, SIDE), level)


def made(noise, level, *numbers):
    return noise(flat(level), numbers, Draws(keys(COUNT), CPU)).double()


def alike(found, expected, error):
    assert abs(float(found) - expected) < 4 * error, (float(found), expected, error)


@pytest.mark.parametrize(
    ("noise", "level", "sigma"), [(gaussian_noise, 0.5, 0.08), (speckle_noise, 0.4, 0.15)]
)
def test_normal_noise_has_its_mean_and_spread(noise, level, sigma):
    spread = sigma if noise is gaussian_noise else sigma * level
    found = made(noise, level, sigma)
    alike(found.mean(), level, spread / VALUES**0.5)
    alike(found.std(), spread, spread / (2 * VALUES) ** 0.5)
    unit = (found - level) / spread
    alike((unit**3).mean(), 0, (15 / VALUES) ** 0.5)
    alike((unit**4).mean(), 3, (96 / VALUES) ** 0.5)
    share = float((unit > 2).double().mean())
    alike(share, 0.02275, (0.02275 / VALUES) ** 0.5)


def test_normal_numbers_of_neighbors_are_not_related():
    drawn = Draws(keys(1), CPU).normal(100_001)[0].double()
    for gap in (1, 2, 50_001):
        alike((drawn[:-gap] * drawn[gap:]).mean(), 0, 1 / (len(drawn) - gap) ** 0.5)
        alike((drawn[:-gap] ** 2 * drawn[gap:] ** 2).mean(), 1, 3 / (len(drawn) - gap) ** 0.5)


@pytest.mark.parametrize("photons", [60, 3, 500])
def test_shot_noise_has_the_mean_of_the_image_and_its_variance_over_the_photons(photons):
    level = 51 / 255
    found = made(shot_noise, level, photons)
    variance = level / photons
    alike(found.mean(), level, (variance / VALUES) ** 0.5)
    kurtosis = 3 + 1 / (photons * level)
    alike(found.var(), variance, variance * ((kurtosis - 1) / VALUES) ** 0.5)


@pytest.mark.parametrize("size", SIZES)
def test_counts_are_the_quantiles_of_poissons_distribution(size):
    chance = np.random.default_rng(0).random(4000, dtype=np.float32)
    chance[:4] = 0, 1 - 2**-24, 2**-24, 0.5
    grays = np.random.default_rng(1).integers(0, 256, 4000)
    grays[:10] = [255, 255, 255, 255, 0, 0, 1, 1, 254, 128]
    images = torch.from_numpy(grays / 255).float().view(1, 1, 1, -1)
    for (photons,) in LEVELS["shot_noise"][size]:
        found = counts(images, photons, torch.from_numpy(chance).view(1, 1, 1, -1)).flatten()
        rates = photons * grays / 255
        # a count's chances begin with the share below it and end with the share up to it, in the
        # steps that chances have
        assert (poisson.cdf(found.numpy() - 1, rates) <= chance + 2**-24).all()
        assert (poisson.cdf(found.numpy(), rates) > chance - 2**-24).all()


def test_black_has_no_photons():
    assert made(shot_noise, 0.0, 60).abs().max() == 0


def test_impulses_replace_single_values_by_black_and_white_alike():
    amount = 0.17
    found = made(impulse_noise, 0.5, amount)
    for level, share in ((0, amount / 2), (1, amount / 2), (0.5, 1 - amount)):
        alike((found == level).double().mean(), share, (share * (1 - share) / VALUES) ** 0.5)
    hit = found != 0.5
    every = hit.all(1).double().mean()
    alike(every, amount**3, (amount**3 / (VALUES / 3)) ** 0.5)
