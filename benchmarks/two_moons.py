"""Two moons with six labels: Meta Pseudo Labels beside Pseudo-Label and training on the labels.

python -m benchmarks.two_moons [--seeds 10] [--steps 2000]

The demonstration of Pham et al. 2021 (arXiv 2003.10580): 2,000 points, 3 labels a moon, networks
with two hidden layers of 8 sigmoid units whose weights begin uniform in [-0.1, 0.1]. Here it goes
through the package's own steps and learners, with points as "images" (B, 3, 1, 1). A network
succeeds where it has 95 % of all points right.
Deviations from the paper: learning rate 1 and momentum 0.9 instead of 0.1 and none, with which
these networks need more than 6,000 steps to leave the straight boundary even if all labels are
given; standardized points, batches of 200 of them, the weights' average as the answer; no
fine-tuning. The teacher learns by UDA too, whose strong view is the points with noise: the rows
without UDA and without feedback say which of both it is that solves the moons.
"""

import argparse
import platform
import time
from itertools import pairwise

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from tutelage.core import Batch, Clock, Labeled, Unlabeled
from tutelage.learner import Learner
from tutelage.methods.meta_pseudo_labels import MetaPseudoLabels
from tutelage.methods.method import Method, State
from tutelage.methods.pseudo_label import PseudoLabel
from tutelage.methods.supervised import Supervised
from tutelage.settings import Optim
from tutelage.targets import one_hot

POINTS, LABELS, BATCH = 2000, 3, 200  # in all; a moon; pool points a step
SPREAD = 0.1  # standard deviation of the points around their moon
JITTER = 0.15  # and of the strong view around a point, in standardized coordinates
SUCCESS = 0.95
OPTIM = Optim(
    name="momentum", lr=1.0, momentum=0.9, weight_decay=0, schedule="constant", warmup=0, ema=0.99
)


def meta(*, weight: float, feedback_weight: float) -> MetaPseudoLabels:
    """Meta Pseudo Labels with plain consistency as UDA: all points, nothing sharpened."""
    return MetaPseudoLabels(
        feedback="exact" if feedback_weight else "none",
        feedback_weight=feedback_weight,
        weight=weight,
        temperature=1,
        threshold=0,
        ramp_end=0,
        smoothing=0,
    )


METHODS: dict[str, Method] = {
    "labels alone": Supervised(smoothing=0),
    "Pseudo-Label, p > 0.95": PseudoLabel(),
    "Pseudo-Label, all points": PseudoLabel(selection="none"),
    "Meta Pseudo Labels without UDA, weight 1": meta(weight=0, feedback_weight=1),
    "Meta Pseudo Labels without UDA, weight 0.01": meta(weight=0, feedback_weight=0.01),
    "a UDA teacher's student, no feedback": meta(weight=8, feedback_weight=0),
    # 2 / BATCH: twice the strength that the paper's mean over the batch gives to the feedback.
    "Meta Pseudo Labels": meta(weight=8, feedback_weight=0.01),
}


class Perceptron(nn.Module):
    """Two hidden layers of 8 sigmoid units, for (B, 3, 1, 1)."""

    def __init__(self, seed: int) -> None:
        """Weights and biases uniform in [-0.1, 0.1]."""
        super().__init__()
        sizes = (3, 8, 8, 2)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        dice = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=dice)

    def forward(self, points: Tensor) -> Tensor:
        """Logits (B, 2)."""
        first, second, last = self.layers
        return last(second(first(points.flatten(1)).sigmoid()).sigmoid())


def moons(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points (2000, 3, 1, 1), the third coordinate 0; their moons (2000,); 6 rows with a label."""
    found, moon = make_moons(POINTS, noise=SPREAD, random_state=seed)
    points = torch.zeros(POINTS, 3, 1, 1)
    points[:, :2, 0, 0] = torch.from_numpy((found - found.mean(0)) / found.std(0))
    labels = torch.from_numpy(moon)
    dice = torch.Generator().manual_seed(seed)
    of_each = [(labels == c).nonzero()[:, 0] for c in (0, 1)]
    known = [rows[torch.randperm(len(rows), generator=dice)[:LABELS]] for rows in of_each]
    return points, labels, torch.cat(known)


def accuracy(method: Method, seed: int, *, steps: int) -> float:
    """The share of all points that the student has right in the end."""
    points, labels, known = moons(seed)
    labeled = Labeled(points[known], one_hot(labels[known], 2))
    student = Learner(Perceptron(seed), OPTIM)
    teacher = Learner(Perceptron(seed + 1000), OPTIM) if method.teacher == "trained" else None
    state = State(student, teacher, method.memory(2, POINTS))
    torch.manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(POINTS, (BATCH,))
        weak = points[rows]
        strong = weak.clone()
        strong[:, :2] += JITTER * torch.randn(BATCH, 2, 1, 1)
        pool = Unlabeled(rows, {"weak": weak, "strong": strong}, None)
        method.step(state, Batch(labeled, pool), Clock(step, steps))
    with torch.no_grad():
        guess = student.graduate()(points).argmax(-1)
    return float((guess == labels).float().mean())


def main() -> None:
    """Print a row a method: successes, and the accuracy of every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, method in METHODS.items():
        start = time.monotonic()
        right = [accuracy(method, seed, steps=given.steps) for seed in range(given.seeds)]
        seconds = (time.monotonic() - start) / given.seeds
        solved = sum(share >= SUCCESS for share in right)
        shares = " ".join(f"{100 * share:.0f}" for share in right)
        print(f"{name:<44} {solved:>2} of {given.seeds} ({shares} %), {seconds:.0f} s", flush=True)
    print(f"{given.steps} steps, {platform.machine()}, 1 thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
