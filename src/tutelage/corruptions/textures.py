"""Five pictures of frost, drawn and not photographed, for `frost` to lay over images.

Where the pictures of ImageNet-C's authors come from isn't said, so they are not used. Accuracy
under this frost can be compared between models that met these pictures, not with published numbers.

A crystal is a stem with branches that branch again, as frost on a window grows; crystals lie over a
dark ground with a thin uneven cover. Pictures go on at the opposite side, so that a part of any
size can be cut out. The same seeds give the same pictures, but for rounding.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.workers import threads

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

CPU = torch.device("cpu")
SIDE = 960  # pixels
GROUND = ((14.0, 26.0, 42.0), (66.0, 86.0, 112.0))  # RGB of the darkest and the lightest ground
ICE = (236.0, 244.0, 252.0)  # RGB


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How the crystals of a picture grow."""

    seed: int
    stems: int
    length: float  # pixels of the longest stem
    spacing: tuple[float, float]  # pixels between branches, and between theirs
    reach: tuple[float, float]  # length of a branch over what is left of its stem
    angle: float = 60.0  # degrees between a branch and its stem
    curl: float = 0.002  # radians a pixel that stems bend, about
    disorder: float = 0.5  # radians by which neighbors' directions differ, about
    patches: float = 1.0  # how much the ice gathers in places
    cover: float = 0.3  # brightness of the thin cover


GROWTHS = (
    Growth(seed=1, stems=60, length=420, spacing=(9, 8), reach=(0.4, 0.28)),
    Growth(
        seed=2, stems=900, length=150, spacing=(9, 7), reach=(0.25, 0.2), angle=28.0,
        curl=0.0, disorder=2.5, patches=1.4, cover=0.3,
    ),
    Growth(
        seed=3, stems=200, length=190, spacing=(7, 7), reach=(0.45, 0.35), curl=0.006,
        disorder=1.2, patches=1.8, cover=0.25,
    ),
    Growth(
        seed=4, stems=120, length=330, spacing=(8, 7), reach=(0.3, 0.4), angle=42.0,
        curl=0.005, disorder=0.3, patches=0.8, cover=0.35,
    ),
    Growth(
        seed=5, stems=1300, length=75, spacing=(6, 5), reach=(0.6, 0.3), disorder=3.0,
        patches=1.2, cover=0.4,
    ),
)  # fmt: skip


class Lines(NamedTuple):
    """Lines that bend a little: each field has a number a line (N,)."""

    x: Floats
    y: Floats
    heading: Floats  # radians
    bend: Floats  # radians a pixel
    length: Floats  # pixels
    light: Floats

    def at(self, rows: Rows, along: Floats) -> tuple[Floats, Floats]:
        """Where (x, y) one is after that many pixels along these lines."""
        chord = self.heading[rows] + self.bend[rows] * along / 2
        return self.x[rows] + along * np.cos(chord), self.y[rows] + along * np.sin(chord)


@cache
def textures(scale: float, device: torch.device = CPU) -> Tensor:
    """The five pictures (5, 3, S, S) uint8, with S = SIDE times the scale; kept once made."""
    if device.type != "cpu":
        return textures(scale).to(device)
    if scale != 1:
        full = textures(1.0).float()
        small = functional.interpolate(
            full, size=math.ceil(SIDE * scale), mode="bilinear", antialias=True
        )
        return small.round_().clamp_(0, 255).to(torch.uint8)
    return torch.stack(list(threads().map(picture, GROWTHS)))


def picture(growth: Growth) -> Tensor:
    """A picture (3, SIDE, SIDE) uint8."""
    dice = np.random.Generator(np.random.SFC64(growth.seed))
    slow, fine = (field.roll((97 * growth.seed, 181 * growth.seed), (0, 1)) for field in _clouds())
    places = torch.sigmoid(1.5 * growth.patches * slow)
    sharp, soft, wide = _smoothed(_drawn(_crystals(growth, dice, slow.numpy())))
    lines = torch.tanh((sharp - 0.5 * soft).clamp_(min=0) / (0.16 + soft))
    body = 1 - torch.exp(-(1.3 * soft + 1.4 * wide) * (0.25 + 1.5 * places))
    relief = torch.tanh((soft.roll((2, 2), (0, 1)) - soft.roll((-2, -2), (0, 1))) / (0.1 + soft))
    veil = growth.cover * places * (1 + 0.2 * fine) * (1 - body)
    share = body * (0.62 + 0.3 * relief) + lines * (0.3 + 0.7 * body) + veil
    dark, light = torch.tensor(GROUND)[..., None, None]
    ground = torch.lerp(dark, light, (0.5 - 0.25 * slow.roll((300, 500), (0, 1))).clamp_(0, 1))
    bright = torch.tensor(ICE)[:, None, None] * (0.96 + 0.02 * fine)
    return torch.lerp(ground, bright, share.clamp_(0, 1)).clamp_(0, 255).to(torch.uint8)


