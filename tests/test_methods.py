"""What every method promises: a file in methods/ is tested here without being named."""

import ast
import importlib
import inspect
import pkgutil
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest
import torch
from same import weights
from torch import nn

from tutelage import checkpoint, methods
from tutelage.core import Batch, Clock, Dice, Labeled, Unlabeled, fold
from tutelage.data.views import VIEWS
from tutelage.errors import RunMismatch, UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.losses import cross_entropy
from tutelage.methods.method import Method, State
from tutelage.methods.noisy_student import NoisyStudent
from tutelage.methods.supervised import Supervised
from tutelage.networks.build import build
from tutelage.settings import Optim
from tutelage.targets import hard, one_hot, smooth

MODULES = [
    importlib.import_module(f"{methods.__name__}.{found.name}")
    for found in pkgutil.iter_modules(methods.__path__)
    if found.name != "method"
]
FOUND = {
    name: kind
    for module in MODULES
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, Method) and kind.__module__ == module.__name__
}
every_method = pytest.mark.parametrize("kind", FOUND.values(), ids=FOUND)
CLASSES, TOTAL = 3, 6


def draw(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_at(step, kind=NoisyStudent, *, labeled=4, pool=6, side=32):
    """A batch of random images and targets, which follows from the step."""
    labels = torch.arange(labeled) % CLASSES
    views = {
        name: draw(100 * step + i, pool, 3, side, side)
        for i, name in enumerate(kind().unlabeled_views)
    }
    targets = (3 * draw(100 * step + 50, pool, CLASSES)).softmax(-1)
    return Batch(
        Labeled(draw(100 * step + 99, labeled, 3, side, side), one_hot(labels, CLASSES)),
        Unlabeled(torch.arange(pool), views, targets) if views else None,
    )


def state_of(kind, net, *, seed=0, **optim):
    method = kind()
    student = Learner(build(net, seed=seed), Optim(**{"lr": 0.05, "ema": 0.9} | optim))
    teacher = None
    if method.teacher == "frozen":
        teacher = Frozen(build(net, seed=1))
    if method.teacher == "trained":
        teacher = Learner(method.make_teacher(net, seed=seed + 1), student.optim)
    return State(student, teacher, method.memory(CLASSES, 100))


def run(method, state, first, last):
    for step in range(first, last):
        torch.manual_seed(fold(0, Dice.STEP, step))
        yield method.step(state, batch_at(step, type(method)), Clock(step, TOTAL))


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_the_folder_has_the_methods_that_are_expected():
    assert {"Supervised", "NoisyStudent"} <= FOUND.keys()
    assert all(
        any(kind.__module__ == module.__name__ for kind in FOUND.values()) for module in MODULES
    )


@every_method
def test_a_method_is_a_frozen_value(kind):
    assert is_dataclass(kind)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    with pytest.raises(FrozenInstanceError):
        kind().labeled_view = "plain"
    assert kind.__mro__[1] is Method
    assert all(field.kw_only for field in fields(kind))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_the_docstring_names_the_paper_or_says_that_there_is_none(module):
    text = " ".join((module.__doc__ or "").split())
    assert "Paper: " in text
    named = re.search(r"Paper: \w.* (19|20)\d\d\b.*\((arXiv \d{4}\.\d{4,5}|.*)\)", text)
    assert named or "Paper: none" in text
    assert ast.get_docstring(ast.parse(inspect.getsource(module)))


@every_method
def test_a_method_asks_for_views_and_a_teacher_that_exist(kind):
    method = kind()
    assert {method.labeled_view, *method.unlabeled_views} <= set(VIEWS)
    assert method.teacher in ("none", "frozen", "trained")


@every_method
def test_a_step_changes_the_student_and_its_average_and_says_its_loss(kind, tiny):
    state = state_of(kind, tiny, warmup=0.0)
    before, average = weights(state.student.module), weights(state.student.average)
    (metrics,) = run(kind(), state, 1, 2)
    after = weights(state.student.module)
    trained = [name for name, _ in state.student.module.named_parameters()]
    changed = [name for name in trained if not torch.equal(before[name], after[name])]
    assert len(changed) > 0.7 * len(trained)  # a residual branch starts with a gain of zero
    assert not equal(average, weights(state.student.average))
    assert {"loss"} <= metrics.keys()
    for value in metrics.values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@every_method
def test_steps_on_the_same_batch_lower_the_loss(kind, tiny):
    state, method = state_of(kind, tiny, warmup=0.0, schedule="constant", lr=0.01), kind()
    losses = []
    for step in range(8):
        torch.manual_seed(0)
        losses.append(method.step(state, batch_at(0, kind), Clock(step, 8))["loss"].item())
    assert losses[-1] < losses[0]


@every_method
def test_a_frozen_teacher_and_the_batch_are_left_alone(kind, tiny):
    state, batch = state_of(kind, tiny), batch_at(0, kind)
    copies = [batch.labeled.images.clone(), batch.labeled.targets.clone()]
    teacher = weights(state.teacher.module) if isinstance(state.teacher, Frozen) else {}
    kind().step(state, batch, Clock(0, TOTAL))
    if isinstance(state.teacher, Frozen):
        assert equal(weights(state.teacher.module), teacher)
    assert torch.equal(batch.labeled.images, copies[0])
    assert torch.equal(batch.labeled.targets, copies[1])


@pytest.mark.parametrize(
    ("kind", "name", "stop"),
    [(kind, "adamw", 3) for kind in FOUND.values()] + [(FOUND["MetaPseudoLabels"], "sgd", 1)],
)
def test_stop_and_resume_is_the_same_run(kind, name, stop, tiny, tmp_path):
    tiny = replace(tiny, dropout=0.2, drop_path=0.1)
    through = state_of(kind, tiny, name=name)
    whole = list(run(kind(), through, 0, TOTAL))
    stopped = state_of(kind, tiny, name=name)
    list(run(kind(), stopped, 0, stop))
    checkpoint.save(tmp_path / "last.pt", stopped, step=stop, recipe="digest")
    resumed = state_of(kind, tiny, seed=7, name=name)
    first = checkpoint.resume(tmp_path / "last.pt", resumed, recipe="digest")
    assert first == stop
    rest = list(run(kind(), resumed, first, TOTAL))
    assert [m["loss"].item() for m in rest] == [m["loss"].item() for m in whole[stop:]]
    assert equal(weights(resumed.student.module), weights(through.student.module))
    assert equal(weights(resumed.student.average), weights(through.student.average))
    assert equal(resumed.memory, through.memory)


def test_no_checkpoint_is_a_start_and_one_of_another_recipe_is_refused(tiny, tmp_path):
    state = state_of(Supervised, tiny)
    assert checkpoint.resume(tmp_path / "last.pt", state, recipe="a") == 0
    checkpoint.save(tmp_path / "last.pt", state, step=2, recipe="a")
    with pytest.raises(
        RunMismatch, match=r"last\.pt was written with other settings \(of digest a, not b\)"
    ):
        checkpoint.resume(tmp_path / "last.pt", state, recipe="b")


# The equations of Noisy Student, on a student without batch norm ---------------------------------


class Plain(nn.Module):
    """A linear student: each image's logits depend on that image alone."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear = nn.Linear(3 * 4 * 4, CLASSES)

    def forward(self, images):
        return self.linear(images.flatten(1))


def small(labeled=4, pool=6):
    return batch_at(0, labeled=labeled, pool=pool, side=4)


def step_of(method, batch):
    """The metrics of one step of a linear student, and its weights after it."""
    optim = Optim(lr=0.5, ema=None, warmup=0.0, schedule="constant")
    state = State(Learner(Plain(), optim))
    metrics = method.step(state, batch, Clock(0, 1))
    return metrics, state.student.module.linear.weight.detach()


def streams(batch):
    pool = batch.pool()
    return Plain()(batch.labeled.images), Plain()(pool.views["strong"]), pool.targets


def with_pool(batch, order):
    pool = batch.pool()
    views = {name: view[order] for name, view in pool.views.items()}
    return replace(batch, unlabeled=Unlabeled(pool.rows[order], views, pool.targets[order]))


def with_labels(batch, order):
    labeled = batch.labeled
    return replace(batch, labeled=Labeled(labeled.images[order], labeled.targets[order]))


def test_per_stream_is_the_papers_sum_of_two_means():
    on_labels, on_pool, stored = streams(small())
    labels = cross_entropy(on_labels, smooth(small().labeled.targets, 0.1))
    pseudo = cross_entropy(on_pool, stored)
    metrics, _ = step_of(NoisyStudent(normalize="per_stream", weight=0.7), small())
    assert torch.allclose(metrics["labels"], labels)
    assert torch.allclose(metrics["pseudo"], pseudo)
    assert torch.allclose(metrics["loss"], labels + 0.7 * pseudo)


def test_per_sample_is_one_plus_the_ratio_times_the_mean_over_the_joint_batch():
    on_labels, on_pool, stored = streams(small(labeled=4, pool=6))
    joint = cross_entropy(
        torch.cat([on_labels, on_pool]), torch.cat([small().labeled.targets, stored])
    )
    method = NoisyStudent(normalize="per_sample", smoothing=0.0)
    metrics, _ = step_of(method, small(labeled=4, pool=6))
    assert torch.allclose(metrics["loss"], (1 + 6 / 4) * joint)


def test_equal_streams_make_both_rules_one():
    batch = small(labeled=5, pool=5)
    one, other = (
        step_of(NoisyStudent(normalize=rule), batch) for rule in ("per_stream", "per_sample")
    )
    assert torch.equal(one[0]["loss"], other[0]["loss"])
    assert torch.equal(one[1], other[1])


def test_soft_targets_receive_no_smoothing_and_hard_ones_do():
    _, on_pool, stored = streams(small())
    for amount in (0.0, 0.3):
        soft, _ = step_of(NoisyStudent(smoothing=amount), small())
        assert torch.allclose(soft["pseudo"], cross_entropy(on_pool, stored))
    batch = with_pool(small(), torch.arange(6))
    batch.pool().targets.copy_(hard(stored))
    metrics, _ = step_of(NoisyStudent(smoothing=0.3, hard=True), batch)
    assert torch.allclose(metrics["pseudo"], cross_entropy(on_pool, smooth(hard(stored), 0.3)))
    metrics, _ = step_of(NoisyStudent(smoothing=0.0, hard=True), batch)
    assert torch.allclose(metrics["pseudo"], cross_entropy(on_pool, hard(stored)))


@pytest.mark.parametrize("rule", ["per_stream", "per_sample"])
def test_duplicating_both_streams_changes_nothing(rule):
    method, twice = NoisyStudent(normalize=rule), torch.arange(6).repeat(2)
    double = with_labels(with_pool(small(), twice), torch.arange(4).repeat(2))
    one, other = step_of(method, small()), step_of(method, double)
    assert torch.allclose(one[0]["loss"], other[0]["loss"])
    assert torch.allclose(one[1], other[1], atol=1e-6)


def test_duplicating_the_pool_alone_changes_nothing_per_stream_and_doubles_it_per_sample():
    double = with_pool(small(), torch.arange(6).repeat(2))
    one, other = (step_of(NoisyStudent(), batch)[0]["loss"] for batch in (small(), double))
    assert torch.allclose(one, other)
    method = NoisyStudent(normalize="per_sample")
    one, other = (step_of(method, batch)[0] for batch in (small(), double))
    assert torch.allclose(other["loss"] - other["labels"], 2 * (one["loss"] - one["labels"]))


def test_the_order_of_the_pool_in_a_batch_changes_nothing():
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    one, other = (
        step_of(NoisyStudent(), small()),
        step_of(NoisyStudent(), with_pool(small(), order)),
    )
    assert torch.allclose(one[0]["loss"], other[0]["loss"])
    assert torch.allclose(one[1], other[1], atol=1e-6)


def test_a_pool_of_weight_zero_is_supervised_training():
    _, with_pool_weights = step_of(NoisyStudent(weight=0.0), small())
    _, supervised = step_of(Supervised(), small())
    assert torch.allclose(with_pool_weights, supervised, atol=1e-7)


def test_a_student_that_is_its_own_teacher_learns_nothing_from_the_pool():
    batch = small()
    batch.pool().targets.copy_(streams(batch)[1].softmax(-1).detach())
    _, taught = step_of(NoisyStudent(), batch)
    _, alone = step_of(Supervised(), batch)
    assert torch.allclose(taught, alone, atol=1e-6)


def test_renaming_the_classes_renames_the_answers():
    order = torch.tensor([2, 0, 1])
    batch = small()
    pool = batch.pool()
    renamed = Batch(
        Labeled(batch.labeled.images, batch.labeled.targets[:, order]),
        Unlabeled(pool.rows, pool.views, pool.targets[:, order]),
    )
    optim = Optim(lr=0.5, ema=None, warmup=0.0, schedule="constant")
    states = [State(Learner(Plain(), optim)) for _ in range(2)]
    head = states[1].student.module.linear
    head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]
    for state, seen in zip(states, (batch, renamed), strict=True):
        NoisyStudent().step(state, seen, Clock(0, 1))
    expected = states[0].student.module.linear.weight[order]
    assert torch.allclose(head.weight, expected, atol=1e-6)


def test_supervised_is_torchs_cross_entropy_with_label_smoothing():
    batch = small()
    labels = batch.labeled.targets.argmax(-1)
    expected = nn.functional.cross_entropy(
        Plain()(batch.labeled.images), labels, label_smoothing=0.2
    )
    metrics, _ = step_of(Supervised(smoothing=0.2), batch)
    assert torch.allclose(metrics["loss"], expected)


def test_both_streams_share_the_batch_norm_statistics(tiny):
    state, batch = state_of(NoisyStudent, tiny), batch_at(0)
    joint = torch.cat([batch.labeled.images, batch.pool().views["strong"]])
    twin = build(tiny)
    twin(joint)
    NoisyStudent().step(state, batch, Clock(0, TOTAL))
    for name, buffer in twin.named_buffers():
        assert torch.allclose(state.student.module.get_buffer(name), buffer, atol=1e-6)


def test_a_pool_that_is_missing_or_has_no_labels_yet_is_said(tiny):
    batch = small()
    state = State(Learner(Plain(), Optim()))
    with pytest.raises(UsageError, match="give the recipe a pool"):
        NoisyStudent().step(state, Batch(batch.labeled), Clock(0, 1))
    pool = replace(batch.pool(), targets=None)
    with pytest.raises(UsageError, match="label it with a teacher first"):
        NoisyStudent().step(state, Batch(batch.labeled, pool), Clock(0, 1))
