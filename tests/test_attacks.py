"""Attacks: known answers, what they leave alone, foolbox's results, and the alarms."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tutelage.corruptions.draws import Draws
from tutelage.networks.build import Normalized
from tutelage.robustness import attacks
from tutelage.robustness.attacks import (
    LOSSES,
    Attack,
    cross_entropy,
    cw,
    dlr,
    fgsm,
    noise,
    pgd,
    projected,
    start,
)

CPU = torch.device("cpu")
NORMS = ("linf", "l2")


def drawn(*shape, seed=0, low=0.0, high=1.0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


class Linear(nn.Module):
    """Logits (B, K) that are linear in the images."""

    def __init__(self, classes, side=4, seed=0, scale=1.0):
        super().__init__()
        weights = drawn(classes, 3, side, side, seed=seed, low=-1) * scale
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        return images.flatten(1) @ self.weights.flatten(1).T


def small_net(classes=4, seed=0):
    """Smooth, with batch norm and dropout, and statistics that are not those of a new network."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(128, classes),
    )  # fmt: skip
    net.train()
    with torch.no_grad():
        net(torch.rand(16, 3, 8, 8))
        net[-1].weight.mul_(10)  # answers that are not all alike
    return net.eval()


def images_and_labels(net, count=6, side=8, seed=3):
    images = drawn(count, 3, side, side, seed=seed)
    with torch.no_grad():
        return images, net(images).argmax(1)


def margin(model, images):
    """How far the first of two classes is ahead (B,)."""
    with torch.no_grad():
        logits = model(images)
    return logits[:, 0] - logits[:, 1]


def length(change, norm):
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def draws(count, word="x"):
    return Draws([f"{word}/{i}" for i in range(count)], CPU)


