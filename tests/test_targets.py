import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tutelage.targets import from_top, hard, one_hot, smooth, temper


def random_probs(seed, batch=5, num_classes=7):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(batch, num_classes, generator=generator)).softmax(-1)


def test_one_hot_and_hard_undo_each_other():
    labels = torch.tensor([3, 0, 6, 6])
    assert torch.equal(one_hot(labels, 7), functional.one_hot(labels, 7).float())
    probs = random_probs(0)
    assert torch.equal(hard(probs), one_hot(probs.argmax(-1), 7))
    assert torch.equal(hard(one_hot(labels, 7)), one_hot(labels, 7))


def test_smoothing_a_label_of_ten_classes_by_a_tenth_gives_091_and_001():
    smoothed = smooth(one_hot(torch.tensor([2]), 10), 0.1)[0]
    assert smoothed[2].item() == pytest.approx(0.91)
    assert smoothed[[0, 1, 3, 9]].tolist() == pytest.approx([0.01] * 4)


def test_smoothing_gives_torchs_label_smoothing():
    logits = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    ours = -(smooth(one_hot(labels, 5), 0.2) * logits.log_softmax(-1)).sum(-1).mean()
    assert torch.allclose(ours, functional.cross_entropy(logits, labels, label_smoothing=0.2))


@given(st.integers(0, 100), st.floats(0, 1))
def test_smoothed_targets_sum_to_one_and_keep_the_order(seed, amount):
    probs = random_probs(seed)
    smoothed = smooth(probs, amount)
    assert torch.allclose(smoothed.sum(-1), torch.ones(5))
    assert smoothed.min() >= 0
    if amount < 0.99:
        assert torch.equal(smoothed.argmax(-1), probs.argmax(-1))


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [  # spec/methods.md 6.7
        (0.4, [0.8417, 0.1488, 0.0095]),
        (0.5, [0.7826, 0.1957, 0.0217]),
        (0.7, [0.6902, 0.2564, 0.0534]),
        (2.0, [0.4727, 0.3343, 0.1930]),
    ],
)
def test_sharpening_gives_the_values_of_the_specification(temperature, expected):
    sharp = temper(torch.tensor([[0.6, 0.3, 0.1]]), temperature)[0]
    assert sharp.tolist() == pytest.approx(expected, abs=5.1e-5)


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_tempered_probs_are_the_softmax_of_logits_over_the_temperature(seed, temperature):
    logits = 3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(
        temper(logits.softmax(-1), temperature), (logits / temperature).softmax(-1), atol=1e-5
    )


def test_temperature_one_changes_no_bit():
    probs = random_probs(3)
    assert torch.equal(temper(probs, 1.0), probs)


def test_a_probability_of_zero_stays_finite_when_sharpened():
    sharp = temper(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), 0.1)
    assert torch.equal(sharp, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))


def test_all_classes_kept_rebuild_the_probs():
    probs = random_probs(4)
    top = probs.topk(7)
    assert torch.allclose(from_top(top.indices, top.values, 7), probs, atol=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_the_top_is_kept_and_the_rest_spreads_evenly(seed, kept):
    probs = random_probs(seed)
    top = probs.topk(kept)
    full = from_top(top.indices, top.values, 7)
    assert torch.allclose(full.sum(-1), torch.ones(5))
    assert torch.allclose(full.gather(1, top.indices), top.values, atol=1e-6)
    rest = (1 - top.values.sum(-1)) / (7 - kept)
    outside = torch.ones(5, 7, dtype=torch.bool).scatter_(1, top.indices, False)
    assert torch.allclose(full[outside].reshape(5, -1), rest[:, None].expand(-1, 7 - kept))
    assert torch.equal(full.argmax(-1), probs.argmax(-1))


def test_rounding_above_one_gives_no_negative_probability():
    full = from_top(torch.tensor([[0, 1]]), torch.tensor([[0.7, 0.3000002]]), 4)
    assert full.min() >= 0
    assert full.sum().item() == pytest.approx(1)
