"""Methods whose teacher is the student itself: their equations, gates, memory and invariants."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tutelage import checkpoint
from tutelage.begin import begin
from tutelage.core import Batch, Clock, Labeled, Stage, Unlabeled
from tutelage.distributed.sync_norm import moving_statistics
from tutelage.errors import UsageError
from tutelage.gates import (
    class_thresholds,
    convex,
    exceeds,
    learning_status,
    reaches,
    truncated_gaussian,
    unlearned,
)
from tutelage.learner import Learner
from tutelage.losses import cross_entropy, kl, squared_error
from tutelage.methods.fixmatch import FixMatch
from tutelage.methods.flexmatch import FlexMatch
from tutelage.methods.freematch import FreeMatch, fairness_loss
from tutelage.methods.mean_teacher import MeanTeacher
from tutelage.methods.method import State
from tutelage.methods.noisy_student import NoisyStudent
from tutelage.methods.pseudo_label import PseudoLabel
from tutelage.methods.softmatch import SoftMatch
from tutelage.methods.supervised import Supervised
from tutelage.methods.uda import UDA
from tutelage.networks.build import Net, build, mixes_images
from tutelage.networks.freeze import Freeze
from tutelage.recipe import Recipe
from tutelage.schedules import linear_ramp, sigmoid_ramp, signal_annealing
from tutelage.settings import Noise, Optim
from tutelage.targets import align, hard, one_hot, temper

CLASSES, POOL = 3, 40
SAME = ("weak", "weak")  # one view for both roles
TWO_VIEWS = [
    UDA(threshold=0.4), FixMatch(threshold=0.4), FlexMatch(threshold=0.4), FreeMatch(), SoftMatch(),
]  # fmt: skip
METHODS = [  # with gates that a new student passes with some images and not with others
    PseudoLabel(threshold=0.4, ramp_end=0),
    PseudoLabel(selection="confidence", gamma=2, ramp_end=0),
    PseudoLabel(target="entropy", selection="none", ramp_end=0),
    UDA(threshold=0.4),
    UDA(threshold=0.4, tsa="linear"),
    FixMatch(threshold=0.4),
    FixMatch(threshold=0.4, align=True),
    FlexMatch(threshold=0.4),
    FreeMatch(),
    SoftMatch(momentum=0.5),
    MeanTeacher(),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(seed=0, labeled=4, pool=6):
    """Images of 3 x 2 x 2 numbers, the strong view being the weak one with noise."""
    weak = draw(seed, pool, 3, 2, 2)
    views = {"weak": weak, "strong": weak + 0.3 * draw(seed + 1, pool, 3, 2, 2)}
    targets = one_hot(torch.arange(labeled) % CLASSES, CLASSES)
    rows = (torch.arange(pool) * 7 + seed) % POOL
    return Batch(Labeled(draw(seed + 2, labeled, 3, 2, 2), targets), Unlabeled(rows, views, None))


class Plain(nn.Module):
    """A linear student without batch norm: each image's logits depend on that image alone."""

    def __init__(self, inputs=12, classes=CLASSES):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear = nn.Linear(inputs, classes)

    def forward(self, images):
        return self.linear(images.flatten(1))


class Echo(nn.Module):
    """Answers with its images (B, 3, 1, 1) as logits, until it has learned something."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(CLASSES))

    def forward(self, images):
        return images.flatten(1) @ self.weight


def state_of(method, module=None, **optim):
    settings = {"lr": 0.5, "ema": 0.9, "warmup": 0.0, "schedule": "constant", "name": "sgd"} | optim
    learner = Learner(module or Plain(), Optim(**settings))
    return State(learner, None, method.memory(CLASSES, POOL))


def step_of(method, batch, module=None):
    """The metrics of one step in the middle of a run, the weights after it, and the state."""
    state = state_of(method, module)
    metrics = method.step(state, batch, Clock(5, 10))
    return metrics, nn.utils.parameters_to_vector(state.student.module.parameters()), state


def answers(labeled, weak, strong):
    """A batch on which Echo gives these logits (B, K), each as rows of numbers; labels 0, 1, …"""
    images = [torch.tensor(rows)[:, :, None, None] for rows in (labeled, weak, strong)]
    labels = one_hot(torch.arange(len(labeled)) % CLASSES, CLASSES)
    views = {"weak": images[1], "strong": images[2]}
    return Batch(Labeled(images[0], labels), Unlabeled(torch.arange(len(weak)), views, None))


def logs(*probs):
    """Rows of probabilities as rows of logits."""
    return [[math.log(p) for p in row] for row in probs]


LABELED = logs((0.5, 0.3, 0.2), (0.2, 0.7, 0.1))
WEAK = logs((0.96, 0.03, 0.01), (0.06, 0.93, 0.01), (0.3, 0.3, 0.4), (0.01, 0.01, 0.98))
STRONG = logs((0.8, 0.1, 0.1), (0.2, 0.6, 0.2), (0.5, 0.3, 0.2), (0.3, 0.5, 0.2))


def hand_made():
    return answers(LABELED, WEAK, STRONG)


def losses_of(targets, logits=STRONG):
    """Torch's cross-entropy of each row."""
    return functional.cross_entropy(torch.tensor(logits), torch.tensor(targets), reduction="none")


