"""How strong each corruption is at severities 1 to 5, for images of 224, 64 and 32 pixels.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261). The numbers are those of the authors' code,
which has a set for ImageNet, one for Tiny-ImageNet and one for CIFAR; pixels are pixels of that
image size. An image of another size gets the set whose size is nearest, as a ratio.
"""

import math

Level = tuple[float, ...]
Set = tuple[Level, Level, Level, Level, Level]  # severities 1 to 5

# of a level of 255: float32 rounding must not push a whole number below itself, for what follows
# truncates; the authors compute in float64
SLACK = 2**-10

SIZES = (224, 64, 32)  # pixels
TEST = (
    "gaussian_noise", "shot_noise", "impulse_noise",
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness",
    "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # to validate on
SEVERITIES = (1, 2, 3, 4, 5)


def set_for(size: int) -> int:
    """The image size whose numbers fit images of that many pixels best."""
    return min(SIZES, key=lambda known: abs(math.log(size / known)))


def level(name: str, severity: int, size: int) -> Level:
    """The numbers of a corruption at a severity of 1 to 5, for images of that many pixels."""
    return LEVELS[name][set_for(size)][severity - 1]


def _each(*values: float) -> Set:
    """Severities with one number each."""
    assert len(values) == len(SEVERITIES)
    one, two, three, four, five = ((value,) for value in values)
    return one, two, three, four, five


_SNOW_64 = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
)  # fmt: skip
_SNOW_32 = tuple(
    (*one[:6], mix) for one, mix in zip(_SNOW_64, (0.95, 0.9, 0.9, 0.85, 0.8), strict=True)
)

LEVELS: dict[str, dict[int, Set]] = {
    "gaussian_noise": {  # sigma
        224: _each(0.08, 0.12, 0.18, 0.26, 0.38),
        64: _each(0.04, 0.08, 0.12, 0.15, 0.18),
        32: _each(0.04, 0.06, 0.08, 0.09, 0.10),
    },
    "shot_noise": {  # lambda: photons at full brightness
        224: _each(60, 25, 12, 5, 3),
        64: _each(250, 100, 50, 30, 15),
        32: _each(500, 250, 100, 75, 50),
    },
    "impulse_noise": {  # share of the values that are replaced
        224: _each(0.03, 0.06, 0.09, 0.17, 0.27),
        64: _each(0.01, 0.02, 0.05, 0.08, 0.14),
        32: _each(0.01, 0.02, 0.03, 0.05, 0.07),
    },
    "speckle_noise": {  # sigma, times the image
        224: _each(0.15, 0.2, 0.35, 0.45, 0.6),
        64: _each(0.15, 0.2, 0.25, 0.3, 0.35),
        32: _each(0.06, 0.1, 0.12, 0.16, 0.2),
    },
    "gaussian_blur": {  # sigma in pixels
        224: _each(1, 2, 3, 4, 6),
        64: _each(0.5, 0.75, 1, 1.25, 1.5),
        32: _each(0.4, 0.6, 0.7, 0.8, 1),
    },
    "defocus_blur": {  # radius of the disk, sigma that smooths its edge
        224: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        64: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        32: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    "glass_blur": {  # sigma, reach of the exchange, passes
        224: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        64: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        32: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    "motion_blur": {  # radius, sigma; the angle is drawn from -45 to 45 degrees
        224: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        64: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        32: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    "zoom_blur": {  # end of the zooms from 1 (left out, but for rounding), step
        224: ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        64: ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        32: ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    },
    "snow": {  # mean, sd, zoom, threshold, blur's radius and sigma, share of the image
        224: (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        64: _SNOW_64,
        32: (_SNOW_32[0], _SNOW_32[1], _SNOW_32[2], _SNOW_32[3], _SNOW_32[4]),
    },
    "frost": {  # weight of the image, of the frost, and the texture's scale
        224: ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
        64: ((1, 0.3, 0.3), (0.9, 0.4, 0.3), (0.8, 0.45, 0.3), (0.75, 0.5, 0.3), (0.7, 0.55, 0.3)),
        32: ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
    },
    "fog": {  # weight of the fog, decay of its roughness
        224: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        64: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        32: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    "spatter": {  # mean, sd, blur's sigma, threshold, strength, and 1 for mud, 0 for water
        224: (
            (0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0), (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        64: (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0), (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        32: (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0), (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    },
    "brightness": {  # added to the value V of HSV
        224: _each(0.1, 0.2, 0.3, 0.4, 0.5),
        64: _each(0.1, 0.2, 0.3, 0.4, 0.5),
        32: _each(0.05, 0.1, 0.15, 0.2, 0.3),
    },
    "contrast": {  # what is left of the distance to the channel's mean
        224: _each(0.4, 0.3, 0.2, 0.1, 0.05),
        64: _each(0.4, 0.3, 0.2, 0.1, 0.05),
        32: _each(0.75, 0.5, 0.4, 0.3, 0.15),
    },
    "saturate": {  # factor and summand of the saturation S of HSV
        224: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        64: ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        32: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
    "jpeg_compression": {  # quality
        224: _each(25, 18, 15, 10, 7),
        64: _each(65, 58, 50, 40, 25),
        32: _each(80, 65, 58, 50, 40),
    },
    "pixelate": {  # side of the small image over that of the image
        224: _each(0.6, 0.5, 0.4, 0.3, 0.25),
        64: _each(0.9, 0.8, 0.7, 0.6, 0.5),
        32: _each(0.95, 0.9, 0.85, 0.75, 0.65),
    },
    "elastic_transform": {  # alpha, sigma, jitter of the affine map, in pixels
        224: (
            (244 * 2, 244 * 0.7, 244 * 0.1), (244 * 2, 244 * 0.08, 244 * 0.2),
            (244 * 0.05, 244 * 0.01, 244 * 0.02), (244 * 0.07, 244 * 0.01, 244 * 0.02),
            (244 * 0.12, 244 * 0.01, 244 * 0.02),
        ),
        64: (
            (0, 0, 64 * 0.08), (64 * 0.05, 64 * 0.3, 64 * 0.06), (64 * 0.1, 64 * 0.08, 64 * 0.06),
            (64 * 0.1, 64 * 0.03, 64 * 0.03), (64 * 0.16, 64 * 0.03, 64 * 0.02),
        ),
        32: (
            (0, 0, 32 * 0.08), (32 * 0.05, 32 * 0.2, 32 * 0.07), (32 * 0.08, 32 * 0.06, 32 * 0.06),
            (32 * 0.1, 32 * 0.04, 32 * 0.05), (32 * 0.1, 32 * 0.03, 32 * 0.03),
        ),
    },
}  # fmt: skip