def _squares() -> Tensor:
    """Squared frequencies (SIDE, SIDE / 2 + 1) of a real picture's spectrum, in waves a pixel."""
    return torch.fft.fftfreq(SIDE)[:, None] ** 2 + torch.fft.rfftfreq(SIDE) ** 2


@cache
def _clouds() -> tuple[Tensor, Tensor]:
    """Slow and fine ups and downs (SIDE, SIDE) around 0, mostly within 1 of it."""
    dice = np.random.Generator(np.random.SFC64(0))
    white = torch.fft.rfft2(torch.from_numpy(dice.standard_normal((SIDE, SIDE), np.float32)))
    squares = _squares()
    squares[0, 0] = torch.inf
    found = [torch.fft.irfft2(white * squares**power) for power in (-0.65, -0.33)]
    slow, fine = (field / field.std() for field in found)
    return slow, fine


def _smoothed(drawing: Tensor) -> list[Tensor]:
    """A drawing (SIDE, SIDE) under three Gaussians."""
    spectrum, squares = torch.fft.rfft2(drawing), _squares()
    return [
        torch.fft.irfft2(spectrum * torch.exp(-2 * (math.pi * sigma) ** 2 * squares))
        for sigma in (0.7, 2.5, 12.0)
    ]


def _crystals(growth: Growth, dice: np.random.Generator, slow: Floats) -> list[Lines]:
    """Stems, their branches, and theirs."""

    def random() -> Floats:
        return dice.random(growth.stems, np.float32)

    def normal() -> Floats:
        return dice.standard_normal(growth.stems, np.float32)

    x, y = random() * SIDE, random() * SIDE
    flow = slow[y.astype(np.int64), x.astype(np.int64)]
    heading = 2 * flow + growth.disorder * normal() + math.pi * (random() < 0.5)
    length = growth.length * (0.3 + 0.7 * random())
    stems = Lines(x, y, heading, growth.curl * normal(), length, np.ones_like(x))
    branches = _branches(stems, growth, 0, dice)
    return [stems, branches, _branches(branches, growth, 1, dice)]


def _branches(lines: Lines, growth: Growth, order: int, dice: np.random.Generator) -> Lines:
    """Branches to both sides of lines, shorter towards the tip."""
    gap = np.float32(growth.spacing[order])
    rows, nth = _counted((lines.length / gap).astype(np.int64) - 1)
    count = len(rows)
    found = []
    for side in (-1, 1):
        along = gap * (nth + 0.6 + 0.8 * dice.random(count, np.float32))
        whole = lines.length[rows]
        left = (whole - along).clip(0) * np.minimum(1, along / (0.15 * whole))
        turn = side * math.radians(growth.angle) + 0.1 * dice.standard_normal(count, np.float32)
        found.append(
            Lines(
                *lines.at(rows, along),
                heading=lines.heading[rows] + lines.bend[rows] * along + turn,
                bend=np.full(count, -0.004 * side, np.float32),
                length=left * growth.reach[order] * (0.4 + 0.9 * dice.random(count, np.float32)),
                light=0.6 * lines.light[rows],
            )
        )
    return Lines(*map(np.concatenate, zip(*found, strict=True)))


def _counted(counts: Rows) -> tuple[Rows, Floats]:
    """Each row as often as its count says, and the how-manieth it is there."""
    counts = counts.clip(0)
    rows = np.repeat(np.arange(len(counts)), counts)
    begins = np.cumsum(counts) - counts
    return rows, (np.arange(len(rows)) - begins[rows]).astype(np.float32)


def _drawn(crystals: list[Lines]) -> Tensor:
    """The light (SIDE, SIDE) of all lines, a point a pixel of length, weaker towards the tip."""
    light = np.zeros(SIDE * SIDE)
    for lines in crystals:
        rows, along = _counted(lines.length.astype(np.int64))
        x, y = (np.floor(place).astype(np.int64) % SIDE for place in lines.at(rows, along))
        shine = lines.light[rows] * (1 - 0.6 * along / lines.length[rows])
        light += np.bincount(y * SIDE + x, shine, SIDE * SIDE)
    return torch.from_numpy(light.reshape(SIDE, SIDE)).float()
