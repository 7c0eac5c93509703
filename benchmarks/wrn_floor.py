"""The least time that a card needs for a network's training: its arithmetic or its memory.

What a card can do is measured, by a large product of bf16 matrices and by a large copy. What the
network asks is counted: the multiply-adds of its layers, twice as many in the backward pass as in
the forward pass, and the feature maps that each convolution and linear layer has to read and to
write in bf16. Normalization, activations, weights, views and the optimizer are left out, so no
training is faster than this; how far off one is says what they and the waiting cost. (What is too
much is the gradient of the images themselves, 0.2 % of the operations of wrn-28-2.) The tables that
the shares stand in are here too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.journal import Row
from tutelage.evaluation.intervals import Accuracy
from tutelage.networks.build import Net, build
from tutelage.speed.counts import count
from tutelage.speed.runners import wait_for

BYTES = 2  # of a bf16 number
REPEATS = 20
MATRIX, COPIED = 8192, 2**30  # side of the product's matrices; bytes of the copy
SMALL_MATRIX, SMALL_COPIED = 256, 2**22


@dataclass(frozen=True)
class Work:
    """What one image costs in a forward pass."""

    flops: int
    read: int  # bytes of the maps that go into layers
    written: int  # bytes of those that come out

    def bytes_of(self, *, forward: float, backward: float) -> float:
        """Bytes moved by so many passes: backward reads the incoming gradient and the map that
        went in, and writes that map's gradient."""
        return forward * (self.read + self.written) + backward * (self.written + 2 * self.read)

    def flops_of(self, *, forward: float, backward: float) -> float:
        """Operations of so many passes."""
        return self.flops * (forward + 2 * backward)


@dataclass(frozen=True)
class Card:
    """What a card can do."""

    flops: float  # a second
    bandwidth: float  # bytes a second, read and written


@dataclass(frozen=True)
class Passes:
    """Passes of the network for each labeled image of a batch."""

    forward: float
    backward: float


def passes(method: str, ratio: int) -> Passes:
    """Those of a training step, where the networks of teacher and student are alike.

    Meta Pseudo Labels: the teacher on labels and both views of the pool; the student's lesson on
    one view, two exams, one of them with a gradient, and the derivative along a direction, which
    takes three forward passes. The reduced one has no such teacher.
    """
    both = 1 + 2 * ratio
    lesson = Passes(ratio + 2 + 3 * ratio, ratio + 1)
    known = {
        "supervised": Passes(1, 1),
        "fixmatch": Passes(both, both),
        "reduced-meta-pseudo-labels": lesson,
        "meta-pseudo-labels": Passes(both + lesson.forward, both + lesson.backward),
    }
    return known[method]


def work_of(net: Net) -> Work:
    """What its convolutions and linear layers cost, counted without numbers."""
    moved = [0, 0]

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moved[0] += inputs[0].numel() * BYTES
        moved[1] += output.numel() * BYTES

    with torch.device("meta"), torch.no_grad():
        module = build(net).eval()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(note)
        module(torch.zeros(1, 3, net.img_size, net.img_size))
    macs = count(net).macs
    assert macs is not None, "these networks' shapes tell"
    return Work(2 * macs, *moved)


def floor_seconds(work: Work, asked: Passes, card: Card) -> float:
    """The least time for one labeled image of a batch, with the pool images that go with it."""
    passed = {"forward": asked.forward, "backward": asked.backward}
    return max(work.flops_of(**passed) / card.flops, work.bytes_of(**passed) / card.bandwidth)


def floor_rate(work: Work, method: str, ratio: int, card: Card) -> float:
    """The most images a second, counted as in metrics.jsonl: labeled and pool images, each once."""
    images = 1 + (ratio if method != "supervised" else 0)
    return images / floor_seconds(work, passes(method, ratio), card)


def fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some runs, after some that are not counted."""
    times = []
    for _ in range(REPEATS):
        wait_for(device)
        start = time.perf_counter()
        run()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return min(times[REPEATS // 4 :])


def measure(device: torch.device, *, small: bool) -> Card:
    """The most that the card did in a product and in a copy."""
    side, size = (SMALL_MATRIX, SMALL_COPIED) if small else (MATRIX, COPIED)
    a, b, out = (torch.randn(side, side, device=device).bfloat16() for _ in range(3))
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    product = fastest(lambda: torch.mm(a, b, out=out), device)
    copy = fastest(lambda: target.copy_(source), device)
    return Card(2 * side**3 / product, 2 * size / copy)


def card_of(row: Row) -> Card:
    """The card of a row of the floor stage."""
    return Card(row["flops"], row["bandwidth"])


def floor_row(net: Net, ratio: int, device: torch.device, *, small: bool) -> Row:
    """What the card can do, what an image asks, and the rate that no training passes."""
    card, work = measure(device, small=small), work_of(net)
    methods = ("supervised", "fixmatch", "meta-pseudo-labels", "reduced-meta-pseudo-labels")
    return {
        "flops": card.flops,
        "bandwidth": card.bandwidth,
        "image_flops": work.flops,
        "image_bytes": work.read + work.written,
        "images_per_second": {m: round(floor_rate(work, m, ratio, card)) for m in methods},
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def tables(rows: Sequence[Row]) -> str:
    """Markdown of all rows: the card, timed steps, trainings."""
    floor = next((row for row in rows if row["stage"] == "floor"), None)
    lines = [] if floor is None else [_sentence(floor), ""]
    head = ("step", "fit, ms", "bare, ms", "ratio (quartiles)", "ahead, ms", "images/s")
    lines += [f"| {' | '.join(head)} | of the floor | waits |", "| --- " * 8 + "|"]
    lines += [_timed(row) for row in rows if row["stage"] == "speed"]
    head = ("training", "accuracy (95 % interval)", "labels alone", "minutes", "steps", "images/s")
    lines += ["", f"| {' | '.join(head)} | of the floor |", "| --- " * 7 + "|"]
    return "\n".join(lines + [_trained(row, floor) for row in rows if row["stage"] == "train"])


def _sentence(row: Row) -> str:
    """What the card can do, and what an image asks of it."""
    return (
        f"{row['card']}: {row['flops'] / 1e12:,.1f} TFLOP/s in bf16, "
        f"{row['bandwidth'] / 1e9:,.0f} GB/s; an image is {row['image_flops'] / 1e6:,.0f} MFLOP "
        f"and {row['image_bytes'] / 1e6:.1f} MB of maps in a forward pass"
    )


def _timed(row: Row) -> str:
    """A line of timed steps."""
    low, middle, high = row["ratio"]
    kind = "compiled" if row["compile"] else "eager"
    waits = "" if row["syncs"] is None else row["syncs"]
    return (
        f"| {row['method']}, batch {row['batch']}, {kind} | {row['fit_ms']:.2f} | "
        f"{row['bare_ms']:.2f} | {middle:.3f} ({low:.3f} to {high:.3f}) | "
        f"{row['ahead_ms']:.2f} | {row['images_per_second']:,.0f} | "
        f"{row['share_of_floor']:.1%} | {waits} |"
    )


def _trained(row: Row, floor: Row | None) -> str:
    """A line of a training."""
    right, alone, share = Accuracy(**row["accuracy"]), "", ""
    low, high = right.interval
    if floor is not None:
        most = floor["images_per_second"][row["training"].removesuffix("-large")]
        share = f"{row['images_per_second'] / most:.1%}"
    if row["baseline"] is not None:
        alone = f"{Accuracy(**row['baseline']).value:.2%}"
    return (
        f"| {row['training']}, batch {row['batch']} | {right.value:.2%} ({low:.2%} to {high:.2%}) "
        f"| {alone} | {row['minutes']:.1f} | {row['steps']:,} | {row['images_per_second']:,.0f} "
        f"| {share} |"
    )
