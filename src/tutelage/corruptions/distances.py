"""How far the pixels are from a mask, by a metric of moves, as OpenCV has it to the last bit.

Paper: Borgefors 1986, Distance transformations in digital images (CVGIP 34): the shortest way by
moves to a neighbor, to a diagonal neighbor and by a knight's move, which count 1, 1.4 and 2.1969.
OpenCV counts in 65536ths, as this does; where Intel's library does it for OpenCV (it can on x86),
distances differ by up to a ten-thousandth of a pixel.
"""

from functools import cache

import torch
from torch import Tensor

FURTHEST = 20  # pixels: no distance is more
UNIT = 2**16  # of a distance
MOVES = (UNIT, 91750, 143976)  # what the moves count, in units
# in 16 bits, at which a CPU is fastest: all ways shorter than 20 pixels have different lengths in
# the same order, so that the shortest way is the same and its length can be looked up
SHORT_MOVES = (1301, 1821, 2855)
BEGIN, END = -16000, -16000 + FURTHEST * SHORT_MOVES[0]  # what stands for 0 and for 20 pixels


def distances(mask: Tensor) -> Tensor:
    """From each pixel to a mask (B, H, W) int16 of -1 and 0: int32, 65536ths of a pixel to 20.

    The shortest way needs the moves of two neighboring directions only, in any order, and stays
    between its ends. So all moves of a kind are made after those of another, and many by doubling.
    The images lie in one line with 20 far pixels after each row and 20 far rows between images, so
    that a move is a shift of the line, and no way leads to another row's or image's end.
    """
    count, height, width = mask.shape
    row = width + FURTHEST
    margin = 8 * (row + 1)  # no shift is more
    length = (count * (height + FURTHEST) - FURTHEST) * row
    line = mask.new_full((length + 2 * margin,), END)
    strides = ((height + FURTHEST) * row, row, 1)
    planes = line.as_strided((count, height, width), strides, margin)
    torch.bitwise_and(mask, BEGIN - END, out=planes).add_(END)

    def aside(count: int) -> Tensor:
        """The less of what is `count` to the left and to the right, for the line but its ends."""
        return torch.minimum(line[: -2 * count], line[2 * count :])

    def of_rows(found: Tensor, count: int) -> Tensor:
        """The less of what is `count` rows above and below, of the line but its ends."""
        begin = (len(found) - length) // 2
        above, below = begin - count * row, begin + count * row
        return torch.minimum(found[above : above + length], found[below : below + length])

    def nearer(found: Tensor, cost: int) -> None:
        torch.minimum(here, found.add_(cost), out=here)

    here = line[margin : margin + length]
    for times in (1, 2, 4, 8, 4):
        found, beside = of_rows(line, times), aside(times)[margin - times :][:length]
        nearer(torch.minimum(found, beside, out=found), times * SHORT_MOVES[0])
    for times in (1, 2, 4, 7):
        nearer(of_rows(aside(times), times), times * SHORT_MOVES[1])
    for times in (1, 2, 4, 2):
        flat, steep = of_rows(aside(2 * times), times), of_rows(aside(times), 2 * times)
        nearer(torch.minimum(flat, steep, out=flat), times * SHORT_MOVES[2])
    codes = (planes - BEGIN).int().clamp_(0, END - BEGIN)
    return _lengths().to(mask.device).index_select(0, codes.flatten()).view(mask.shape)


@cache
def _lengths() -> Tensor:
    """The lengths (N,) int32 in units that stand for 16-bit ones from 0, as far as ways have them.

    A way goes in two directions: by knight's moves, and by moves to neighbors or to diagonal ones.
    """
    table = torch.zeros(END - BEGIN + 1, dtype=torch.int32)
    table[-1] = FURTHEST * UNIT
    for other in (0, 1):
        for first in range(FURTHEST):
            for knights in range(10):
                code = first * SHORT_MOVES[other] + knights * SHORT_MOVES[2]
                if code < len(table) - 1:
                    table[code] = first * MOVES[other] + knights * MOVES[2]
    return table
