import pytest
import torch
from torch.nn import functional

from tutelage.losses import cross_entropy
from tutelage.targets import one_hot


def random_logits(seed=0, shape=(6, 5)):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_targets(seed=1, shape=(6, 5)):
    return random_logits(seed, shape).softmax(-1)


def test_one_hot_targets_give_torchs_cross_entropy():
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    expected = functional.cross_entropy(random_logits(), labels)
    assert torch.allclose(cross_entropy(random_logits(), one_hot(labels, 5)), expected)


def test_soft_targets_give_torchs_cross_entropy():
    expected = functional.cross_entropy(random_logits(), random_targets())
    assert torch.allclose(cross_entropy(random_logits(), random_targets()), expected)


def test_the_gradient_at_the_logits_is_probs_minus_targets_over_the_batch():
    logits, targets = random_logits().requires_grad_(), random_targets()
    cross_entropy(logits, targets).backward()
    assert torch.allclose(logits.grad, (logits.softmax(-1) - targets).detach() / 6, atol=1e-7)


def test_a_student_that_agrees_with_soft_targets_has_no_gradient_and_with_hard_ones_has():
    logits = random_logits().requires_grad_()
    cross_entropy(logits, logits.detach().softmax(-1)).backward()
    assert logits.grad.abs().max() < 1e-7
    logits.grad = None
    cross_entropy(logits, one_hot(logits.argmax(-1), 5)).backward()
    assert logits.grad.abs().max() > 1e-3


def test_the_loss_is_linear_in_the_targets():
    first, second = random_targets(1), random_targets(2)
    mixed = cross_entropy(random_logits(), 0.3 * first + 0.7 * second)
    parts = 0.3 * cross_entropy(random_logits(), first) + 0.7 * cross_entropy(
        random_logits(), second
    )
    assert torch.allclose(mixed, parts)


def test_masked_images_count_in_the_mean_over_all_and_not_over_kept():
    logits, targets = random_logits(), random_targets()
    weight = torch.tensor([1.0, 1, 0, 0, 0, 1])
    kept = cross_entropy(logits[weight > 0], targets[weight > 0])
    assert torch.allclose(cross_entropy(logits, targets, weight, over="kept"), kept)
    assert torch.allclose(cross_entropy(logits, targets, weight, over="all"), kept * 3 / 6)


@pytest.mark.parametrize("over", ["all", "kept"])
def test_weights_of_one_change_nothing_and_of_zero_give_zero(over):
    logits, targets = random_logits(), random_targets()
    ones, zeros = torch.ones(6), torch.zeros(6)
    plain = cross_entropy(logits, targets)
    assert torch.allclose(cross_entropy(logits, targets, ones, over=over), plain)
    assert cross_entropy(logits, targets, zeros, over=over) == 0


def test_half_precision_logits_are_summed_in_float32():
    logits, targets = random_logits(shape=(4, 1000)), random_targets(shape=(4, 1000))
    loss = cross_entropy(logits.bfloat16(), targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.bfloat16().float(), targets))


def test_enormous_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    loss = cross_entropy(logits, torch.eye(2))
    assert loss == 0
    assert torch.isfinite(cross_entropy(logits, torch.eye(2).flip(0)))
