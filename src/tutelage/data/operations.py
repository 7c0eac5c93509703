"""Image operations on whole batches, each image with an operation and an amount of its own.

All take uint8 (B, 3, H, W) of any H and W and an amount (B,) in the operation's own unit (degrees,
factor, gray levels); what a magnitude means is said in magnitudes.py. They give what Pillow gives,
its rounding included, but for three choices about the geometric ones: bilinear interpolation, which
fades into the gray outside; shears about the middle of the image, as rotations, where the published
codes hold the upper left corner; and shifts by parts of a pixel.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Operation = Callable[[Tensor, Tensor], Tensor]  # images (B, 3, H, W), amount (B,)

GRAY = 128  # fill of what a geometric operation uncovers


def as_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [0, 1]."""
    return images.float().div_(255)


def as_bytes(images: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8, rounded."""
    return (images * 255).round_().to(torch.uint8)


def _column(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]


def _bytes(levels: Tensor) -> Tensor:
    """Gray levels (B,) as uint8 (B, 1, 1, 1), clipped."""
    return _column(levels.clamp(0, 255).to(torch.uint8))


# Geometric: a matrix (B, 2, 3) that says where in the input a pixel of the output comes from, about
# the middle; x and y count in pixels, the shift in half sides.


def _matrix(entries: list[Tensor]) -> Tensor:
    return torch.stack(entries, 1).view(-1, 2, 3)


def rotate(degrees: Tensor) -> Tensor:
    """Rotation."""
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix([cos, -sin, zero, sin, cos, zero])


def shear_x(slope: Tensor) -> Tensor:
    """Horizontal shear."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return _matrix([one, slope, zero, zero, one, zero])


def shear_y(slope: Tensor) -> Tensor:
    """Vertical shear."""
    one, zero = torch.ones_like(slope), torch.zeros_like(slope)
    return _matrix([one, zero, zero, slope, one, zero])


def translate_x(share: Tensor) -> Tensor:
    """Horizontal shift by a share of the width."""
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _matrix([one, zero, 2 * share, zero, one, zero])


def translate_y(share: Tensor) -> Tensor:
    """Vertical shift by a share of the height."""
    one, zero = torch.ones_like(share), torch.zeros_like(share)
    return _matrix([one, zero, zero, zero, one, 2 * share])


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Resample (B, 3, H, W) at matrix (B, 2, 3) times (x, y, 1), bilinearly; outside is gray."""
    b, _, h, w = images.shape
    x = (torch.arange(w, device=images.device) * 2 + 1) / w - 1
    y = ((torch.arange(h, device=images.device) * 2 + 1) / h - 1)[:, None]
    (xx, xy, x0), (yx, yy, y0) = matrix[..., None, None].permute(1, 2, 0, 3, 4)
    grid = images.new_empty(b, h, w, 2, dtype=torch.float32)
    torch.add(xx * x, xy * (h / w) * y + x0, out=grid[..., 0])
    torch.add(yx * (w / h) * x, yy * y + y0, out=grid[..., 1])
    moved = functional.grid_sample(images.float().sub_(GRAY), grid, align_corners=False)
    return moved.add_(GRAY + 0.5).to(torch.uint8)  # cut off at one half more: rounded


# Of color.


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Pillow's enhance on floats: factor 0 gives `other`, 1 the image, above 1 goes beyond it."""
    mixed = (images - other).mul_(_column(factor)).add_(other)
    return mixed.clamp_(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """ITU-R 601 gray (B, 1, H, W) of floats, as Pillow's mode L: exact, as all is below 2^24."""
    red, green, blue = images.split(1, 1)
    gray = (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return gray.div_(65536).floor_()


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return images.float().mul_(_column(factor)).clamp_(0, 255).to(torch.uint8)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean gray."""
    images = images.float()
    mean = _luma(images).mean((2, 3), keepdim=True)
    return _blend(images, (mean + 0.5).floor_(), factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image."""
    images = images.float()
    return _blend(images, _luma(images), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with Pillow's SMOOTH filter; the border stays."""
    if min(images.shape[-2:]) < 3:
        return images
    images = images.float()
    rows = (images[:, :, :-2] + images[:, :, 1:-1]).add_(images[:, :, 2:])
    around = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    soft = images.clone()
    soft[:, :, 1:-1, 1:-1].mul_(4).add_(around).div_(13).add_(0.5).floor_()
    return _blend(images, soft, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits: 8 and more change nothing, 0 is black."""
    return images & _bytes(256 - 2.0 ** (8 - bits).clamp(0, 8))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what reaches a threshold in gray levels; above 255 nothing does."""
    threshold = threshold.ceil()
    above = (images >= _bytes(threshold)) & _column(threshold <= 255)
    return images ^ above.to(torch.uint8).neg_()


def solarize_add(images: Tensor, levels: Tensor) -> Tensor:
    """Add gray levels to what lies below 128, up to 255."""
    added = torch.minimum(~images, _bytes(levels))
    return images + added.mul_(images < 128)


def invert(images: Tensor, amount: Tensor) -> Tensor:
    """The negative."""
    return ~images


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch each channel to the full range; flat channels stay."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = low == high
    low = low.masked_fill(flat, 0)
    scale = torch.where(flat, 1, 255 / (high - low).clamp(min=1))
    # a little more than the float's error, or the brightest level is cut down to 254
    return (images - low).float().mul_(scale).add_(1e-3).to(torch.uint8)


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Flatten each channel's histogram, with Pillow's integer rule."""
    b, c, h, w = images.shape
    pixels = images.reshape(b * c, h * w).long()
    histogram = pixels.new_zeros(b * c, 256)
    histogram.scatter_add_(1, pixels, torch.ones_like(pixels))
    last = histogram.gather(1, pixels.amax(1, keepdim=True))  # pixels in the brightest used bin
    step = (h * w - last).div(255, rounding_mode="floor")
    before = histogram.cumsum(1) - histogram
    table = (before + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.to(torch.uint8).gather(1, pixels).reshape(b, c, h, w)


def cutout(images: Tensor, side: Tensor, center: Tensor) -> Tensor:
    """A gray rectangle, `side` (B,) of each side of the image, at a center (B, 2), y and x."""
    return images.masked_fill(around(center, side, images.shape), GRAY)


def around(center: Tensor, side: Tensor, shape: torch.Size) -> Tensor:
    """Where (B, 1, H, W) a rectangle around a center (B, 2) is, clipped at the border."""
    h, w = shape[-2:]
    rows = (torch.arange(h, device=side.device) + 0.5) / h - center[:, :1]
    columns = (torch.arange(w, device=side.device) + 0.5) / w - center[:, 1:]
    half = side[:, None] / 2
    return (rows.abs() <= half)[:, None, :, None] & (columns.abs() <= half)[:, None, None]


GEOMETRIC: Mapping[str, Callable[[Tensor], Tensor]] = {
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
}
OF_COLOR: Mapping[str, Operation] = {
    "brightness": brightness,
    "contrast": contrast,
    "color": color,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "solarize_add": solarize_add,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
}
NAMES = (*GEOMETRIC, *OF_COLOR, "cutout", "identity")
IDENTITY = NAMES.index("identity")


def apply(images: Tensor, choice: Tensor, amount: Tensor, centers: Tensor | None = None) -> Tensor:
    """N operations an image, one after another: (B, 3, H, W), uint8 or float in [0, 1].

    Floats are rounded to 8 bits.

    `choice` (N, B) int64 counts in NAMES, `amount` (N, B) goes with it, and `centers` (N, B, 2)
    where cutout is among them; all on the CPU.
    """
    if images.dtype != torch.uint8:
        return as_float(apply(as_bytes(images), choice, amount, centers)).to(images.dtype)
    images, device = images.contiguous(), images.device
    place = torch.arange(len(images))  # where each of the images belongs
    for slot, drawn in enumerate(choice):
        # sorted by operation, so that each of them has one slice to work on
        order = drawn[place].argsort(stable=True)
        place = place[order]
        images = images.index_select(0, order.to(device))
        counts = drawn.bincount(minlength=len(NAMES)).tolist()
        spots = None if centers is None else centers[slot, place].to(device)
        _one_each(images, counts, amount[slot, place].to(device, torch.float32), spots)
    return images.index_select(0, place.argsort().to(device))


def _one_each(images: Tensor, counts: list[int], amount: Tensor, centers: Tensor | None) -> None:
    """One operation an image, in place, on images sorted by operation."""
    parts, levels = images.split(counts), amount.split(counts)
    moved = sum(counts[: len(GEOMETRIC)])
    if moved:  # all of them in one resampling
        pairs = zip(GEOMETRIC.values(), levels, strict=False)
        matrices = [matrix(level) for matrix, level in pairs]
        images[:moved] = warp(images[:moved], torch.cat(matrices))
    for index, name in enumerate(NAMES):
        if not counts[index]:
            continue
        if name in OF_COLOR:
            parts[index].copy_(OF_COLOR[name](parts[index], levels[index]))
        elif name == "cutout" and centers is not None:
            spots = centers.split(counts)[index]
            parts[index].copy_(cutout(parts[index], levels[index], spots))
