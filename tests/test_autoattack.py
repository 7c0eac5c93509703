"""AutoAttack by the optional package: what it is given, and what is made of its answers."""

import sys
import types

import pytest
import torch
from prototypes import Prototypes, run, subject

from tutelage.errors import UsageError
from tutelage.robustness.autoattack import AutoAttacked


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UsageError, match=r"pip install 'tutelage\[autoattack\]'"):
        AutoAttacked().check(subject())


class StandIn:
    """Takes what the package's class takes, and breaks every second image by its first attack."""

    def __init__(self, model, *, attacks, device, eps, norm, seed, version):
        self.given = (attacks, str(device), eps, norm, seed, version)
        self.apgd, self.apgd_targeted, self.fab = (
            types.SimpleNamespace(n_restarts=5, n_target_classes=9) for _ in range(3)
        )
        self.ran = []

    def run_standard_evaluation(self, images, labels, /, *, batch_size):
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        assert batch_size == len(images) == len(labels)
        torch.manual_seed(0)
        self.ran += self.attacks_to_run
        predicted = labels.clone()
        if len(self.ran) == 1:
            predicted[::2] = (predicted[::2] + 1) % 4
        return images, predicted


@pytest.mark.parametrize(
    ("classes", "names", "targets"),
    [
        (8, ["apgd-ce", "apgd-t", "fab-t", "square"], 7),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"], 3),
        (3, ["apgd-ce", "apgd-dlr", "fab-t", "square"], 2),
        (2, ["apgd-ce", "fab-t", "square"], 1),
    ],
)
def test_autoattack_is_asked_for_as_many_targets_as_there_are(classes, names, targets, monkeypatch):
    made = []

    def make(*given, **named):
        made.append(StandIn(*given, **named))
        return made[-1]

    monkeypatch.setitem(sys.modules, "pyautoattack", types.SimpleNamespace(AutoAttack=make))
    model, suite = subject(Prototypes(classes=classes)), AutoAttacked(epsilon=(2.0, 8.0), seed=4)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    found = run(suite, model)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, second = made
    assert first.given == (names, "cpu", 2 / 255, "Linf", 4, "custom")
    assert second.given[2] == 8 / 255
    assert first.ran == names
    assert first.apgd.n_restarts == 1
    assert first.apgd_targeted.n_target_classes == first.fab.n_target_classes == targets
    clean = model.clean["predicted"] == model.labels
    small, large = found.values()
    assert torch.equal(small["right"], (clean & (small["broken_by"] == 0)).byte())
    assert small["right"].sum() == clean.sum() // 2
    assert not (large["right"].bool() & ~small["right"].bool()).any()
    notes = suite.summary(model, found, None).notes
    assert any("not AutoAttack's standard version" in note for note in notes) == (classes < 4)