# Gates, schedules and targets ---------------------------------------------------------------------


def test_alpha_gives_the_values_of_the_specification():
    expected = {0: 0, 99: 0, 100: 0, 350: 1.5, 599: 2.994, 600: 3, 1000: 3}
    for epoch, alpha in expected.items():
        assert 3 * linear_ramp(epoch, start=100, end=600) == pytest.approx(alpha)
        fraction = 3 * linear_ramp(epoch / 2000, start=0.05, end=0.3)
        assert fraction == pytest.approx(alpha, abs=1e-9)


def test_a_ramp_without_length_is_a_step():
    assert [linear_ramp(t, start=0.5, end=0.5) for t in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    assert sigmoid_ramp(0, end=0) == 1


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 1))
def test_ramps_rise_from_zero_to_one(one, other, end):
    early, late = sorted((one, other))
    for ramp in (lambda t: linear_ramp(t, start=0.05, end=end), lambda t: sigmoid_ramp(t, end=end)):
        assert 0 <= ramp(early) <= ramp(late) <= 1
        assert ramp(end) == 1
    assert sigmoid_ramp(0, end=end) == pytest.approx(math.exp(-5))


@pytest.mark.parametrize(("shape", "eta"), [("linear", 0.55), ("exp", 0.1739), ("log", 0.9261)])
def test_signal_annealing_gives_the_values_of_the_specification(shape, eta):
    assert signal_annealing(0.5, 10, shape) == pytest.approx(eta, abs=5e-5)


@pytest.mark.parametrize("shape", ["linear", "exp", "log"])
def test_signal_annealing_begins_at_chance_and_ends_at_one(shape):
    assert signal_annealing(0, 10, shape) == pytest.approx(0.1, abs=0.01)
    assert signal_annealing(1, 10, shape) == pytest.approx(1, abs=0.01)


def test_one_gate_opens_at_the_threshold_and_the_other_above_it():
    threshold = float(torch.tensor(0.95))  # as float32 has it
    for p, reached, exceeded in ((0.95 - 1e-6, 0, 0), (0.95, 1, 0), (0.95 + 1e-6, 1, 1)):
        probs = torch.tensor([[p, 1 - p]])
        assert reaches(probs, threshold).tolist() == [reached]
        assert exceeds(probs, threshold).tolist() == [exceeded]


def test_a_threshold_for_each_class_is_that_of_the_surest_class():
    probs = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    assert reaches(probs, torch.tensor([0.5, 0.7])).tolist() == [1, 0, 1]
    assert exceeds(probs, torch.tensor([0.7, 0.5])).tolist() == [0, 1, 1]


def test_one_image_of_four_with_a_loss_of_two_gives_a_half():
    logits = torch.tensor(logs(*4 * [(math.exp(-2), 1 - math.exp(-2))]))
    targets, kept = one_hot(torch.zeros(4, dtype=torch.int64), 2), torch.tensor([0.0, 0, 1, 0])
    assert cross_entropy(logits, targets).item() == pytest.approx(2)
    assert cross_entropy(logits, targets, kept).item() == pytest.approx(0.5)


def test_the_convex_map_gives_the_values_of_the_specification():
    mapped = 0.95 * convex(torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    assert mapped.tolist() == pytest.approx([0, 0.1357, 0.3167, 0.57, 0.95], abs=5e-5)


def test_learning_status_counts_images_over_the_largest_class_or_those_without_one():
    few = torch.tensor([0, 0, 1, -1, -1, -1, -1, -1])
    assert learning_status(few, 3).tolist() == pytest.approx([2 / 5, 1 / 5, 0])
    many = torch.tensor([0, 0, 0, 0, 1, 2, 2, -1])
    assert learning_status(many, 3).tolist() == pytest.approx([1, 1 / 4, 2 / 4])
    assert learning_status(torch.full((5,), -1), 3).tolist() == [0, 0, 0]


def test_soft_weights_give_the_values_of_the_specification():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.4])
    probs = torch.stack([confidence, *3 * [(1 - confidence) / 3]], -1)
    weights = truncated_gaussian(probs, torch.tensor(0.8), torch.tensor(0.04))
    assert weights.tolist() == pytest.approx([1, 1, 0.6065, 0.1353, 0.0003], abs=5e-5)


def test_soft_weights_without_variance_are_a_gate_at_the_mean():
    probs = draw(0, 50, 4).softmax(-1)
    weights = truncated_gaussian(probs, torch.tensor(0.5), torch.tensor(0.0))
    assert torch.equal(weights, reaches(probs, 0.5))


def test_class_thresholds_give_the_values_of_the_specification():
    thresholds = class_thresholds(torch.tensor(0.8), torch.tensor([0.5, 0.25, 0.25]))
    assert thresholds.tolist() == pytest.approx([0.8, 0.4, 0.4])