def test_one_step_on_a_linear_model_is_exact():
    model, images = Linear(2), drawn(5, 3, 4, 4, low=0.3, high=0.7)
    labels, epsilon = torch.zeros(5, dtype=torch.long), 8 / 255
    weights = (model.weights[0] - model.weights[1]).detach()
    found = fgsm(model, images, labels=labels, attack=Attack(epsilon=epsilon))
    assert torch.equal(found, images - epsilon * weights.sign())
    expected = epsilon * weights.abs().sum()
    torch.testing.assert_close(
        margin(model, images) - margin(model, found), expected.expand(5), rtol=1e-4, atol=1e-5
    )
    found = fgsm(model, images, labels=labels, attack=Attack(epsilon=0.2, norm="l2"))
    torch.testing.assert_close(found, images - 0.2 * weights / weights.norm(), rtol=0, atol=1e-6)
    expected = 0.2 * weights.norm()
    torch.testing.assert_close(
        margin(model, images) - margin(model, found), expected.expand(5), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("norm", NORMS)
def test_no_distance_is_no_change(norm):
    net = small_net()
    images, labels = images_and_labels(net)
    attack = Attack(epsilon=0, norm=norm, steps=3)
    assert torch.equal(fgsm(net, images, labels=labels, attack=attack), images)
    found = pgd(net, images, labels=labels, attack=attack, draws=draws(6))
    assert torch.equal(found.images, images)
    assert not found.reached.any()
    assert torch.equal(found.predicted, labels)
    assert torch.equal(noise(images, attack, draws(6)), images)


@settings(max_examples=40)
@given(
    norm=st.sampled_from(NORMS),
    epsilon=st.sampled_from([1e-4, 1 / 255, 0.3, 2.0]),
    steps=st.integers(1, 4),
    loss=st.sampled_from(["cross-entropy", "cw", "dlr"]),
    seed=st.integers(0, 99),
)
def test_images_stay_near_and_in_range(norm, epsilon, steps, loss, seed):
    net = small_net()
    images = (drawn(3, 3, 8, 8, seed=seed) * 1.5 - 0.25).clamp(0, 1)  # many at the borders
    attack = Attack(epsilon=epsilon, norm=norm, steps=steps, loss=loss)
    labels = torch.tensor([0, 1, 2])
    found = [
        fgsm(net, images, labels=labels, attack=attack),
        pgd(net, images, labels=labels, attack=attack, draws=draws(3)).images,
        noise(images, attack, draws(3)),
        projected(images + start(images, attack, draws(3)), images, attack),
    ]
    for one in found:
        assert one.min() >= 0
        assert one.max() <= 1
        assert (length(one - images, norm) <= epsilon + 1e-6).all()


@pytest.mark.parametrize("side", [32, 224, 600])
@pytest.mark.parametrize("epsilon", [0.001, 1.0, 3.0, 18.75])
def test_photos_of_one_color_stay_in_the_ball_too(side, epsilon):
    """Where all pixels change alike, what is rounded of each and in their sum adds up."""

    class Even(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            total = (self.weight * images).sum((1, 2, 3))
            return torch.stack([total, -total], 1)

    images = torch.stack([torch.full((3, side, side), c) for c in (0.25, 0.4999999, 0.6)])
    attack = Attack(epsilon=epsilon, norm="l2", steps=2)
    found = pgd(Even(), images, labels=torch.ones(3, dtype=torch.long), attack=attack)
    exact = (found.images - images).double().flatten(1).norm(dim=1)
    rounded = 2**-25 * (3 * side * side) ** 0.5
    assert (exact <= epsilon * (1 + 1e-6) + rounded).all()
    assert (exact >= epsilon * (1 - 1e-6) - rounded).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_ball_that_is_left_is_noticed(norm, monkeypatch):
    monkeypatch.setattr(attacks, "projected", lambda moved, images, attack: moved.clamp(0, 1))
    net = small_net()
    images, labels = images_and_labels(net)
    attack = Attack(epsilon=0.01, norm=norm, steps=4, step_size=0.00251)
    with pytest.raises(AssertionError, match="the ball was left"):
        pgd(net, images.clamp(0.1, 0.9), labels=labels, attack=attack)


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_of_pgd_is_fgsm(norm):
    net = small_net()
    images, labels = images_and_labels(net)
    attack = Attack(epsilon=0.05, norm=norm, steps=1, step_size=0.05)
    one = fgsm(net, images, labels=labels, attack=attack)
    many = pgd(net, images, labels=labels, attack=attack)
    torch.testing.assert_close(many.images, one, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("steps", "step_size"), [(4, 0.02), (5, 0.01), (3, 0.05), (1, 0.05)])
def test_pgd_on_a_linear_model_reaches_where_one_step_leads(norm, steps, step_size):
    model, images = Linear(2), drawn(5, 3, 4, 4, low=0.3, high=0.7)
    labels = torch.tensor([0, 1, 0, 1, 1])
    attack = Attack(epsilon=0.05, norm=norm, steps=steps, step_size=step_size)
    one = fgsm(model, images, labels=labels, attack=attack)
    many = pgd(model, images, labels=labels, attack=attack)
    torch.testing.assert_close(many.images, one, rtol=0, atol=1e-6)


def test_a_random_start_is_forgotten_on_a_linear_model():
    model, images = Linear(2), drawn(5, 3, 4, 4, low=0.3, high=0.7)
    attack = Attack(epsilon=0.05, steps=10)
    labels = torch.zeros(5, dtype=torch.long)
    found = pgd(model, images, labels=labels, attack=attack, draws=draws(5))
    one = fgsm(model, images, labels=labels, attack=attack)
    torch.testing.assert_close(found.images, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_starts_fill_the_ball(norm):
    images = torch.full((400, 1, 1, 2), 0.5)
    change = start(images, Attack(epsilon=0.4, norm=norm), draws(400)).flatten(1)
    radius = length(change[:, :, None, None], norm)
    assert radius.max() <= 0.4 + 1e-6
    inner = (radius <= 0.2).double().mean()  # of area: a quarter
    assert abs(inner - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5
    assert change.mean(0).abs().max() < 4 * 0.4 / 400**0.5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["cross-entropy", "cw"])
def test_a_target_is_approached_and_a_label_left(norm, loss):
    net = small_net()
    images, labels = images_and_labels(net)
    target = (labels + 1) % 4
    toward = Attack(epsilon=0.005, norm=norm, targeted=True, loss=loss)
    away = dataclasses.replace(toward, targeted=False)

    def value(at, classes):
        with torch.no_grad():
            return LOSSES[loss](net(at), classes)

    nearer = fgsm(net, images, labels=target, attack=toward)
    assert (value(nearer, target) < value(images, target)).all()
    further = fgsm(net, images, labels=labels, attack=away)
    assert (value(further, labels) > value(images, labels)).all()
    inside = images.clamp(0.1, 0.9)  # where nothing is clipped, the target's sign is the other one
    two = [fgsm(net, inside, labels=target, attack=one) for one in (toward, away)]
    torch.testing.assert_close(two[0] + two[1], 2 * inside, rtol=0, atol=1e-6)
    far = dataclasses.replace(toward, epsilon=4.0 if norm == "l2" else 0.5)
    found = pgd(net, images, labels=target, attack=far)
    assert torch.equal(found.reached, found.predicted == target)
    assert found.reached.any()


def test_what_an_attack_can_not_be_is_refused():
    with pytest.raises(ValueError, match="dlr has no target"):
        Attack(epsilon=0.1, loss="dlr", targeted=True)
    with pytest.raises(ValueError, match="knows no loss 'dl'; did you mean dlr"):
        Attack(epsilon=0.1, loss="dl")


def test_what_is_broken_on_the_way_counts():
    """A step so long that the next one leads back."""

    class Valley(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, images):
            wrong = 0.1 - (images.flatten(1).mean(1) - 0.6).abs()
            return torch.stack([torch.zeros_like(wrong), wrong], 1) * self.one

    images = torch.full((1, 3, 2, 2), 0.45)
    labels = torch.zeros(1, dtype=torch.long)
    attack = Attack(epsilon=0.5, steps=2, step_size=0.2)
    found = pgd(Valley(), images, labels=labels, attack=attack)
    assert found.images.mean() < 0.5  # 0.45, 0.65, 0.45
    assert found.reached.item()
    assert found.predicted.item() == 1


def test_losses_have_known_values():
    logits = torch.tensor([[3.0, 1.0, 0.0, -2.0], [3.0, 1.0, 0.0, -2.0]])
    labels = torch.tensor([0, 2])
    assert cw(logits, labels).tolist() == [-2.0, 3.0]
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2 / 3, 1.0]))
    torch.testing.assert_close(dlr(1000 * logits, labels), dlr(logits, labels))
    expected = logits.logsumexp(1) - torch.tensor([3.0, 0.0])
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
    with pytest.raises(ValueError, match="3 classes or more, got 2: take cw"):
        dlr(logits[:, :2], torch.tensor([0, 1]))


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_as_it_was(training):
    net = small_net().train(training)
    net[1].eval()  # a mode of its own
    net[0].weight.grad = torch.full_like(net[0].weight, 7.0)
    modes = [layer.training for layer in net.modules()]
    state = copy.deepcopy(net.state_dict())
    images = drawn(4, 3, 8, 8)
    labels = torch.tensor([0, 1, 2, 3])
    attack = Attack(epsilon=0.1, steps=2)
    with torch.no_grad():  # as callers may be
        first = fgsm(net, images, labels=labels, attack=attack)
        found = pgd(net, images, labels=labels, attack=attack, draws=draws(4))
    assert torch.equal(first, fgsm(net, images, labels=labels, attack=attack))  # no dropout
    assert [layer.training for layer in net.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    grads = [weight.grad for weight in net.parameters()]
    assert (grads.pop(0) == 7).all()
    assert grads == [None] * len(grads)
    assert not images.requires_grad
    assert not found.images.requires_grad
    assert all(weight.requires_grad for weight in net.parameters())


def test_images_that_are_normalized_already_are_refused():
    net = small_net()
    for wrong in (drawn(2, 3, 8, 8) - 0.5, drawn(2, 3, 8, 8) * 3, drawn(2, 3, 8, 8).double()):
        for attack in (fgsm, pgd):
            with pytest.raises(ValueError, match=r"in \[0, 1\]"):
                attack(net, wrong, labels=torch.tensor([0, 1]), attack=Attack(epsilon=0.1))


def test_distance_is_in_pixels_and_not_in_what_the_network_is_fed():
    """As attacking the bare network on normalized images, each channel in its own unit."""
    inner, mean, std = small_net(), (0.49, 0.45, 0.41), (0.23, 0.22, 0.25)
    wrapped = Normalized(inner, mean, std).eval()
    images, epsilon = drawn(4, 3, 8, 8), 8 / 255
    labels = torch.tensor([0, 1, 2, 3])
    middle, unit = (torch.tensor(one).view(1, 3, 1, 1) for one in (mean, std))
    fed = ((images - middle) / unit).requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(inner(fed), labels), fed)
    low, high = (0 - middle) / unit, (1 - middle) / unit
    moved = (fed.detach() + epsilon / unit * gradient.sign()).clamp(low, high)
    found = fgsm(wrapped, images, labels=labels, attack=Attack(epsilon=epsilon))
    torch.testing.assert_close(found, moved * unit + middle, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_is_attacked_alone_whatever_is_in_its_batch(norm):
    net = small_net()
    images, labels = images_and_labels(net, count=8)
    attack = Attack(epsilon=0.03, norm=norm, steps=5)
    names = [f"image {i}" for i in range(8)]
    whole = pgd(net, images, labels=labels, attack=attack, draws=Draws(names, CPU))
    some = [5, 2]
    part = pgd(net, images[some], labels=labels[some], attack=attack,
               draws=Draws([names[i] for i in some], CPU))  # fmt: skip
    alone = pgd(net, images[5:6], labels=labels[5:6], attack=attack, draws=Draws(names[5:6], CPU))
    torch.testing.assert_close(part.images, whole.images[some], rtol=0, atol=1e-6)
    torch.testing.assert_close(alone.images, whole.images[5:6], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_as_small_as_float32_has_still_lead(norm):
    model, images = Linear(3, scale=1e-30), drawn(3, 3, 4, 4)
    attack = Attack(epsilon=0.1, norm=norm)
    found = fgsm(model, images, labels=torch.tensor([0, 1, 2]), attack=attack)
    assert (length(found - images, norm) > 0.05).all()


@pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`")  # as foolbox imports SciPy
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["FGSM", "LinfPGD", "L2PGD"])
def test_foolbox_finds_the_same(name, targeted):
    import foolbox

    net = small_net()
    images, labels = images_and_labels(net, count=8)
    epsilon = 0.4 if name == "L2PGD" else 8 / 255
    attack = Attack(epsilon=epsilon, norm="l2" if name == "L2PGD" else "linf", steps=7,
                    targeted=targeted)  # fmt: skip
    labels = (labels + 1) % 4 if targeted else labels
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    if name == "FGSM":
        if targeted:
            theirs = foolbox.attacks.LinfPGD(abs_stepsize=epsilon, steps=1, random_start=False)
        else:
            theirs = foolbox.attacks.FGSM(random_start=False)
        ours = fgsm(net, images, labels=labels, attack=attack)
    else:
        theirs = getattr(foolbox.attacks, name)(
            abs_stepsize=2.5 * epsilon / 7, steps=7, random_start=False
        )
        ours = pgd(net, images, labels=labels, attack=attack).images
    goal = foolbox.criteria.TargetedMisclassification if targeted else (
        foolbox.criteria.Misclassification)  # fmt: skip
    raw = theirs.run(model, images, goal(labels), epsilon=epsilon)
    assert (raw - images).abs().max() > 0.01
    torch.testing.assert_close(ours, raw, rtol=0, atol=1e-6)
