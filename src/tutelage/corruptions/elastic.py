"""Images that are stretched and dented.

Paper: Hendrycks and Dietterich 2019 (arXiv 1903.12261), section 4.1, after Simard et al. 2003: an
affine map that moves three points at random, then a smooth random displacement of every pixel. The
authors resample the first with OpenCV, which rounds its coordinates; here they are exact.
"""

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.corruptions.banded import mapped
from tutelage.corruptions.blur import bell_map
from tutelage.corruptions.draws import Draws
from tutelage.corruptions.levels import Level

END = 3  # sigmas, where the Gaussian ends


def elastic_transform(images: Tensor, level: Level, draws: Draws) -> Tensor:
    """Images (B, 3, H, W) under a random affine map and a random smooth displacement."""
    alpha, sigma, jitter = level
    h, w = images.shape[-2:]
    maps = affine_maps(draws.uniform(3, 2, low=-jitter, high=jitter), h, w)
    maps = maps.to(images.dtype).to(images.device)
    x, y = (torch.arange(side, device=images.device).to(images) for side in (w, h))
    (xx, xy, x0), (yx, yy, y0) = maps[..., None, None].permute(1, 2, 0, 3, 4)
    grid = images.new_empty(len(images), h, w, 2)
    torch.add(xx * x, xy * y[:, None] + x0, out=grid[..., 0])
    torch.add(yx * x, yy * y[:, None] + y0, out=grid[..., 1])
    images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    if alpha == 0:
        return images
    noise = draws.uniform(2, h, w, low=-1).to(images)
    bells = (bell_map(side, sigma, END, mirrored=True) for side in (h, w))
    right, down = mapped(noise, *bells).unbind(1)
    torch.add((2 * x + 1) / w - 1, right, alpha=2 * alpha / w, out=grid[..., 0])
    torch.add(((2 * y + 1) / h - 1)[:, None], down, alpha=2 * alpha / h, out=grid[..., 1])
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def affine_maps(moved: Tensor, h: int, w: int) -> Tensor:
    """The maps (B, 2, 3) of pixels (x, y, 1) to where they come from, float64, on the CPU: not each
    device has doubles.

    Three points of the image are moved by (B, 3, 2) pixels. What they come to is from -1 at the
    first pixel's center to 1 at the last one's.
    """
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    start = corners * (min(h, w) // 3) + corners.new_tensor((w // 2, h // 2))
    end = start + moved.cpu().double()
    # of the two sides that meet in the last point: those of the start are `there` times theirs
    there = (end[:, :2] - end[:, 2:]).mT @ torch.linalg.inv((start[:2] - start[2]).T)
    (a, b), (c, d) = there.permute(1, 2, 0)
    area = a * d - b * c
    area[area == 0] = torch.inf  # a flat triangle has no way back: one point, as with OpenCV
    back = torch.stack((d, -b, -c, a), -1).view(-1, 2, 2) / area[:, None, None]
    maps = torch.cat((back, (start[2] - (back @ end[:, 2, :, None])[..., 0])[..., None]), -1)
    maps *= 2 / maps.new_tensor((max(w - 1, 1), max(h - 1, 1)))[:, None]
    maps[..., 2] -= 1
    return maps