def test_alignment_turns_what_was_predicted_into_what_is_wanted():
    marginal, wanted = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.2, 0.2, 0.6])
    assert torch.allclose(align(marginal[None], marginal, wanted)[0], wanted, atol=1e-5)
    probs = draw(0, 20, 3).softmax(-1)
    assert torch.allclose(align(probs, marginal, marginal), probs)
    assert torch.allclose(align(probs, marginal, wanted).sum(-1), torch.ones(20))


def test_alignment_survives_classes_that_are_never_predicted_or_never_wanted():
    marginal, wanted = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0.5, 0.5])
    aligned = align(torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0]]), marginal, wanted)
    assert torch.isfinite(aligned).all()
    assert torch.allclose(aligned.sum(-1), torch.ones(2))


def test_the_divergence_is_torchs_and_for_one_hot_targets_the_cross_entropy():
    logits, targets = draw(0, 6, 5), draw(1, 6, 5).softmax(-1)
    expected = functional.kl_div(logits.log_softmax(-1), targets, reduction="batchmean")
    assert torch.allclose(kl(logits, targets), expected)
    assert torch.allclose(kl(logits, hard(targets)), cross_entropy(logits, hard(targets)))
    assert kl(logits, logits.softmax(-1)).item() == pytest.approx(0, abs=1e-6)


def test_the_squared_error_is_summed_over_classes():
    logits, targets = draw(0, 6, 5), draw(1, 6, 5).softmax(-1)
    expected = 5 * functional.mse_loss(logits.softmax(-1), targets)
    assert torch.allclose(squared_error(logits, targets), expected)


# What holds for all of them -----------------------------------------------------------------------


@every_method
def test_targets_are_probabilities_and_weights_not_negative_and_neither_has_a_gradient(
    method, monkeypatch
):
    seen, module = [], sys.modules[type(method).__module__]

    def recording(loss):
        def record(logits, targets, *weight, **over):
            seen.append((targets, weight[0] if weight else None))
            return loss(logits, targets, *weight, **over)

        return record

    for loss in (cross_entropy, kl, squared_error):
        if loss.__name__ in vars(module):
            monkeypatch.setattr(module, loss.__name__, recording(loss))
    step_of(method, batch_of())
    assert len(seen) == 2  # labels and pool
    for targets, weight in seen:
        assert torch.allclose(targets.sum(-1), torch.ones(len(targets)), atol=1e-5)
        assert targets.min() >= 0
        assert weight is None or (weight.min() >= 0 and weight.dtype == torch.float32)
        assert weight is None or not weight.requires_grad
    entropy = isinstance(method, PseudoLabel) and method.target == "entropy"
    assert seen[1][0].requires_grad == entropy


@every_method
def test_a_pool_of_weight_zero_is_supervised_training(method):
    if isinstance(method, UDA):
        method = replace(method, tsa="none")
    if isinstance(method, FreeMatch):
        method = replace(method, fairness=0)
    ways = (replace(method, weight=0), Supervised(labeled_view="weak", smoothing=0))
    students = []
    for way in ways:
        state = state_of(way)
        for step in range(20):
            way.step(state, batch_of(10 * step), Clock(step, 20))
        students.append(state.student.module.linear.weight.detach())
    assert torch.allclose(*students, atol=1e-5)


@every_method
def test_the_pool_changes_what_is_learned(method):
    _, alone, _ = step_of(replace(method, weight=0), batch_of())
    _, taught, _ = step_of(method, batch_of())
    assert not torch.allclose(alone, taught, atol=1e-3)


@every_method
def test_the_order_of_the_pool_in_a_batch_changes_nothing(method):
    batch, order = batch_of(), torch.tensor([3, 5, 0, 1, 4, 2])
    pool = batch.pool()
    views = {name: view[order] for name, view in pool.views.items()}
    shuffled = replace(batch, unlabeled=Unlabeled(pool.rows[order], views, None))
    (one, weights, state), (other, others, again) = (step_of(method, b) for b in (batch, shuffled))
    assert torch.allclose(one["loss"], other["loss"])
    assert torch.allclose(weights, others, atol=1e-6)
    for name, tensor in state.memory.items():
        assert torch.allclose(tensor, again.memory[name])


@every_method
def test_renaming_the_classes_renames_the_answers(method):
    order, batch = torch.tensor([2, 0, 1]), batch_of()
    renamed = replace(batch, labeled=Labeled(batch.labeled.images, batch.labeled.targets[:, order]))
    other = Plain()
    with torch.no_grad():
        other.linear.weight.copy_(other.linear.weight[order].clone())
        other.linear.bias.copy_(other.linear.bias[order].clone())
    _, _, state = step_of(method, batch)
    _, _, again = step_of(method, renamed, other)
    expected = state.student.module.linear.weight[order]
    assert torch.allclose(again.student.module.linear.weight, expected, atol=1e-6)


