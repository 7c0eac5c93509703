"""Meta Pseudo Labels against exact gradients: the feedback, its sign, and what it must leave."""

import itertools
from dataclasses import replace

import pytest
import torch
from same import weights
from torch import nn
from torch.func import functional_call

from tutelage.core import Batch, Clock, Labeled, Unlabeled
from tutelage.errors import UsageError
from tutelage.feedback import credit, exact, exam, pseudo_labels, reinforce, reward, start_of, teach
from tutelage.learner import Learner, modes
from tutelage.methods.meta_pseudo_labels import MetaPseudoLabels
from tutelage.methods.method import State
from tutelage.methods.reduced_meta_pseudo_labels import ReducedMetaPseudoLabels
from tutelage.methods.uda import UDA
from tutelage.networks.build import build
from tutelage.settings import Optim

K, LR = 3, 0.1
CLOCK = Clock(0, 1)
PLAIN = Optim(
    name="momentum",
    lr=LR,
    momentum=0.0,
    weight_decay=0.0,
    schedule="constant",
    warmup=0.0,
    ema=None,
)


class Small(nn.Module):
    """Two layers on flattened pixels, smooth, with batch norm and dropout where asked."""

    def __init__(self, seed, *, noisy=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(12, 8), nn.Linear(8, K)
        self.norm = nn.BatchNorm1d(8) if noisy else nn.Identity()
        self.drop = nn.Dropout(0.4) if noisy else nn.Identity()

    def forward(self, images):
        return self.last(self.drop(self.norm(self.first(images.flatten(1))).tanh()))


def images(seed, count):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 2, 2, generator=draw, dtype=torch.float64)


def labeled(count=5):
    return Labeled(images(1, count), torch.eye(K, dtype=torch.float64)[torch.arange(count) % K])


def cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(-1)).sum(-1).mean()


def student(*, noisy=False):
    return Learner(Small(0, noisy=noisy).double(), PLAIN)


def moved(learner, lesson_loss):
    """Take the plain gradient step in float64, as the theory has it."""
    parameters = list(learner.module.parameters())
    slopes = torch.autograd.grad(lesson_loss, parameters)
    with torch.no_grad():
        for weight, slope in zip(parameters, slopes, strict=True):
            weight.sub_(LR * slope)


def unrolled(module, shown, labels, *, seed, noisy):
    """L(theta') with the graph back to the labels, by autograd through the student's step."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    module.train()
    torch.manual_seed(seed)
    loss = cross_entropy(functional_call(module, (weights, buffers), (shown,)), labels)
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    after = {n: w - LR * s for (n, w), s in zip(weights.items(), slopes, strict=True)}
    with modes(module, noise=False, statistics=False):
        logits = functional_call(module, (after, buffers), (labeled().images,))
    return cross_entropy(logits, labeled().targets)


@pytest.mark.parametrize("noisy", [False, True], ids=["smooth", "batch norm and dropout"])
def test_exact_feedback_is_autograd_through_the_students_step(noisy):
    shown, pupil = images(2, 4), student(noisy=noisy)
    answers = Small(7).double()(shown).detach().requires_grad_()
    oracle = unrolled(pupil.module, shown, answers.softmax(-1), seed=3, noisy=noisy)
    (expected,) = torch.autograd.grad(oracle, answers)
    torch.manual_seed(3)
    start = start_of(pupil)
    moved(pupil, cross_entropy(pupil.module(shown), answers.detach().softmax(-1)))
    after = exam(pupil, labeled())
    assert torch.allclose(after, oracle, atol=1e-12)
    slopes = credit(pupil, start, shown, after)
    (found,) = torch.autograd.grad(exact(answers, slopes, LR), answers)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    assert expected.abs().max() > 1e-5


def outcomes(shown, answers):
    """Every joint draw of labels with its chance, and the student's exams before and after."""
    probs = answers.softmax(-1)
    for drawn in itertools.product(range(K), repeat=len(shown)):
        labels = torch.eye(K, dtype=torch.float64)[list(drawn)]
        chance = (probs * labels).sum(-1).prod()
        pupil = student()
        start, before = start_of(pupil), exam(pupil, labeled()).detach()
        moved(pupil, cross_entropy(pupil.module(shown), labels))
        yield labels, chance, pupil, start, before, exam(pupil, labeled())


def expected_gradient(estimate, shown, answers):
    """The mean over all draws of the gradient that an estimator gives the teacher's answers."""
    total = torch.zeros_like(answers)
    for labels, chance, *rest in outcomes(shown, answers):
        h = estimate(labels, *rest)
        loss = reinforce(answers, labels, h)
        total += chance.detach() * torch.autograd.grad(loss, answers)[0]
    return total


