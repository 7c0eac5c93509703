"""The published EfficientNets as values, by timm's names, and others scaled from them.

Papers: B0 to B7, Tan and Le 2019 (arXiv 1905.11946), table 1 and the coefficients of its code; B8,
Xie et al. 2020 (arXiv 1911.09665); L0, L1 and L2, Xie et al. 2020 (arXiv 1911.04252), appendix; V2,
Tan and Le 2021 (arXiv 2104.00298), table 4, and its code for the others. Names that begin with tf_
have the published padding and epsilon, the others timm's.
"""

import re
from dataclasses import replace
from functools import cache

from tutelage.errors import UsageError
from tutelage.networks.efficientnet import Architecture, parse_architecture
from tutelage.networks.scaling import Rounding, scaled

V1 = (
    "efficientnet+stem32+ir_r1_k3_s1_e1_c16_se0.25+ir_r2_k3_s2_e6_c24_se0.25"
    "+ir_r2_k5_s2_e6_c40_se0.25+ir_r3_k3_s2_e6_c80_se0.25+ir_r3_k5_s1_e6_c112_se0.25"
    "+ir_r4_k5_s2_e6_c192_se0.25+ir_r1_k3_s1_e6_c320_se0.25+head1280"
)
V2_BASE = (
    "efficientnet+stem32+er_r1_k3_s1_e1_c16+er_r2_k3_s2_e4_c32+er_r2_k3_s2_e4_c48"
    "+ir_r3_k3_s2_e4_c96_se0.25+ir_r5_k3_s1_e6_c112_se0.25+ir_r8_k3_s2_e6_c192_se0.25+head1280"
)
V2 = {
    "s": (
        "efficientnet+stem24+er_r2_k3_s1_e1_c24+er_r4_k3_s2_e4_c48+er_r4_k3_s2_e4_c64"
        "+ir_r6_k3_s2_e4_c128_se0.25+ir_r9_k3_s1_e6_c160_se0.25+ir_r15_k3_s2_e6_c256_se0.25"
        "+head1280"
    ),
    "m": (
        "efficientnet+stem24+er_r3_k3_s1_e1_c24+er_r5_k3_s2_e4_c48+er_r5_k3_s2_e4_c80"
        "+ir_r7_k3_s2_e4_c160_se0.25+ir_r14_k3_s1_e6_c176_se0.25+ir_r18_k3_s2_e6_c304_se0.25"
        "+ir_r5_k3_s1_e6_c512_se0.25+head1280"
    ),
    "l": (
        "efficientnet+stem32+er_r4_k3_s1_e1_c32+er_r7_k3_s2_e4_c64+er_r7_k3_s2_e4_c96"
        "+ir_r10_k3_s2_e4_c192_se0.25+ir_r19_k3_s1_e6_c224_se0.25+ir_r25_k3_s2_e6_c384_se0.25"
        "+ir_r7_k3_s1_e6_c640_se0.25+head1280"
    ),
    "xl": (
        "efficientnet+stem32+er_r4_k3_s1_e1_c32+er_r8_k3_s2_e4_c64+er_r8_k3_s2_e4_c96"
        "+ir_r16_k3_s2_e4_c192_se0.25+ir_r24_k3_s1_e6_c256_se0.25+ir_r32_k3_s2_e6_c512_se0.25"
        "+ir_r8_k3_s1_e6_c640_se0.25+head1280"
    ),
}
COEFFICIENTS = {  # name: width, depth; hand-rounded, and no powers of alpha and beta
    "b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8),
    "b5": (1.6, 2.2), "b6": (1.8, 2.6), "b7": (2.0, 3.1), "b8": (2.2, 3.6),
    "l0": (2.8, 3.7), "l1": (3.9, 3.7), "l2": (4.3, 5.3),
}  # fmt: skip
V2_OF_BASE = ("b0", "b1", "b2", "b3")
SIZES = {  # pixels of the side that accuracy was published at, without the family's prefix
    "efficientnet": {
        "b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600,
        "b8": 672, "l0": 600, "l1": 600, "l2": 800,
    },
    "efficientnetv2": {
        "b0": 224, "b1": 240, "b2": 260, "b3": 300, "s": 384, "m": 480, "l": 480, "xl": 512,
    },
}  # fmt: skip
NAME = re.compile(r"(tf_)?(efficientnet(?:v2)?)_([a-z]\d|s|m|l|xl)")
SCALES = re.compile(r"(.+?)((?:-[wdl]\d+(?:\.\d+)?)+)")
NEW = tuple(f"{tf}efficientnet_{size}" for tf in ("", "tf_") for size in ("l0", "l1"))


@cache
def architecture_of(name: str) -> Architecture | None:
    """The EfficientNet of a name: a published one, stages that begin with `efficientnet+`, and
    either of them followed by coefficients, such as efficientnetv2_s-w1.1-d1.2; None for others.

    Raises UsageError where stages or coefficients can't be read.
    """
    match = SCALES.fullmatch(name)
    base, scales = (match[1], match[2]) if match else (name, "")
    arch = parse_architecture(base) if base.startswith("efficientnet+") else _published(base)
    if arch is None or not scales:
        return arch
    parts = scales[1:].split("-")
    given = {part[0]: float(part[1:]) for part in parts}
    if len(given) < len(parts):
        raise UsageError(f"{name} has a coefficient twice: give each of -w, -d and -l once")
    return scaled(
        arch,
        width=given.get("w", 1.0),
        depth=given.get("d", 1.0),
        late=given.get("l", 1.0),
        rounding=rounding_of(base),
    )


def size_of(name: str) -> int:
    """Pixels of the side that the published network's accuracy is of; 224 for others."""
    match = NAME.fullmatch(name)
    return SIZES[match[2]].get(match[3], 224) if match else 224


def rounding_of(name: str) -> Rounding:
    """How widths of that family are rounded: V2's code has no lower limit."""
    return "nearest" if "efficientnetv2" in name else "at-least-0.9"


def _published(name: str) -> Architecture | None:
    """timm's or Noisy Student's network of that name."""
    match = NAME.fullmatch(name)
    if match is None or match[3] not in SIZES[match[2]]:
        return None
    tf, family, size = match.groups()
    if family == "efficientnet" or size in V2_OF_BASE:
        width, depth = COEFFICIENTS[size]
        base = parse_architecture(V1 if family == "efficientnet" else V2_BASE)
        arch = scaled(base, width=width, depth=depth, rounding=rounding_of(name))
    else:
        arch = parse_architecture(V2[size])
    return replace(arch, padding="same") if tf else replace(arch, norm_eps=1e-5)