@every_method
def test_doubling_both_streams_or_the_pool_alone_changes_nothing(method):
    if isinstance(method, SoftMatch):
        method = replace(method, momentum=1)  # the unbiased variance depends on the batch's size
    batch = batch_of()
    pool, labeled = batch.pool(), batch.labeled
    views = {name: torch.cat([view, view]) for name, view in pool.views.items()}
    double = replace(batch, unlabeled=Unlabeled(pool.rows.repeat(2), views, None))
    twice = Labeled(labeled.images.repeat(2, 1, 1, 1), labeled.targets.repeat(2, 1))
    one, weights, _ = step_of(method, batch)
    for more in (double, replace(double, labeled=twice)):
        other, others, _ = step_of(method, more)
        assert torch.allclose(one["loss"], other["loss"], atol=1e-6)
        assert torch.allclose(weights, others, atol=1e-5)


@every_method
def test_only_what_belongs_together_is_kept_in_memory(method):
    _, _, state = step_of(method, batch_of())
    for name, tensor in method.memory(CLASSES, POOL).items():
        assert state.memory[name].shape == tensor.shape
        assert state.memory[name].dtype == tensor.dtype
        assert not state.memory[name].requires_grad


# Pseudo-Label -------------------------------------------------------------------------------------


def test_pseudo_label_is_the_papers_sum_with_constant_labels():
    batch, method = batch_of(), PseudoLabel(selection="none", ramp_end=0, weight=0.7)
    student, pool = Plain(), batch.pool().views["weak"]
    labels = functional.cross_entropy(student(batch.labeled.images), batch.labeled.targets)
    guesses = student(pool).argmax(-1)  # integers: nothing to differentiate
    pseudo = functional.cross_entropy(student(pool), guesses)
    (labels + 0.7 * pseudo).backward()
    metrics, _, state = step_of(method, batch)
    assert torch.allclose(metrics["loss"], (labels + 0.7 * pseudo).detach())
    step = student.linear.weight - state.student.module.linear.weight
    assert torch.allclose(step, 0.5 * 1.9 * student.linear.weight.grad, atol=1e-3)  # Nesterov


def test_the_three_selections_weigh_as_they_say():
    losses, confidence = losses_of([0, 1, 2, 2], WEAK), torch.tensor([0.96, 0.93, 0.4, 0.98])
    expected = {
        "none": losses.mean(),
        "gate": (losses[0] + losses[3]) / 4,
        "confidence": (losses * confidence**2).mean(),
    }
    for selection, pseudo in expected.items():
        method = PseudoLabel(selection=selection, gamma=2, ramp_end=0)
        metrics, _, _ = step_of(method, hand_made(), Echo())
        assert torch.allclose(metrics["pseudo"], pseudo, atol=1e-6)
    assert metrics["sure"].item() == pytest.approx((confidence**2).mean().item())


def test_until_the_ramp_begins_it_is_supervised_training_to_the_last_bit(tiny):
    tiny = replace(tiny, dropout=0.2, drop_path=0.1)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets, views = one_hot(torch.arange(4) % 3, 3), {"weak": images.flip(0)}
    batch = Batch(Labeled(images, targets), Unlabeled(torch.arange(4), views, None))
    students = []
    for method in (
        PseudoLabel(ramp_start=0.5, ramp_end=0.8),
        Supervised(labeled_view="weak", smoothing=0),
    ):
        state = state_of(method, build(tiny))
        for step in range(3):
            torch.manual_seed(step)
            metrics = method.step(state, batch, Clock(step, 6))
        students.append(state.student.module.state_dict())
        assert metrics["loss"] > 0
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_without_weight_the_student_is_not_shown_the_pool():
    class Counting(Plain):
        shown = 0

        def forward(self, images):
            self.shown += len(images)
            return super().forward(images)

    for clock, shown in ((Clock(0, 10), 4), (Clock(3, 10), 10)):
        student, method = Counting(), PseudoLabel(ramp_start=0.1, threshold=0.3)
        metrics = method.step(state_of(method, student), batch_of(), clock)
        assert student.shown == shown
        assert (metrics["pseudo"] > 0) == (shown == 10)


def test_minimizing_the_entropy_has_its_full_gradient():
    logits = draw(0, 6, 5).requires_grad_()
    cross_entropy(logits, logits.softmax(-1)).backward()
    probs = logits.detach().softmax(-1)
    entropy = -(probs * probs.log()).sum(-1, keepdim=True)
    assert torch.allclose(logits.grad, -probs * (probs.log() + entropy) / 6, atol=1e-6)


def test_entropy_as_the_target_lowers_the_entropy_of_the_pool():
    method, batch = PseudoLabel(target="entropy", selection="none", ramp_end=0), batch_of()
    state = state_of(method)
    pseudo = [method.step(state, batch, Clock(5, 10))["pseudo"].item() for _ in range(5)]
    probs = Plain()(batch.pool().views["weak"]).softmax(-1)
    assert pseudo[0] == pytest.approx(-(probs * probs.log()).sum(-1).mean().item(), rel=1e-5)
    assert pseudo[-1] < pseudo[0]