def true_gradient(shown, answers):
    """Of the expected exam after the lesson."""
    risk = sum(chance * after.detach() for _, chance, _, _, _, after in outcomes(shown, answers))
    return torch.autograd.grad(risk, answers)[0]


def cosine(one, other):
    return nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0).item()


@pytest.fixture(scope="module")
def drawn():
    shown = images(2, 3)
    answers = Small(7).double()(shown).detach().requires_grad_()
    return shown, answers, true_gradient(shown, answers)


def test_old_minus_new_is_unbiased_and_new_minus_old_teaches_the_opposite(drawn):
    shown, answers, truth = drawn
    found = expected_gradient(lambda y, p, s, old, new: old - new.detach(), shown, answers)
    assert torch.allclose(found * len(shown), truth, atol=1e-10)
    wrong = expected_gradient(lambda y, p, s, old, new: new.detach() - old, shown, answers)
    assert cosine(wrong, truth) == pytest.approx(-1)


def test_the_dot_product_is_the_same_to_first_order(drawn):
    shown, answers, truth = drawn

    def dot(labels, pupil, start, old, new):
        return reward(labels, credit(pupil, start, shown, new), LR)

    assert cosine(expected_gradient(dot, shown, answers), truth) > 0.999


def test_the_dot_product_is_one_of_two_gradients():
    shown, labels = images(2, 4), torch.eye(K, dtype=torch.float64)[[0, 2, 1, 1]]
    pupil = student()
    start = start_of(pupil)
    parameters = list(pupil.module.parameters())
    lesson = torch.autograd.grad(cross_entropy(pupil.module(shown), labels), parameters)
    moved(pupil, cross_entropy(pupil.module(shown), labels))
    after = exam(pupil, labeled())
    slopes = torch.autograd.grad(after, parameters, retain_graph=True)
    expected = LR * sum((a * b).sum() for a, b in zip(slopes, lesson, strict=True))
    assert torch.allclose(reward(labels, credit(pupil, start, shown, after), LR), expected)


def test_a_constant_baseline_changes_no_expected_gradient(drawn):
    shown, answers, _ = drawn
    one = expected_gradient(lambda y, p, s, old, new: old - new.detach(), shown, answers)
    other = expected_gradient(lambda y, p, s, old, new: old - new.detach() - 5.0, shown, answers)
    assert torch.allclose(one, other, atol=1e-12)


# The whole step -----------------------------------------------------------------------------------


def batch_of(seed=0, *, labels=(0, 1, 2, 0)):
    draw = torch.Generator().manual_seed(seed)
    views = {n: torch.rand(6, 3, 32, 32, generator=draw) for n in ("weak", "strong")}
    known = Labeled(torch.rand(4, 3, 32, 32, generator=draw), torch.eye(K)[list(labels)])
    stored = torch.rand(6, K, generator=draw).softmax(-1)
    return Batch(known, Unlabeled(torch.arange(6), views, stored))


def state_of(method, tiny, **optim):
    """A student and a teacher with batch norm, dropout and stochastic depth."""
    net = replace(tiny, dropout=0.3, drop_path=0.2)
    plan = replace(PLAIN, **{"lr": 0.05} | optim)
    pupil = Learner(build(net, seed=0), plan)
    teacher = Learner(method.make_teacher(net, seed=1), replace(plan, lr=0.05))
    return State(pupil, teacher, method.memory(K, 6))


METHODS = (MetaPseudoLabels, ReducedMetaPseudoLabels)
every = pytest.mark.parametrize("kind", METHODS)
every_feedback = pytest.mark.parametrize("feedback", ["exact", "sampled", "difference"])


def step(method, state, batch, seed=0):
    torch.manual_seed(seed)
    return method.step(state, batch, CLOCK)


@every
@every_feedback
def test_a_student_that_stands_still_gives_a_feedback_of_exactly_zero(kind, feedback, tiny):
    method = kind(feedback=feedback)
    metrics = step(method, state_of(method, tiny, lr=0.0), batch_of())
    assert metrics["feedback"].item() == 0.0


@every_feedback
def test_a_student_that_moves_gives_a_feedback(feedback, tiny):
    method = MetaPseudoLabels(feedback=feedback)
    assert step(method, state_of(method, tiny), batch_of())["feedback"].item() != 0.0


