import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix
from torch import nn

from tutelage import frozen
from tutelage.data.pixels import InMemory
from tutelage.evaluation import accuracy as accuracy_module
from tutelage.evaluation.accuracy import accuracy, confusion, predict
from tutelage.evaluation.probe import features
from tutelage.frozen import in_turns
from tutelage.networks.build import build


def pixels(count=9, side=32):
    generator = torch.Generator().manual_seed(0)
    return InMemory(
        torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    )


@pytest.mark.parametrize(("size", "most"), [(32, 256), (128, 256), (224, 83), (380, 29), (9000, 1)])
def test_large_images_are_asked_about_in_turns_that_take_no_more_memory(size, most):
    asked, images = [], torch.arange(300.0)[:, None]

    def ask(some):
        asked.append(len(some))
        return 2 * some

    assert torch.equal(in_turns(ask, images, size), 2 * images)
    assert max(asked) == most
    assert sum(asked) == 300


def test_a_network_never_sees_more_images_than_its_turns_have(tiny, monkeypatch):
    module, seen = build(tiny), []
    expected = predict(module, pixels(), 32)
    monkeypatch.setattr(frozen, "PIXELS", 4 * 32**2)
    module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    assert torch.allclose(predict(module, pixels(), 32), expected, atol=1e-5)
    found = features(module, pixels(), 32)
    assert torch.allclose(found.softmax(-1), expected, atol=1e-5)
    assert seen == [4, 4, 1] * 2


@pytest.mark.parametrize("training", [True, False])
def test_predicting_leaves_the_mode_the_weights_and_the_statistics(tiny, training):
    module = build(tiny).train(training)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    predict(module, pixels(), 32)
    assert module.training is training
    assert all(part.training is training for part in module.modules())
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_part_that_was_frozen_in_eval_mode_stays_so(tiny):
    module = build(tiny).train()
    frozen = next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    frozen.eval()
    predict(module, pixels(2), 32)
    assert not frozen.training
    assert module.training


def test_an_error_while_predicting_leaves_the_mode_too(tiny):
    module = build(tiny).train()
    with pytest.raises(RuntimeError):
        predict(nn.Sequential(module, nn.Linear(1, 1)).train(), pixels(2), 32)
    assert module.training


def test_answers_are_clean_probs_whatever_the_batch_and_the_mode(tiny, monkeypatch):
    module = build(tiny).train()
    probs = predict(module, pixels(), 32)
    assert probs.shape == (9, 3)
    assert not probs.requires_grad
    assert torch.allclose(probs.sum(-1), torch.ones(9))
    images = pixels().images.permute(0, 3, 1, 2).float() / 255
    expected = module.eval()(images).softmax(-1)
    assert torch.allclose(probs, expected, atol=1e-5)
    for batch in (1, 2, 9, 100):
        heard = []
        monkeypatch.setattr(accuracy_module, "AT_ONCE", batch)
        again = predict(module, pixels(), 32, advance=heard.append)
        assert torch.allclose(again, probs, atol=1e-5)
        assert sum(heard) == 9
        assert len(heard) == -(-9 // batch)


def test_images_on_a_larger_canvas_are_asked_by_their_center(tiny):
    module = build(tiny).eval()
    large = pixels(side=38)
    inner = InMemory(large.images[:, 3:35, 3:35])
    assert torch.allclose(predict(module, large, 32), predict(module, inner, 32), atol=1e-6)


def test_accuracy_and_confusion_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(200, 5, generator=generator)
    labels = torch.randint(4, (200,), generator=generator)  # class 4 never occurs
    answers = probs.argmax(-1)
    assert accuracy(probs, labels).value == pytest.approx(accuracy_score(labels, answers))
    assert accuracy(probs, labels).total == 200
    expected = confusion_matrix(labels, answers, labels=range(5))
    assert confusion(probs, labels).tolist() == expected.tolist()