def test_the_hard_loss_is_at_most_the_entropy():
    logits = 3 * draw(0, 200, 5)
    probs = logits.softmax(-1)
    losses = -(hard(probs) * probs.log()).sum(-1)
    assert (losses <= -(probs * probs.log()).sum(-1) + 1e-6).all()


def test_a_soft_label_from_the_same_view_teaches_nothing_unless_sharpened():
    method = UDA(threshold=0, temperature=1, unlabeled_views=SAME)
    _, alone, _ = step_of(replace(method, weight=0), batch_of())
    metrics, taught, _ = step_of(method, batch_of())
    assert metrics["pseudo"].item() == pytest.approx(0, abs=1e-6)
    assert torch.allclose(taught, alone, atol=1e-6)
    _, sharpened, _ = step_of(replace(method, temperature=0.5), batch_of())
    assert not torch.allclose(sharpened, alone, atol=1e-3)


def clouds(count, seed, *, apart=0.0):
    """Points (N, 3, 1, 1) of two clouds, one above the other, and the cloud of each.

    `apart` moves one cloud's points to the right and the other's to the left.
    """
    classes = torch.arange(count) % 2
    side, noise = 2 * classes - 1, draw(seed, count, 2)
    x, y = 0.7 * noise[:, 0] + apart * side, 0.3 * noise[:, 1] + side
    return torch.stack([x, y, 0 * x], -1)[:, :, None, None], classes


def accuracy_after(method, seed, steps=120):
    """Share of new points that a linear student names right after six labels, which mislead as
    they lie apart, and 300 points."""
    images, classes = clouds(6, seed, apart=1)
    pool, _ = clouds(300, 100 + seed)
    unlabeled = Unlabeled(torch.arange(300), {"weak": pool}, None)
    batch = Batch(Labeled(images, one_hot(classes, 2)), unlabeled)
    optim = Optim(name="sgd", lr=0.1, ema=None, warmup=0.0, weight_decay=0.0)
    state = State(Learner(Plain(3, 2), optim))
    for step in range(steps):
        method.step(state, batch, Clock(step, steps))
    points, truth = clouds(500, 200 + seed)
    return (state.student(points).argmax(-1) == truth).float().mean().item()


def test_on_two_gaussians_the_pool_beats_six_labels_alone():
    ways = (
        Supervised(labeled_view="weak", smoothing=0),
        PseudoLabel(selection="none", weight=3, ramp_start=0.1, ramp_end=0.6),
    )
    alone, taught = ([accuracy_after(way, seed) for seed in range(10)] for way in ways)
    assert sum(taught) / 10 > sum(alone) / 10 + 0.02
    assert sum(t >= a for t, a in zip(taught, alone, strict=True)) >= 9


# UDA, FixMatch and its children -------------------------------------------------------------------


def test_uda_masks_on_what_was_not_sharpened_and_divides_by_all():
    weak = logs((0.75, 0.15, 0.1), (0.06, 0.93, 0.01), (0.3, 0.3, 0.4), (0.01, 0.01, 0.98))
    assert temper(torch.tensor(weak).softmax(-1), 0.4)[0, 0] > 0.8 > 0.75
    metrics, _, _ = step_of(UDA(), answers(LABELED, weak, STRONG), Echo())
    sharp = temper(torch.tensor(weak).softmax(-1), 0.4)
    each = functional.kl_div(torch.tensor(STRONG), sharp, reduction="none").sum(-1)
    assert metrics["pseudo"].item() == pytest.approx(((each[1] + each[3]) / 4).item(), rel=1e-5)
    assert metrics["sure"].item() == 0.5


def test_signal_annealing_keeps_labeled_images_whose_true_class_is_not_known_yet():
    metrics, _, _ = step_of(UDA(tsa="linear"), hand_made(), Echo())  # eta is 2/3 halfway
    assert metrics["labels"].item() == pytest.approx(-math.log(0.5))  # and not the one with 0.7
    metrics, _, _ = step_of(UDA(), hand_made(), Echo())
    assert metrics["labels"].item() == pytest.approx(-(math.log(0.5) + math.log(0.7)) / 2)


def test_signal_annealing_looks_at_the_true_class_and_not_at_the_surest():
    probs, targets = torch.tensor([[0.1, 0.9], [0.1, 0.9]]), torch.eye(2)
    assert unlearned(probs, targets, 0.5).tolist() == [1, 0]


def test_no_labeled_image_left_is_no_labeled_loss():
    known = answers(logs((0.98, 0.01, 0.01), (0.01, 0.98, 0.01)), WEAK, STRONG)
    metrics, _, state = step_of(UDA(tsa="linear"), known, Echo())
    assert metrics["labels"] == 0
    assert torch.isfinite(state.student.module.weight).all()


