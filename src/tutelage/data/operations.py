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

from tutelage.core import sent
from tutelage.data.buffers import empty

Operation = Callable[[Tensor, Tensor], Tensor]  # images (B, 3, H, W), amount (B,)

GRAY = 128  # fill of what a geometric operation uncovers
PIECE = 2**15  # pixels at once on a CPU, so that what is in between fits in its caches


def as_float(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 in [0, 1]; what is float already stays."""
    if images.dtype != torch.uint8:
        return images
    if images.device.type != "cpu" or images.numel() <= 32 * PIECE:
        return images.float().div_(255)
    floats = empty(tuple(images.shape), torch.float32)
    size = max(1, PIECE // (images.shape[-1] * images.shape[-2]))
    for piece, values in zip(floats.split(size), images.split(size), strict=True):
        piece.copy_(values).div_(255)  # in pieces, so that both passes find them in the caches
    return floats


def as_bytes(images: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8, rounded."""
    return cut_off((images * 255).round_())


def cut_off(floats: Tensor) -> Tensor:
    """Floats from 0 to 255 -> uint8, without rounding.

    By way of 16 bits, as torch converts to 8 bits one by one: 0.02 against 0.08 ms for 224 px on a
    CPU (November 2026).
    """
    return floats.to(torch.int16).to(torch.uint8)


def _column(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]


def _bytes(levels: Tensor) -> Tensor:
    """Gray levels (B,) as uint8 (B, 1, 1, 1), clipped."""
    return _column(levels.clamp(0, 255).to(torch.uint8))


def matrices(choice: Tensor, amount: Tensor) -> Tensor:
    """Where in the input a pixel of the output comes from, (N, B, 2, 3): x and y about the middle.

    x and y count in pixels, shifts in half sides; the identity for what is not geometric.
    """
    kinds = torch.arange(len(GEOMETRIC)).view(-1, 1, 1)
    degrees, shear_x, shear_y, shift_x, shift_y = amount * (choice == kinds)
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos, shear_x - sin, 2 * shift_x, shear_y + sin, cos, 2 * shift_y]
    return torch.stack(rows, -1).unflatten(-1, (2, 3))


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
    return cut_off(moved.add_(GRAY + 0.5))  # at one half more: rounded


# Pillow's enhancers: factor 0 gives another image, 1 the image, and above 1 goes beyond it.


