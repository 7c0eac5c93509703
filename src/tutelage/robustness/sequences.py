"""The 10 perturbation sequences of ImageNet-P, frame by frame, on batches of uint8 images.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.2, at the first of three
difficulties. The numbers are those of the authors' code, which has a set for ImageNet and one for
CIFAR. An image of another size gets the set whose size is nearest, as a ratio, with its lengths in
pixels in proportion; a shift is by whole pixels. Deviations: the published sequences are compressed
videos, of which the geometric ones show what lies beside the image, while these mirror the image
there, as the model's square input is all there is. A tilted image is seen from a distance of its
diagonal. Snow has the flakes of severity 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.color import brightened
from tutelage.corruptions.corrupt import truncated
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level, level
from tutelage.corruptions.motion import motion_blurred
from tutelage.corruptions.noise import gaussian_noise, shot_noise
from tutelage.corruptions.snow import snowed
from tutelage.corruptions.zoom import zoomed
from tutelage.data.operations import as_bytes, as_float


@dataclass(frozen=True)
class Course:
    """How a perturbation goes on from frame to frame."""

    frames: int
    first: float = 0.0  # what the first frame has: degrees, pixels, a factor, or a value
    step: float = 0.0  # what each further frame has more
    numbers: Level = ()  # what all frames have

    def at(self, frame: int) -> float:
        """What a frame has, counted from 0."""
        return self.first + self.step * frame


SIZES = (224, 32)  # pixels
NOISES = ("gaussian_noise", "shot_noise")  # whose frames have no order, and the first is clean
GEOMETRIC = ("translate", "rotate", "tilt", "scale")
COURSES: dict[str, dict[int, Course]] = {
    "gaussian_noise": {  # sigma
        224: Course(31, numbers=(0.03,)), 32: Course(31, numbers=(0.02,)),
    },
    "shot_noise": {  # photons at full brightness
        224: Course(31, numbers=(300,)), 32: Course(31, numbers=(700,)),
    },
    "motion_blur": {  # degrees; radius and sigma in pixels
        224: Course(31, -120, 4, (10, 3)), 32: Course(21, -180, 9, (6, 1.8)),
    },
    "zoom_blur": {224: Course(31, 1, 0.004), 32: Course(31, 1, 0.004)},  # factor
    "snow": {  # degrees; radius and sigma in pixels
        224: Course(31, -150, 4, (14, 4)), 32: Course(31, -150, 4, (10, 2)),
    },
    "brightness": {224: Course(31, -0.3, 0.02), 32: Course(31, -0.225, 0.015)},  # added to V
    "translate": {224: Course(41, -20, 1), 32: Course(16, -7, 1)},  # pixels to the right
    "rotate": {224: Course(31, -15, 1), 32: Course(31, -15, 1)},  # degrees
    "tilt": {224: Course(31, -15, 1), 32: Course(31, -11.25, 0.75)},  # degrees about both axes
    "scale": {224: Course(31, 0.4, 0.025), 32: Course(31, 0.7, 0.02)},  # factor
}  # fmt: skip


def course(name: str, size: int) -> Course:
    """That of a perturbation for images of that many pixels."""
    known = set_for(size)
    found = COURSES[name][known]
    if name in ("motion_blur", "snow"):
        return replace(found, numbers=tuple(one * size / known for one in found.numbers))
    if name == "translate":
        pixels = max(1, round(size / known))
        return replace(found, first=found.first * pixels, step=found.step * pixels)
    return found


def set_for(size: int) -> int:
    """The image size whose numbers fit images of that many pixels best."""
    return min(SIZES, key=lambda known: abs(math.log(size / known)))


@torch.no_grad()
def frames(images: Tensor, name: str, *, keys: Sequence[str], seed: int = 0) -> Iterator[Tensor]:
    """The frames (B, 3, H, W) uint8 of images (B, 3, H, W) uint8, one after another.

    `keys` tell the images apart, such as their names: what is drawn for an image follows from the
    seed, its key and the perturbation.
    """
    draws = Draws([f"{seed}/{key}/{name}/sequence" for key in keys], images.device)
    found = course(name, min(images.shape[-2:]))
    for frame in MAKERS[name](as_float(images), found, draws):
        yield as_bytes(frame) if name in GEOMETRIC else truncated(frame)


def _noisy(
    noise: Callable[[Tensor, Level, Draws], Tensor],
) -> Callable[[Tensor, Course, Draws], Iterator[Tensor]]:
    """The clean image, and then each time other noise."""

    def made(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
        yield images.clone()
        for _ in range(1, found.frames):
            yield noise(images, found.numbers, draws)

    return made


def _motion_blur(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
    radius, sigma = found.numbers
    for frame in range(found.frames):
        angles = torch.full((len(images),), found.at(frame))
        yield motion_blurred(images, radius, sigma, angles)


def _zoom_blur(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
    """The mean of all zooms so far."""
    total = images.clone()
    yield images.clone()
    for frame in range(1, found.frames):
        total += zoomed(images, found.at(frame))
        yield total / (frame + 1)


def _snow(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
    """The same flakes, blown from one side to the other."""
    mean, sd, zoom, threshold, _, _, mix = level("snow", 1, min(images.shape[-2:]))
    numbers = (mean, sd, zoom, threshold, *found.numbers, mix)
    layer = draws.normal(1, *images.shape[-2:]).mul_(sd).add_(mean)
    for frame in range(found.frames):
        yield snowed(images, layer, torch.full((len(images),), found.at(frame)), numbers)


def _brightness(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
    for frame in range(found.frames):
        yield brightened(images, found.at(frame))


def _geometric(
    back: Callable[[float, int], Tensor],
) -> Callable[[Tensor, Course, Draws], Iterator[Tensor]]:
    """The image under a projective map; beyond its edges it is mirrored."""

    def made(images: Tensor, found: Course, draws: Draws) -> Iterator[Tensor]:
        h, w = images.shape[-2:]
        for frame in range(found.frames):
            grid = _places(back(found.at(frame), w), h, w).to(images)
            yield functional.grid_sample(
                images, grid.expand(len(images), -1, -1, -1),
                padding_mode="reflection", align_corners=False,
            )  # fmt: skip

    return made


def _places(back: Tensor, h: int, w: int) -> Tensor:
    """Where (1, H, W, 2) pixels come from, by a map (3, 3) of places from -1 to 1; float64."""
    x, y = ((torch.arange(side).double() * 2 + 1) / side - 1 for side in (w, h))
    places = torch.stack((*torch.meshgrid(x, y, indexing="xy"), torch.ones(h, w).double()), -1)
    found = places @ back.T
    return (found[..., :2] / found[..., 2:])[None]


def _translate(pixels: float, side: int) -> Tensor:
    return torch.tensor([[1, 0, -2 * pixels / side], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


def _rotate(degrees: float, side: int) -> Tensor:
    """Counterclockwise."""
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


def _tilt(degrees: float, side: int) -> Tensor:
    """About the horizontal and then the vertical axis, both through the middle."""
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    away = 2 * math.sqrt(2)  # the eye's distance: the diagonal, where half a side is 1
    pitch = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)
    yaw = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=torch.float64)
    turned = (yaw @ pitch)[
        :, :2
    ]  # where the plane's two axes point; the third is away from the eye
    seen = torch.zeros(3, 3, dtype=torch.float64)
    seen[:2, :2], seen[2, :2], seen[2, 2] = turned[:2], turned[2] / away, 1
    return torch.linalg.inv(seen)


def _scale(factor: float, side: int) -> Tensor:
    return torch.diag(torch.tensor([1 / factor, 1 / factor, 1], dtype=torch.float64))


MAKERS: dict[str, Callable[[Tensor, Course, Draws], Iterator[Tensor]]] = {
    "gaussian_noise": _noisy(gaussian_noise), "shot_noise": _noisy(shot_noise),
    "motion_blur": _motion_blur, "zoom_blur": _zoom_blur, "snow": _snow,
    "brightness": _brightness, "translate": _geometric(_translate),
    "rotate": _geometric(_rotate), "tilt": _geometric(_tilt), "scale": _geometric(_scale),
}  # fmt: skip
assert tuple(MAKERS) == tuple(COURSES)