def test_fixmatch_is_the_papers_sum():
    metrics, _, _ = step_of(FixMatch(weight=0.7), hand_made(), Echo())
    losses = losses_of([0, 1, 2, 2])
    pseudo = (losses[0] + losses[3]) / 4
    labels = functional.cross_entropy(torch.tensor(LABELED), torch.tensor([0, 1]))
    assert torch.allclose(metrics["pseudo"], pseudo)
    assert torch.allclose(metrics["labels"], labels)
    assert torch.allclose(metrics["loss"], labels + 0.7 * pseudo)
    assert metrics["sure"] == 0.5


def test_fixmatch_on_one_view_with_an_open_gate_is_pseudo_label():
    _, one, _ = step_of(FixMatch(threshold=0, unlabeled_views=SAME), batch_of())
    _, other, _ = step_of(PseudoLabel(selection="none", ramp_end=0), batch_of())
    assert torch.allclose(one, other, atol=1e-6)


def test_alignment_judges_and_labels_by_the_aligned_answer():
    method = FixMatch(threshold=0.5, align=True, momentum=0)  # the marginals of this batch alone
    metrics, _, state = step_of(method, hand_made(), Echo())
    probs, wanted = torch.tensor(WEAK).softmax(-1), torch.tensor([0.5, 0.5, 0])
    expected = align(probs, probs.mean(0), wanted)
    losses = losses_of(expected.argmax(-1).tolist())
    sure = expected.amax(-1) >= 0.5
    assert expected.argmax(-1).tolist() != probs.argmax(-1).tolist()
    assert torch.allclose(metrics["pseudo"], (losses * sure).mean())
    assert torch.allclose(state.memory["wanted"], wanted)


def test_alignment_is_off_and_without_memory_by_default():
    assert FixMatch().memory(10, 100) == {}


def test_the_memory_changes_at_the_rows_of_sure_images_alone():
    method = FlexMatch(threshold=0.95)
    state, batch = state_of(method, Echo()), hand_made()
    rows = torch.tensor([30, 3, 11, 0])
    batch = replace(batch, unlabeled=replace(batch.pool(), rows=rows))
    state.memory["sure_of"][[30, 3, 5]] = 2
    before = state.memory["sure_of"].clone()
    method.step(state, batch, Clock(0, 10))
    after = state.memory["sure_of"]
    assert torch.equal((after != before).nonzero().flatten(), torch.tensor([0, 30]))
    assert after[[30, 0]].tolist() == [0, 2]
    assert after[[3, 11, 5]].tolist() == [2, -1, 2]  # an image stays what it was sure of last


def test_an_image_that_comes_twice_is_remembered_once():
    batch = hand_made()
    batch = replace(batch, unlabeled=replace(batch.pool(), rows=torch.tensor([7, 7, 1, 7])))
    _, _, state = step_of(FlexMatch(), batch, Echo())
    assert state.memory["sure_of"][7] == 2
    assert (state.memory["sure_of"] >= 0).sum() == 1


@pytest.mark.parametrize(
    ("counts", "sure"),
    [  # sure so far of each class, among 40; on hand: 0.96 of 0, 0.93 of 1, 0.4 and 0.98 of 2
        ((0, 0, 0), 1.0),  # beta is 0 for all, and so are the thresholds
        ((30, 10, 0), 1.0),  # beta is 1, 1/3 and 0: thresholds 0.95, 0.19 and 0
        ((20, 20, 0), 0.75),  # 0.95 for 0 and 1
        ((20, 0, 10), 1.0),  # beta is 1/2 for 2, and the threshold 0.317
        ((13, 13, 13), 0.5),  # 0.95 for all
    ],
)
def test_flexmatch_lowers_the_threshold_of_classes_that_are_learned_less(counts, sure):
    state = state_of(FlexMatch(), Echo())
    known = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    state.memory["sure_of"][: len(known)] = known
    assert FlexMatch().step(state, hand_made(), Clock(0, 10))["sure"] == sure


def test_flexmatch_judges_by_the_memory_before_the_batch():
    state = state_of(FlexMatch(), Echo())
    state.memory["sure_of"] = torch.tensor([-1, 2, -1, -1])  # beta of 2 is 1/3, after the batch 1
    assert FlexMatch().step(state, hand_made(), Clock(0, 10))["sure"] == 1
    assert state.memory["sure_of"].tolist() == [0, 2, -1, 2]
    assert FlexMatch().step(state, hand_made(), Clock(1, 10))["sure"] == 0.75


def test_flexmatch_with_classes_learned_alike_is_fixmatch():
    method, batch = FlexMatch(threshold=0.5), batch_of(3)
    state = state_of(method)
    state.memory["sure_of"] = torch.arange(39) % 3
    metrics = method.step(state, batch, Clock(5, 10))
    expected, weights, _ = step_of(FixMatch(threshold=0.5), batch)
    assert 0 < metrics["sure"] < 1
    assert torch.equal(metrics["loss"], expected["loss"])
    learned = nn.utils.parameters_to_vector(state.student.module.parameters())
    assert torch.equal(learned, weights)


