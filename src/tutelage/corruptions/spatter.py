"""Spatter: drops of water that shine at their rims, or of mud.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1, whose authors use OpenCV for
the rims. An image that no drop fell on stays as it is; the authors' code divides by zero there.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.blur import gaussian_blurred
from tutelage.corruptions.distances import distances
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.edges import bordered, canny
from tutelage.corruptions.levels import Level

WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)  # brown
LOW, HIGH = 50, 150  # steepness that continues an edge, and that makes one
THICK = 0.8  # what is left of mud


def spatter(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) with drops of water, or of mud where the level says so."""
    mean, sd = level[:2]
    noise = draws.normal(1, *images.shape[-2:])
    return spattered(images, noise.mul_(sd).add_(mean), level)


def spattered(images: Tensor, noise: Tensor, level: Level) -> Tensor:
    """Images (B, 3, H, W) behind the drops that follow from a normal layer (B, 1, H, W)."""
    _, _, sigma, threshold, strength, mud = level
    liquid = gaussian_blurred(noise, sigma)
    if mud:
        return with_mud(images, (liquid > threshold).float(), strength)
    drops = functional.threshold(liquid[:, 0], threshold, 0.0).mul_(255)
    # as bytes, that of 256 is 0 again, which is rare; the authors' code does that too
    return with_water(images, drops.to(torch.int16).bitwise_and_(255), strength)


def with_mud(images: Tensor, places: Tensor, sigma: float) -> Tensor:
    """Images (B, 3, H, W) behind mud at places (B, 1, H, W) of 0 and 1, thin at their rims."""
    mud = functional.threshold(gaussian_blurred(places, sigma), THICK, 0.0)
    return torch.lerp(images, mud.new_tensor(MUD)[:, None, None], mud)


def with_water(images: Tensor, drops: Tensor, strength: float) -> Tensor:
    """Images (B, 3, H, W) with the shine of drops (B, H, W) int16, 0 to 255, added."""
    shine = rims(drops).mul_(drops)
    shine *= strength / shine.amax((1, 2), keepdim=True).clamp_(min=1)
    return torch.addcmul(images, shine[:, None], shine.new_tensor(WATER)[:, None, None])


def rims(drops: Tensor) -> Tensor:
    """Light from the lower right at the rims of drops (B, H, W): float, 0 to 255."""
    away = boxed(distances(canny(drops, LOW, HIGH))) >> 16  # nine times, from units to pixels
    away = away.mul_(57).bitwise_right_shift_(9)  # a ninth, rounded down, up to 20 * 9
    relief = boxed(embossed(equalized(away)))
    return relief.float().add_(4.5).div_(9).floor_()  # a ninth, rounded


def boxed(images: Tensor) -> Tensor:
    """Sums (B, H, W) over 3 by 3 pixels; the border mirrors what is inside it."""
    wide = bordered(images, inner=1)
    tall = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return tall[:, :-2] + tall[:, 1:-1] + tall[:, 2:]


def embossed(images: Tensor) -> Tensor:
    """Relief (B, H, W) of images int16, lit from the lower right: 0 to 255."""
    wide = bordered(images, inner=1)
    above, here, below = wide[:, :-2], wide[:, 1:-1], wide[:, 2:]
    relief = here[..., 1:-1] + here[..., 2:] - here[..., :-2]
    relief += below[..., 1:-1] - above[..., 1:-1]
    relief += 2 * (below[..., 2:] - above[..., :-2])
    return relief.clamp_(0, 255)


def equalized(images: Tensor) -> Tensor:
    """Images (B, H, W) int32, 0 to 255, as int16 with histograms as even as can be.

    An image of one gray level stays.
    """
    count = len(images)
    ranges = torch.arange(0, 256 * count, 256, device=images.device, dtype=torch.int32)
    values = (images + ranges[:, None, None]).flatten()
    histograms = torch.bincount(values, minlength=256 * count).view(count, 256)
    darkest = images.amin((1, 2))[:, None].long()
    first = histograms.gather(1, darkest)
    others = images[0].numel() - first
    found = (histograms.cumsum(1) - first) * (255 / others.float().clamp_(min=1))
    found = torch.where(others == 0, darkest, found.round_()).to(torch.int16)
    return found.flatten().index_select(0, values).view(images.shape)
