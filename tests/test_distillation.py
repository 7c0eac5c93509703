"""Methods with a frozen teacher: their equations, known answers and invariants."""

from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tutelage.core import Batch, Clock, Labeled, Unlabeled
from tutelage.errors import UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.losses import cross_entropy, distillation
from tutelage.methods.deit import Deit
from tutelage.methods.function_matching import FunctionMatching
from tutelage.methods.hinton import Hinton
from tutelage.methods.method import State
from tutelage.methods.supervised import Supervised
from tutelage.methods.usi import Usi
from tutelage.mixing import mixup_or_cutmix
from tutelage.networks.build import Net, Normalized, build
from tutelage.settings import Optim
from tutelage.targets import hard, one_hot, smooth

CLASSES = 3


def named(method):
    """A method with its settings that are not usual."""
    usual = type(method)()
    odd = {f.name: getattr(method, f.name) for f in fields(method)}
    odd = [f"{k}={v}" for k, v in odd.items() if v != getattr(usual, k)]
    return "-".join([type(method).__name__, *odd])


UNMIXED = [
    Hinton(),
    Deit(mixup=0.0, cutmix=0.0),
    Deit(mixup=0.0, cutmix=0.0, soft=True),
    FunctionMatching(mixup=0.0),
    Usi(mixup=0.0, cutmix=0.0),
]
MIXED = [Deit(), Deit(soft=True), FunctionMatching(), Usi(), Usi(kd_only=True)]
plain_ones = pytest.mark.parametrize("method", UNMIXED, ids=named)
mixed_ones = pytest.mark.parametrize("method", MIXED, ids=named)
every_one = pytest.mark.parametrize("method", UNMIXED + MIXED, ids=named)
everywhere = pytest.mark.parametrize("on", ["both", "labels", "pool"])


def draw(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Each image's logits depend on that image alone."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(3 * 4 * 4, CLASSES)
        self.saw = []

    def forward(self, images):
        self.saw.append(images.detach().clone())
        return 4 * self.linear(images.flatten(1))


class TwoHeads(Linear):
    """Answers with two tokens in training, and with their mean otherwise."""

    def __init__(self, seed):
        super().__init__(seed)
        self.second = Linear(seed + 10)

    def forward(self, images):
        heads = super().forward(images), self.second(images)
        return heads if self.training else (heads[0] + heads[1]) / 2


def small(labeled=4, pool=6):
    views = draw(3, pool, 3, 4, 4)
    return Batch(
        Labeled(draw(1, labeled, 3, 4, 4), one_hot(torch.arange(labeled) % CLASSES, CLASSES)),
        Unlabeled(torch.arange(pool), {"weak": views, "strong": views}, None),
    )


def with_labels(batch, targets):
    return replace(batch, labeled=Labeled(batch.labeled.images, targets))


def chosen(batch, labeled, pool):
    """Rows of both streams."""
    views = {name: view[pool] for name, view in batch.unlabeled.views.items()}
    return Batch(
        Labeled(batch.labeled.images[labeled], batch.labeled.targets[labeled]),
        Unlabeled(batch.unlabeled.rows[pool], views, None),
    )


def state_of(student=None, teacher=None):
    optim = Optim(name="sgd", lr=0.5, weight_decay=0.0, ema=None, warmup=0.0, schedule="constant")
    return State(Learner(student or Linear(0), optim), Frozen(teacher or Linear(1)))


def step_of(method, batch, state=None):
    """Metrics of one step, and all weights after it."""
    state = state or state_of()
    torch.manual_seed(0)
    metrics = method.step(state, batch, Clock(0, 1))
    return metrics, torch.cat([p.detach().flatten() for p in state.student.module.parameters()])


def streams(batch, on):
    """What the teacher is asked about."""
    pool = batch.unlabeled.views["strong"]
    parts = {"labels": [batch.labeled.images], "pool": [pool]}
    return torch.cat(parts.get(on, [batch.labeled.images, pool]))


def torch_kl(student, teacher, temperature):
    """T^2 KL by torch's own function."""
    student, teacher = student / temperature, teacher / temperature
    found = functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return temperature**2 * found


# The loss -----------------------------------------------------------------------------------------

ONE, OTHER = torch.tensor([[1.0, 2, 3]]), torch.tensor([[3.0, 2, 1]])
THIRD, FOURTH = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0.0, 1, 3]])