@pytest.mark.parametrize("kind", [FlexMatch, FreeMatch, SoftMatch])
def test_the_memory_is_saved_with_the_checkpoint(kind, tmp_path):
    method = kind()
    _, _, state = step_of(method, hand_made(), Echo())
    checkpoint.save(tmp_path / "last.pt", state, step=1, recipe="digest")
    other = state_of(method, Echo())
    fresh = {name: tensor.clone() for name, tensor in other.memory.items()}
    checkpoint.resume(tmp_path / "last.pt", other, recipe="digest")
    assert state.memory.keys() == other.memory.keys()
    for name, tensor in state.memory.items():
        assert torch.equal(tensor, other.memory[name])
        assert not torch.equal(tensor, fresh[name])


def test_freematch_moves_its_thresholds_and_then_judges_by_them():
    metrics, _, state = step_of(FreeMatch(momentum=0.6, fairness=0.5), hand_made(), Echo())
    probs = torch.tensor(WEAK).softmax(-1)
    tau = 0.6 / 3 + 0.4 * probs.amax(-1).mean()
    marginal = 0.6 / 3 + 0.4 * probs.mean(0)
    histogram = 0.6 / 3 + 0.4 * torch.tensor([0.25, 0.25, 0.5])
    assert torch.allclose(state.memory["tau"], tau)
    assert torch.allclose(metrics["tau"], tau)
    assert torch.allclose(state.memory["marginal"], marginal)
    assert torch.allclose(state.memory["histogram"], histogram)
    sure = probs.amax(-1) >= (tau * marginal / marginal.max())[probs.argmax(-1)]
    assert sure.tolist() == [True, True, False, True]
    assert torch.allclose(metrics["pseudo"], (losses_of([0, 1, 2, 2]) * sure).mean())
    fair = fairness_loss(torch.tensor(STRONG), sure.float(), marginal=marginal, histogram=histogram)
    assert torch.allclose(metrics["loss"], metrics["labels"] + metrics["pseudo"] + 0.5 * fair)


def test_a_dominant_class_has_the_highest_threshold():
    marginal = torch.tensor([0.7, 0.2, 0.1])
    thresholds = class_thresholds(torch.tensor(0.9), marginal)
    assert thresholds.argmax() == 0
    assert thresholds[0].item() == pytest.approx(0.9)
    assert (thresholds[1:] < 0.9).all()


def test_fairness_is_the_papers_with_classes_left_out_that_nobody_got():
    marginal, histogram = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.3, 0.1])
    logits, sure = torch.tensor(STRONG), torch.tensor([1.0, 1, 1, 0])
    probs = logits.softmax(-1)[:3]
    mean, seen = probs.mean(0), torch.tensor([2 / 3, 1 / 3, 0])
    a = (marginal / histogram) / (marginal / histogram).sum()
    b = mean[:2] / seen[:2]
    expected = (a[:2] * (b / b.sum()).log()).sum()
    loss = fairness_loss(logits, sure, marginal=marginal, histogram=histogram)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_fairness_pulls_the_answers_away_from_a_class_that_took_over():
    logits = torch.tensor(logs(*7 * [(0.6, 0.4)], (0.4, 0.6))).requires_grad_()
    took_over = torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5])
    before = logits.softmax(-1).mean(0)[0].item()
    loss = fairness_loss(logits, torch.ones(8), marginal=took_over[0], histogram=took_over[1])
    loss.backward()
    with torch.no_grad():
        after = (logits - logits.grad).softmax(-1).mean(0)[0].item()
    assert after < before


def test_fairness_without_counted_images_is_zero_and_has_no_gradient():
    logits = draw(0, 4, 3).requires_grad_()
    uniform = torch.full((3,), 1 / 3)
    loss = fairness_loss(logits, torch.zeros(4), marginal=uniform, histogram=uniform)
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_softmatch_weighs_by_the_aligned_and_labels_by_the_plain_answer():
    weak = logs((0.5, 0.4, 0.1), (0.9, 0.05, 0.05), (0.6, 0.3, 0.1), (0.3, 0.1, 0.6))
    metrics, _, state = step_of(SoftMatch(momentum=0.6), answers(LABELED, weak, STRONG), Echo())
    probs = torch.tensor(weak).softmax(-1)
    marginal = 0.6 / 3 + 0.4 * probs.mean(0)
    aligned = align(probs, marginal, torch.full((3,), 1 / 3))
    assert aligned.argmax(-1).tolist() == [1, 0, 0, 2]  # and the plain ones are:
    losses, confidence = losses_of([0, 0, 0, 2]), aligned.amax(-1)
    mu, variance = 0.6 / 3 + 0.4 * confidence.mean(), 0.6 + 0.4 * confidence.var()
    weights = torch.exp(-((confidence - mu).clamp(max=0) ** 2) / (2 * variance / 4))
    assert torch.allclose(metrics["pseudo"], (losses * weights).mean())
    assert torch.allclose(metrics["sure"], weights.mean())
    assert torch.allclose(state.memory["mu"], mu)
    assert torch.allclose(state.memory["variance"], variance)
    assert torch.allclose(state.memory["marginal"], marginal)