def _blend(floats: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    mixed = (floats - other).mul_(_column(factor)).add_(other)
    return cut_off(mixed.clamp_(0, 255))


def _gray(floats: Tensor) -> Tensor:
    """ITU-R 601 (B, 1, H, W), as Pillow's mode L; exact, as all is below 2^24."""
    red, green, blue = floats.split(1, 1)
    luma = (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return luma.div_(65536).floor_()


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return cut_off(images.float().mul_(_column(factor)).clamp_(0, 255))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean gray."""
    floats = images.float()
    mean = _gray(floats).mean((2, 3), keepdim=True)
    return _blend(floats, mean.add_(0.5).floor_(), factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray image."""
    floats = images.float()
    return _blend(floats, _gray(floats), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with Pillow's SMOOTH filter; the border stays."""
    if min(images.shape[-2:]) < 3:
        return images
    floats = images.float()
    rows = (floats[:, :, :-2] + floats[:, :, 1:-1]).add_(floats[:, :, 2:])
    near = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])
    soft = floats.clone()
    soft[:, :, 1:-1, 1:-1].mul_(4).add_(near).div_(13).add_(0.5).floor_()
    return _blend(floats, soft, factor)


# Gray level by gray level.


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits: 8 and more change nothing, 0 is black."""
    return images & _bytes(bits.sub(8).neg_().clamp_(0, 8).exp2_().neg_().add_(256))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what reaches a threshold in gray levels; above 255 nothing does."""
    below = _bytes(threshold.ceil() - 1)  # the last level that stays, but for a threshold of 0
    above = torch.maximum(images, below).sub_(below).clamp_(max=1)  # 0 or 1: no slow comparison
    return images ^ (above | _column(threshold <= 0)).neg_()


def solarize_add(images: Tensor, levels: Tensor) -> Tensor:
    """Add gray levels to what lies below 128, up to 255."""
    added = torch.minimum(~images, _bytes(levels))
    return images + added.bitwise_and_((images >> 7) - 1)  # the mask is 255 below 128, else 0


def invert(images: Tensor, amount: Tensor) -> Tensor:
    """The negative."""
    return ~images


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch each channel to the full range; flat channels stay."""
    low, high = images.flatten(2).aminmax(dim=2)
    flat = low == high
    low = low.masked_fill_(flat, 0)[..., None, None]
    scale = (high[..., None, None] - low).float().reciprocal_().mul_(255)
    scale.masked_fill_(flat[..., None, None], 1)
    # a little more than the float's error, or the brightest level is cut down to 254
    return cut_off((images - low).float().mul_(scale).add_(1e-3))


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Flatten each channel's histogram, with Pillow's integer rule."""
    b, c, h, w = images.shape
    first = torch.arange(0, b * c * 256, 256, dtype=torch.int32, device=images.device)
    level = images.reshape(b * c, h * w).int() + first[:, None]  # each channel has 256 of its own
    levels, bins = level.flatten(), b * c * 256
    on_cpu = images.device.type == "cpu"
    counts = levels.bincount(minlength=bins) if on_cpu else counted_by_adding(levels, bins)
    histogram = counts.view(b * c, 256)
    brightest = level.amax(1, keepdim=True).long()
    last = histogram.flatten()[brightest]  # pixels in the brightest used bin
    step = (h * w - last).div(255, rounding_mode="floor")
    before = histogram.cumsum(1) - histogram
    table = (before + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.to(torch.uint8).flatten().index_select(0, level.flatten()).reshape(b, c, h, w)


def counted_by_adding(levels: Tensor, bins: int) -> Tensor:
    """How often each number below `bins` is there (bins,) int64. `bincount` is faster on a CPU, but
    asks a device for the largest, and so waits for all that it was asked before."""
    counts = torch.zeros(bins, dtype=torch.int64, device=levels.device)
    return counts.index_add_(0, levels, torch.ones_like(levels, dtype=torch.int64))


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


GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
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
CUTOUT, IDENTITY = NAMES.index("cutout"), NAMES.index("identity")


def apply(images: Tensor, choice: Tensor, amount: Tensor, centers: Tensor | None = None) -> Tensor:
    """N operations an image, one after another: (B, 3, H, W), uint8 or float in [0, 1].

    Floats are rounded to 8 bits.

    `choice` (N, B) int64 counts in NAMES, `amount` (N, B) goes with it, and `centers` (N, B, 2)
    where cutout is among them; all on the CPU.
    """
    if images.dtype != torch.uint8:
        return as_float(apply(as_bytes(images), choice, amount, centers)).to(images.dtype)
    images, device = images.contiguous(), images.device
    matrix, amount = matrices(choice, amount).float(), amount.float()
    if device.type == "cpu" and images.shape[-1] * images.shape[-2] >= PIECE:
        return _one_by_one(images, choice, matrix, amount, centers)
    place = torch.arange(len(images))  # where each of the images belongs
    for slot, drawn in enumerate(choice):
        # sorted by operation, so that each of them has one slice to work on
        order = drawn[place].argsort(stable=True)
        place = place[order]
        images = _rows(images, sent(order, device))
        counts = drawn.bincount(minlength=len(NAMES)).tolist()
        moved = sum(counts[: len(GEOMETRIC)])  # all of them in one resampling
        _in_place(warp, images[:moved], sent(matrix[slot, place[:moved]], device))
        slices = images[moved:].split_with_sizes(counts[len(GEOMETRIC) :])
        levels = sent(amount[slot, place[moved:]], device)
        amounts = levels.split_with_sizes(counts[len(GEOMETRIC) :])
        for operation, part, level in zip(OF_COLOR.values(), slices, amounts, strict=False):
            _in_place(operation, part, level)
        if centers is not None:
            inside = sent(centers[slot, place], device).split_with_sizes(counts)[CUTOUT]
            slices[-2].copy_(cutout(slices[-2], amounts[-2], inside))
    return _rows(images, sent(place.argsort(), device))


def _one_by_one(
    images: Tensor, choice: Tensor, matrix: Tensor, amount: Tensor, centers: Tensor | None
) -> Tensor:
    """The same for large images on a CPU: each stays in its caches until it is done."""
    out = empty(tuple(images.shape), images.dtype)
    out.copy_(images)
    of_color = list(OF_COLOR.values())
    for row, kinds in enumerate(choice.T.tolist()):
        image = out[row : row + 1]
        for slot, kind in enumerate(kinds):
            level = amount[slot, row : row + 1]
            if kind < len(GEOMETRIC):
                image.copy_(warp(image, matrix[slot, row : row + 1]))
            elif kind == CUTOUT:
                assert centers is not None, "they come with it"
                image.copy_(cutout(image, level, centers[slot, row : row + 1]))
            elif kind != IDENTITY:
                image.copy_(of_color[kind - len(GEOMETRIC)](image, level))
    return out


def _rows(images: Tensor, order: Tensor) -> Tensor:
    """The images in another order."""
    if images.device.type != "cpu":
        return images.index_select(0, order)
    out = empty(tuple(images.shape), images.dtype)
    return torch.index_select(images, 0, order, out=out)


def _in_place(operation: Operation, images: Tensor, amount: Tensor) -> None:
    """Write what the operation makes over the images."""
    size = max(1, len(images))
    if images.device.type == "cpu":
        size = max(1, PIECE // (images.shape[-1] * images.shape[-2]))
    for start in range(0, len(images), size):
        part = images[start : start + size]
        part.copy_(operation(part, amount[start : start + size]))