@pytest.mark.parametrize(
    ("temperature", "value"), [(1, 1.15042), (2, 1.28063), (4, 1.31963), (20, 1.33278)]
)
def test_the_divergence_has_its_known_values(temperature, value):
    assert distillation(ONE, OTHER, temperature).item() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(("temperature", "one", "other"), [(1, 1.63126, 2.07825),
                                                           (4, 2.12218, 2.22918)])  # fmt: skip
def test_the_divergence_goes_from_teacher_to_student(temperature, one, other):
    assert distillation(THIRD, FOURTH, temperature).item() == pytest.approx(one, abs=1e-5)
    assert distillation(FOURTH, THIRD, temperature).item() == pytest.approx(other, abs=1e-5)


def test_cross_entropy_has_its_known_values():
    targets = one_hot(torch.tensor([0]), 3)
    assert cross_entropy(ONE, targets).item() == pytest.approx(2.40761, abs=1e-5)
    assert cross_entropy(ONE, smooth(targets, 0.1)).item() == pytest.approx(2.30761, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_is_t_times_the_difference_of_the_softened_answers(temperature):
    student, teacher = (4 * draw(5, 6, 5)).requires_grad_(), 4 * draw(6, 6, 5)
    distillation(student, teacher, temperature).backward()
    p, q = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    assert torch.allclose(student.grad, (temperature * (p - q) / 6).detach(), atol=1e-6)


def test_at_high_temperature_it_matches_centered_logits():
    student, teacher = (4 * draw(5, 1, 5)).requires_grad_(), 4 * draw(6, 1, 5)
    loss = distillation(student, teacher, 100.0)
    gap = (student - student.mean()) - (teacher - teacher.mean())
    assert loss.item() == pytest.approx((gap**2).sum().item() / (2 * 5), rel=0.03)
    loss.backward()
    assert torch.allclose(student.grad, gap.detach() / 5, atol=0.03)


def test_constants_and_repetition_change_nothing_and_the_reduction_is_per_image():
    student, teacher = 4 * draw(5, 6, 5), 4 * draw(6, 6, 5)
    loss = distillation(student, teacher, 2.0)
    assert torch.allclose(loss, torch_kl(student, teacher, 2.0), atol=1e-6)
    assert torch.allclose(loss, distillation(student + 7, teacher - 3, 2.0), atol=1e-5)
    assert torch.allclose(loss, distillation(student.repeat(2, 1), teacher.repeat(2, 1), 2.0))


def test_equal_answers_give_zero_and_no_gradient():
    student = (4 * draw(5, 6, 5)).requires_grad_()
    loss = distillation(student, student.detach(), 2.0)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert student.grad.abs().max() < 1e-6


def test_a_teacher_that_is_certain_gives_no_nan():
    student = (4 * draw(5, 1, 3)).requires_grad_()
    loss = distillation(student, torch.tensor([[1e4, 0, -1e4]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


# The methods' equations ---------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("hard_weight", [0.0, 0.3])
def test_hinton_is_the_papers_weighted_sum(on, hard_weight):
    batch, student, teacher = small(), Linear(0), Linear(1)
    asked = streams(batch, on)
    expected = 0.7 * torch_kl(student(asked), teacher(asked), 2.0)
    labels = batch.labeled.targets.argmax(-1)
    expected += hard_weight * functional.cross_entropy(student(batch.labeled.images), labels)
    method = Hinton(temperature=2.0, soft_weight=0.7, hard_weight=hard_weight, on=on)
    metrics, _ = step_of(method, batch)
    assert torch.allclose(metrics["loss"], expected.detach(), atol=1e-5)


@everywhere
def test_function_matching_is_the_divergence_alone(on):
    batch = small()
    asked = streams(batch, on)
    expected = torch_kl(Linear(0)(asked), Linear(1)(asked), 2.0)
    metrics, _ = step_of(FunctionMatching(mixup=0.0, temperature=2.0, on=on), batch)
    assert torch.allclose(metrics["loss"], expected.detach(), atol=1e-5)


@everywhere
def test_usi_is_soft_cross_entropy_and_five_times_the_divergence(on):
    batch = small()
    asked = streams(batch, on)
    expected = cross_entropy(Linear(0)(batch.labeled.images), batch.labeled.targets)
    expected = expected + 5 * torch_kl(Linear(0)(asked), Linear(1)(asked), 1.0)
    metrics, _ = step_of(Usi(mixup=0.0, cutmix=0.0, on=on), batch)
    assert torch.allclose(metrics["loss"], expected.detach(), atol=1e-5)


@everywhere
@pytest.mark.parametrize("soft", [False, True])
def test_deit_teaches_one_head_the_labels_and_the_other_the_teacher(on, soft):
    batch, student, teacher = small(), TwoHeads(0), Linear(1)
    asked = streams(batch, on)
    labels = batch.labeled.targets.argmax(-1)
    first = functional.cross_entropy(student(batch.labeled.images)[0], labels, label_smoothing=0.2)
    if soft:
        expected = 0.9 * first + 0.1 * torch_kl(student(asked)[1], teacher(asked), 3.0)
    else:
        guess = teacher(asked).argmax(-1)
        expected = (first + functional.cross_entropy(student(asked)[1], guess)) / 2
    method = Deit(mixup=0.0, cutmix=0.0, smoothing=0.2, soft=soft, on=on)
    metrics, _ = step_of(method, batch, state_of(TwoHeads(0)))
    assert torch.allclose(metrics["loss"], expected.detach(), atol=1e-5)


def test_deit_with_one_head_gives_its_answer_to_both_terms():
    batch = small()
    asked, teacher = streams(batch, "labels"), Linear(1)
    logits = Linear(0)(asked)
    targets = (smooth(batch.labeled.targets, 0.1) + hard(teacher(asked))) / 2
    expected = cross_entropy(logits, targets)  # which is linear in the targets
    metrics, _ = step_of(Deit(mixup=0.0, cutmix=0.0, on="labels"), batch)
    assert torch.allclose(metrics["loss"], expected.detach(), atol=1e-6)


def test_a_teacher_of_weight_zero_leaves_the_supervised_loss():
    batch = small()
    _, alone = step_of(Supervised(smoothing=0.1), batch)
    methods = [
        Deit(mixup=0.0, cutmix=0.0, weight=0.0, smoothing=0.1),
        Deit(mixup=0.0, cutmix=0.0, soft=True, soft_weight=0.0, smoothing=0.1),
    ]
    for method in methods:
        assert torch.allclose(step_of(method, batch)[1], alone, atol=1e-7)
    _, alone = step_of(Supervised(smoothing=0.0), batch)
    methods = [Usi(mixup=0.0, cutmix=0.0, weight=0.0), Hinton(soft_weight=0.0, hard_weight=1.0)]
    for method in methods:
        assert torch.allclose(step_of(method, batch)[1], alone, atol=1e-7)


def test_usi_with_weight_zero_is_the_soft_cross_entropy_of_mixed_labels():
    batch = small()
    torch.manual_seed(0)
    mix = mixup_or_cutmix(4, mixup_alpha=0.8, cutmix_alpha=1.0)
    images, targets = mix.images(batch.labeled.images), mix.targets(batch.labeled.targets)
    assert mix.share < 1
    metrics, _ = step_of(Usi(weight=0.0), batch)
    assert torch.allclose(metrics["loss"], cross_entropy(Linear(0)(images), targets).detach())


# Invariants ---------------------------------------------------------------------------------------

LABEL_FREE = [
    Hinton(hard_weight=0.0),
    Hinton(hard_weight=0.0, on="pool"),
    FunctionMatching(),
    Usi(kd_only=True),
]


@pytest.mark.parametrize("method", LABEL_FREE, ids=named)
def test_without_the_labels_term_labels_are_not_looked_at(method):
    batch = small()
    other = with_labels(batch, batch.labeled.targets.roll(1, -1))
    one, two = step_of(method, batch), step_of(method, other)
    assert torch.equal(one[0]["loss"], two[0]["loss"])
    assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("method", [FunctionMatching(on="pool"), Hinton(on="pool", hard_weight=0),
                                    Usi(on="pool", kd_only=True)], ids=named)  # fmt: skip
def test_from_the_pool_alone_labeled_images_are_not_even_seen(method):
    state = state_of()
    step_of(method, small(), state)
    assert [len(images) for images in state.student.module.saw] == [6]


@pytest.mark.parametrize("method", LABEL_FREE, ids=named)
def test_a_student_that_is_its_teacher_learns_nothing(method):
    state = state_of(Linear(1), Linear(1))
    before = state.student.module.linear.weight.detach().clone()
    metrics, _ = step_of(method, small(), state)
    assert abs(metrics["loss"].item()) < 1e-5
    assert torch.allclose(state.student.module.linear.weight, before, atol=1e-5)


def test_a_student_that_is_its_teacher_still_learns_from_hard_answers():
    state = state_of(Linear(1), Linear(1))
    metrics, _ = step_of(Deit(weight=1.0), small(), state)
    assert metrics["loss"] > 0.1


@every_one
@everywhere
def test_teacher_and_student_see_the_same_pixels(method, on):
    state, batch = state_of(), small()
    step_of(replace(method, on=on), batch, state)
    (asked,), (seen,) = state.teacher.module.saw, state.student.module.saw
    assert torch.equal(seen[-len(asked) :], asked)
    assert len(asked) == {"both": 10, "labels": 4, "pool": 6}[on]


@mixed_ones
def test_images_are_mixed_where_that_is_asked_for(method):
    state, batch = state_of(), small()
    step_of(method, batch, state)
    assert not torch.equal(state.teacher.module.saw[0], streams(batch, "both"))


@pytest.mark.parametrize("method", [Deit(), Usi()], ids=named)
def test_labeled_images_are_never_mixed_with_those_of_the_pool(method):
    batch, state = small(), state_of()
    batch.labeled.images.fill_(0.25)
    batch.unlabeled.views["strong"].fill_(0.75)
    step_of(method, batch, state)
    assert torch.allclose(state.student.module.saw[0][:4], torch.tensor(0.25))
    assert torch.allclose(state.student.module.saw[0][4:], torch.tensor(0.75))


@every_one
def test_duplicating_both_streams_changes_nothing(method):
    batch = small()
    double = chosen(batch, torch.arange(4).repeat(2), torch.arange(6).repeat(2))
    if isinstance(method, FunctionMatching) and method.mixup:
        method = replace(method, on="labels")  # its streams are mixed as one
    one, two = step_of(method, batch), step_of(method, double)
    assert torch.allclose(one[0]["loss"], two[0]["loss"], atol=1e-5)
    assert torch.allclose(one[1], two[1], atol=1e-5)


@plain_ones
def test_the_order_of_a_stream_changes_nothing(method):
    batch = small()
    other = chosen(batch, torch.tensor([2, 0, 3, 1]), torch.tensor([3, 5, 0, 1, 4, 2]))
    one, two = step_of(method, batch), step_of(method, other)
    assert torch.allclose(one[0]["loss"], two[0]["loss"], atol=1e-6)
    assert torch.allclose(one[1], two[1], atol=1e-6)


@every_one
def test_renaming_the_classes_renames_the_answers(method):
    order, batch = torch.tensor([2, 0, 1]), small()
    states = [state_of(), state_of()]
    for one in (states[1].student.module.linear, states[1].teacher.module.linear):
        one.weight.data, one.bias.data = one.weight.data[order], one.bias.data[order]
    step_of(method, batch, states[0])
    step_of(method, with_labels(batch, batch.labeled.targets[:, order]), states[1])
    expected = states[0].student.module.linear.weight[order]
    assert torch.allclose(states[1].student.module.linear.weight, expected, atol=1e-5)


@every_one
def test_the_teacher_gets_no_gradient_and_none_of_its_buffers_moves(method, tiny):
    teacher = build(tiny, seed=1).train()
    state = state_of(build(tiny), teacher)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    views = {name: draw(5, 4, 3, 32, 32) for name in ("weak", "strong")}
    labeled = Labeled(draw(4, 4, 3, 32, 32), one_hot(torch.arange(4) % 3, 3))
    step_of(method, Batch(labeled, Unlabeled(torch.arange(4), views, None)), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@every_one
def test_without_a_pool_the_labels_are_the_images_and_asking_for_one_is_refused(method):
    batch = Batch(small().labeled)
    one = step_of(method, batch)[0]["loss"]
    assert torch.equal(one, step_of(replace(method, on="labels"), batch)[0]["loss"])
    with pytest.raises(UsageError, match="give the recipe a pool"):
        step_of(replace(method, on="pool"), batch)


def test_a_fused_teacher_teaches_the_same():
    class Convolved(nn.Module):
        def __init__(self, fused):
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
                norm.running_mean.uniform_(-1, 1)
                norm.running_var.uniform_(0.5, 2)
                self.head = nn.Linear(5 * 2 * 2, CLASSES)
            both = nn.Sequential(conv, norm).eval()
            self.body = fuse_conv_bn_eval(*both) if fused else both

        def forward(self, images):
            return self.head(self.body(images).flatten(1))

    one, two = (
        step_of(Usi(), small(), state_of(teacher=Convolved(fused)))[0]["loss"]
        for fused in (False, True)
    )
    assert torch.allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (Hinton, {"temperature": 0.0}, "temperature is above 0"),
        (Hinton, {"soft_weight": -1.0}, "soft_weight is at least 0"),
        (Hinton, {"hard_weight": -1.0}, "hard_weight is at least 0"),
        (Deit, {"weight": 1.5}, "weight is 0 to 1"),
        (Deit, {"temperature": -1.0}, "temperature is above 0"),
        (Deit, {"switch": 2.0}, "switch is 0 to 1"),
        (FunctionMatching, {"temperature": 0.0}, "temperature is above 0"),
        (FunctionMatching, {"mixup": -1.0}, "mixup is at least 0"),
        (Usi, {"weight": -1.0}, "weight is at least 0"),
        (Usi, {"mix": 2.0}, "mix is 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused(kind, values, words):
    with pytest.raises(UsageError, match=words):
        kind(**values)


# What the teacher sees ----------------------------------------------------------------------------

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {
    "imagenet": IMAGENET,
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "clip": ((0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)),
    "dpn": ((0.4863, 0.4588, 0.4078), (0.2348, 0.2348, 0.2348)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


class Keeps(nn.Module):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, CLASSES)
        self.saw = None

    def forward(self, pixels):
        self.saw = pixels.detach()
        return self.linear(pixels.flatten(1))


def column(values):
    return torch.tensor(values).view(1, 3, 1, 1)


def public(student_pixels, student, teacher):
    """What the public code of USI makes of the student's pixels for the teacher."""
    (m_s, s_s), (m_t, s_t) = [tuple(map(column, one)) for one in (student, teacher)]
    return student_pixels * s_s / s_t - (m_t - m_s)


@pytest.mark.parametrize("teacher", STATISTICS)
def test_each_network_gets_exactly_the_pixels_that_it_was_trained_on(teacher):
    names = list(STATISTICS)
    student = names[(names.index(teacher) + 1) % len(names)]
    one, two = Keeps(), Keeps()
    state = state_of(Normalized(one, *STATISTICS[student]), Normalized(two, *STATISTICS[teacher]))
    step_of(Usi(), small(), state)
    (m_s, s_s), (m_t, s_t) = [tuple(map(column, STATISTICS[n])) for n in (student, teacher)]
    again = one.saw * s_s + m_s  # the images themselves
    assert torch.allclose(two.saw, (again - m_t) / s_t, atol=1e-5)
    exact = one.saw * s_s / s_t + (m_s - m_t) / s_t
    assert torch.allclose(two.saw, exact, atol=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "errors"),
    [("inception", "imagenet", (-0.0505, -0.152, -0.324)),
     ("imagenet", "inception", (0.015, 0.044, 0.094)),
     ("imagenet", "none", (0.0, 0.0, 0.0))],
)  # fmt: skip
def test_the_public_formula_is_off_unless_the_teacher_has_unit_deviation(student, teacher, errors):
    images = draw(9, 4, 3, 4, 4)
    (m_s, s_s), (m_t, s_t) = [tuple(map(column, STATISTICS[n])) for n in (student, teacher)]
    right = (images - m_t) / s_t
    found = public((images - m_s) / s_s, STATISTICS[student], STATISTICS[teacher])
    gap = (right - found).mean((0, 2, 3))
    assert torch.allclose(gap.abs(), torch.tensor(errors).abs(), atol=1.5e-3)


def test_a_distillation_token_learns_beside_the_class_token():
    net = Net(name="deit_tiny_distilled_patch16_224", num_classes=3, img_size=32, two_heads=True)
    labeled = Labeled(draw(4, 3, 3, 32, 32), one_hot(torch.arange(3), 3))
    teacher = build(Net(name="test_resnet", num_classes=3, img_size=32), seed=1)
    state = state_of(build(net), teacher)
    heads = [state.student.module.net.head.weight, state.student.module.net.head_dist.weight]
    before = [head.detach().clone() for head in heads]
    step_of(Deit(), Batch(labeled), state)
    assert all(not torch.equal(b, a) for b, a in zip(before, heads, strict=True))
    one, two = state.student.heads(labeled.images)
    assert not torch.equal(one, two)
    state.student.module.eval()
    assert torch.allclose(state.student(labeled.images), (one + two).detach() / 2, atol=1e-5)
    state.student.module.train()
    before = [head.detach().clone() for head in heads]
    step_of(Deit(weight=1.0), Batch(labeled), state)  # the teacher's term alone
    assert not torch.equal(before[1], heads[1])
    assert (heads[0].grad == 0).all()