def test_softmatch_without_alignment_weighs_by_the_answer_itself():
    metrics, _, state = step_of(SoftMatch(momentum=0, align=False), hand_made(), Echo())
    confidence = torch.tensor(WEAK).softmax(-1).amax(-1)
    assert torch.allclose(state.memory["mu"], confidence.mean())
    expected = truncated_gaussian(
        torch.tensor(WEAK).softmax(-1), confidence.mean(), confidence.var()
    )
    assert torch.allclose(metrics["sure"], expected.mean())


# Mean Teacher -------------------------------------------------------------------------------------


def test_mean_teacher_asks_the_averaged_weights_and_leaves_them_alone():
    method, batch = MeanTeacher(weight=3), batch_of()
    state = state_of(method, ema=0.99)
    with torch.no_grad():
        state.student.average.linear.weight.mul_(-1)
    views = batch.pool().views
    probs = state.student.slow(views["weak"]).softmax(-1)
    mine = Plain()(views["strong"]).softmax(-1)
    expected = (probs - mine).square().sum(-1).mean()
    metrics = method.step(state, batch, Clock(1, 10))
    assert torch.allclose(metrics["pseudo"], expected)
    ramp = 3 * math.exp(-5 * (1 - 0.1 / 0.4) ** 2)
    assert torch.allclose(metrics["loss"], metrics["labels"] + ramp * expected)
    assert all(weights.grad is None for weights in state.student.average.parameters())


def test_mean_teacher_without_an_average_says_what_to_set():
    method = MeanTeacher()
    with pytest.raises(UsageError, match=r"--optim\.ema"):
        method.step(state_of(method, ema=None), batch_of(), Clock(0, 10))


# What a user can get wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (PseudoLabel, "threshold", 1.5, "threshold is 0 to 1, got 1.5"),
        (PseudoLabel, "gamma", -1, "gamma is at least 0, got -1"),
        (PseudoLabel, "ramp_start", 0.5, "ramp_end is 0.5 to 1, got 0.4"),
        (UDA, "temperature", 0, "temperature is above 0, got 0"),
        (UDA, "threshold", -0.1, "threshold is 0 to 1"),
        (FixMatch, "weight", -1, "weight is at least 0, got -1"),
        (FixMatch, "momentum", 1.1, "momentum is 0 to 1"),
        (FlexMatch, "threshold", 2, "threshold is 0 to 1"),
        (FreeMatch, "fairness", -1, "fairness is at least 0"),
        (SoftMatch, "sigmas", 0, "sigmas is above 0, got 0"),
        (MeanTeacher, "ramp_end", 2, "ramp_end is 0 to 1"),
        (NoisyStudent, "smoothing", 1.5, "smoothing is 0 to 1, got 1.5"),
        (NoisyStudent, "labels_weight", -1, "labels_weight is at least 0, got -1"),
        (NoisyStudent, "weight", float("inf"), "weight is at least 0, got inf"),
        (Supervised, "smoothing", 2, "smoothing is 0 to 1, got 2"),
    ],
)
def test_a_value_out_of_range_is_said(kind, field, value, message):
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        kind(**{field: value})


def normed(method, *, moving):
    """The state of a student behind a batch norm whose statistics move, or stay as they are."""
    state = state_of(method, nn.Sequential(nn.BatchNorm2d(3), Plain()))
    state.student.module[0].train(moving)
    state.student.mixes_images = mixes_images(state.student.module)
    return state


@pytest.mark.parametrize("method", TWO_VIEWS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("moving", [True, False], ids=["moving", "frozen"])
def test_the_view_that_gives_labels_is_in_the_backward_pass_only_for_batch_norm(method, moving):
    state, together, seen = normed(method, moving=moving), normed(method, moving=moving), []
    together.student.mixes_images = True  # all in one pass, as the reference codes do
    state.student.module.register_forward_pre_hook(
        lambda _, images: seen.append((len(images[0]), torch.is_grad_enabled()))
    )
    losses = [method.step(one, batch_of(), Clock(5, 10))["loss"] for one in (state, together)]
    assert seen == ([(16, True)] if moving else [(6, False), (10, True)])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(
        list(state.student.module.parameters()), list(together.student.module.parameters())
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_a_training_knows_whether_its_batch_norm_moves(frozen):
    recipe = Recipe(
        net=Net(name="test_resnet", num_classes=3, img_size=16), method=FixMatch(), noise=Noise(),
        stages=(Stage(steps=1, size=16, magnitude=5.0),), batch=2, ratio=1,
        optim=Optim().resolved(batch_norm=True, pretrained=frozen), freeze=Freeze(norms=frozen),
    )  # fmt: skip
    student = begin(recipe, SimpleNamespace(pool=None), torch.device("cpu")).student
    assert student.mixes_images is not frozen
    assert bool(moving_statistics(student.module)) is not frozen
