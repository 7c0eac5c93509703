"""Two moons with six labels: Meta Pseudo Labels beside training on the labels and Pseudo-Label.

python -m benchmarks.two_moons [--seeds 10] [--steps 3000]

The demonstration of Pham et al. 2021 (arXiv 2003.10580): 2,000 points, 3 labels a moon, networks with
two hidden layers of 8 sigmoid units whose weights begin uniform in [-0.1, 0.1]. Here it goes through
the package's own steps and learners, points as (B, 3, 1, 1) "images". A run succeeds where 95 % of
all points are right.
Deviations from what the paper tells: learning rate 1 and momentum 0.9 where it has 0.1, with which
these networks need more than 6,000 steps to bend the boundary even with all 2,000 labels; points
standardized; batches of 200 points; the weights' average is judged, and nothing is fine-tuned.
The teacher learns with UDA, the strong view being the points with noise. Rows without UDA and without
feedback are there because it is UDA that solves the moons: the feedback alone doesn't.
"""

from collections.abc import Callable

from tutelage.methods.meta_pseudo_labels import MetaPseudoLabels
from tutelage.methods.method import Method
from tutelage.methods.pseudo_label import PseudoLabel
from tutelage.methods.supervised import Supervised
from tutelage.settings import Optim

POINTS, LABELS, BATCH = 2000, 3, 200  # in all; a moon; pool points a step
SPREAD = 0.1  # of the moons, scikit-learn's `noise`
JITTER = 0.15  # standard deviation of the strong view, of standardized coordinates
OPTIM = Optim(
    name="momentum", lr=1.0, momentum=0.9, weight_decay=0, schedule="constant", warmup=0, ema=0.99
)
# The feedback's weight is about 1 / BATCH, the strength of the paper's mean cross-entropy.
META = MetaPseudoLabels(
    feedback_weight=0.01, weight=8, temperature=1, threshold=0, ramp_end=0, smoothing=0
)
METHODS: dict[str, Callable[[], Method]] = {
    "labels alone": lambda: Supervised(smoothing=0),
    "Pseudo-Label": lambda: PseudoLabel(selection="none"),
    "Pseudo-Label, p > 0.95": PseudoLabel,
}