def test_without_feedback_the_teacher_is_a_uda_student(tiny):
    """h = 0 is the control run."""
    method = MetaPseudoLabels(feedback="none", smoothing=0.0, ramp_end=0.0, weight=2.0)
    state = state_of(method, tiny)
    step(method, state, batch_of())
    alone = UDA(weight=2.0, threshold=method.threshold, temperature=method.temperature)
    twin = State(state_of(method, tiny).learning_teacher())
    step(alone, twin, batch_of())
    one, other = weights(state.teacher.module), weights(twin.student.module)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_the_student_sees_no_label_and_the_teacher_no_exam(tiny):
    method = MetaPseudoLabels(feedback="none")
    states = [state_of(method, tiny) for _ in range(2)]
    for state, labels in zip(states, ((0, 1, 2, 0), (2, 2, 1, 1)), strict=True):
        step(method, state, batch_of(labels=labels))
    one, other = (weights(state.student.module) for state in states)
    assert all(torch.equal(one[name], other[name]) for name in one)
    taught, differently = (weights(state.teacher.module) for state in states)
    assert not all(torch.equal(taught[name], differently[name]) for name in taught)


def test_exams_move_no_statistic(tiny):
    pupil = state_of(MetaPseudoLabels(), tiny).student
    before = weights(pupil.module)
    exam(pupil, batch_of().labeled).backward()
    after = weights(pupil.module)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert pupil.module.training


def test_a_lesson_moves_the_statistics_once(tiny):
    pupil, twin = (state_of(MetaPseudoLabels(), tiny).student for _ in range(2))
    batch = batch_of()
    strong = batch.pool().views["strong"]
    torch.manual_seed(0)
    lesson = teach(
        pupil, strong, torch.full((6, K), 1 / K), batch.labeled, CLOCK, estimator="exact"
    )
    credit(pupil, lesson.start, strong, lesson.after)
    torch.manual_seed(0)
    twin(strong)
    for name, buffer in twin.module.named_buffers():
        assert torch.allclose(pupil.module.get_buffer(name), buffer), name


@pytest.mark.parametrize("estimator", ["exact", "sampled", "difference", "none"])
def test_a_lesson_keeps_what_its_feedback_is_made_of_and_no_more(tiny, estimator):
    pupil, batch = state_of(MetaPseudoLabels(), tiny).student, batch_of()
    given = torch.full((6, K), 1 / K)
    lesson = teach(
        pupil, batch.pool().views["strong"], given, batch.labeled, CLOCK, estimator=estimator
    )
    derives = estimator in ("exact", "sampled")
    assert (lesson.start is not None) is derives
    assert lesson.after.requires_grad is derives
    assert (lesson.before is not None) is (estimator == "difference")
    assert lesson.before is None or not lesson.before.requires_grad


@every
def test_a_mean_that_is_the_last_value_or_none_is_refused(kind):
    with pytest.raises(UsageError, match="baseline is above 0, got 0"):
        kind(baseline=0)
    with pytest.raises(UsageError, match=r"baseline is 0 to 1, got 1\.5"):
        kind(baseline=1.5)


def test_the_reduced_teacher_begins_with_the_stored_labels(tiny):
    method = ReducedMetaPseudoLabels()
    teacher = method.make_teacher(tiny, seed=0)
    stored = batch_of().pool().targets
    assert torch.allclose(teacher(stored[:, :, None, None]).softmax(-1), stored, atol=1e-6)
    state = state_of(method, tiny)
    before = weights(state.teacher.module)
    step(method, state, batch_of())
    assert not torch.equal(weights(state.teacher.module)["out.weight"], before["out.weight"])


def test_labels_are_the_teachers_softmax_a_draw_or_the_surest():
    logits = torch.tensor([[0.0, 3.0, 1.0]]).repeat(4000, 1)
    probs = logits.softmax(-1)
    assert torch.equal(pseudo_labels(logits, "soft"), probs)
    assert torch.equal(pseudo_labels(logits, "argmax")[0], torch.tensor([0.0, 1.0, 0.0]))
    torch.manual_seed(0)
    assert torch.allclose(pseudo_labels(logits, "sampled").mean(0), probs[0], atol=0.03)


@every
@pytest.mark.parametrize(
    ("feedback", "labels"), [("exact", "argmax"), ("sampled", "soft"), ("difference", "soft")]
)
def test_labels_that_the_feedback_can_not_be_about_are_refused(kind, feedback, labels):
    with pytest.raises(UsageError, match=f"labels={labels} doesn't go with feedback={feedback}"):
        kind(feedback=feedback, labels=labels)


def test_attention_has_a_forward_derivative_too(tiny):
    """Exact feedback on a transformer, whose fused attention has none."""
    method = MetaPseudoLabels()
    net = replace(tiny, name="test_vit", dropout=0.1, drop_path=0.1)
    pupil, teacher = (Learner(build(net, seed=s), PLAIN) for s in (0, 1))
    metrics = step(method, State(pupil, teacher, method.memory(K, 6)), batch_of())
    assert torch.isfinite(metrics["feedback"])
