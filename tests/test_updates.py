"""When a learner's weights move: accumulated gradients, fp16, and going on after a stop."""

import io
from dataclasses import replace

import pytest
import torch
from same import assert_same, weights
from torch import nn

from tutelage.begin import begin
from tutelage.core import Clock, Labeled, Stage
from tutelage.data.loader import Batches
from tutelage.data.pixels import InMemory
from tutelage.data.sets import LabeledSet
from tutelage.errors import UsageError
from tutelage.feedback import credit, exam, teach
from tutelage.learner import Learner, choose_precision
from tutelage.loop import fit
from tutelage.methods.meta_pseudo_labels import MetaPseudoLabels
from tutelage.methods.supervised import Supervised
from tutelage.recipe import Recipe
from tutelage.settings import Noise, Optim

PLAIN = Optim(
    name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0,
    ema=None,
)  # fmt: skip


class Small(nn.Module):
    """A convolution and a matrix, without statistics of the batch."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, images):
        return self.last(self.first(images).relu().mean((2, 3)))


def images(seed=0, count=4):
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def train(learner, steps, total=12):
    for step in steps:
        learner.minimize(learner(images(step)).square().mean(), Clock(step, total))


def reloaded(learner):
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Accumulation -------------------------------------------------------------------------------------


def test_parts_of_a_batch_in_turn_are_one_step_of_the_batch():
    whole, parts = Learner(Small(), PLAIN), Learner(Small(), replace(PLAIN, accumulate=3))
    before = weights(parts.module)
    batch = torch.cat([images(step) for step in range(3)])
    whole.minimize(whole(batch).square().mean(), Clock(0, 12))
    train(parts, range(2))
    assert_same(weights(parts.module), before)
    train(parts, [2])
    for name, weight in parts.module.named_parameters():
        assert torch.allclose(weight, whole.module.get_parameter(name), atol=1e-7)
        assert not torch.equal(weight, before[name])


def test_the_last_update_averages_the_steps_that_are_left():
    learner, twin = (Learner(Small(), replace(PLAIN, accumulate=n)) for n in (4, 2))
    train(learner, range(4), total=6)
    twin.module.load_state_dict(learner.module.state_dict())
    train(learner, [4, 5], total=6)
    train(twin, [4, 5], total=12)
    assert_same(weights(learner.module), weights(twin.module))
    assert not learner.waiting


def test_the_average_moves_once_an_update_and_counts_updates():
    optim = replace(PLAIN, lr=0.0, ema=0.9, accumulate=3)
    learner = Learner(Small(), optim)
    for parameter in learner.module.parameters():
        parameter.data.fill_(1)
    for parameter in learner.average.parameters():
        parameter.data.fill_(0)
    distance = 1.0
    for step in range(12):
        train(learner, [step])
        if step % 3 == 2:
            update = step // 3
            distance *= min(0.9, (1 + update) / (10 + update))
        assert learner.average.last.weight.mean().item() == pytest.approx(1 - distance, abs=1e-6)


def test_clipping_is_of_the_averaged_gradient():
    learner = Learner(Small(), replace(PLAIN, lr=1.0, clip=0.01, accumulate=2))
    before = weights(learner.module)
    train(learner, range(2))
    moved = [(p - before[n]).norm() for n, p in learner.module.named_parameters()]
    assert torch.stack(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_rate_of_an_update_is_that_of_its_last_step_and_counts_all_its_images():
    optim = replace(PLAIN, accumulate=2, scale="linear", scale_base=256)
    learner = Learner(Small(), optim, batch=64)
    assert learner.peak == pytest.approx(0.1 * 128 / 256)
    assert Learner(Small(), replace(optim, scale="sqrt"), batch=64).peak == pytest.approx(
        0.1 * 0.5**0.5
    )
    assert Learner(Small(), replace(optim, scale="none"), batch=64).peak == 0.1


def test_a_rate_can_not_be_scaled_to_an_unknown_batch():
    with pytest.raises(UsageError, match="give the learner `batch`"):
        Learner(Small(), replace(PLAIN, scale="linear"))


def test_a_teacher_that_learns_from_each_step_does_not_go_with_accumulation(tiny):
    stages = (Stage(steps=2, size=32, magnitude=0),)
    values = {"net": tiny, "stages": stages, "noise": Noise(), "batch": 4}
    method = MetaPseudoLabels()
    with pytest.raises(UsageError, match="this method needs an update each step"):
        Recipe(method=method, optim=Optim(accumulate=2), **values)
    with pytest.raises(UsageError, match="leave out --compile"):
        Recipe(method=method, optim=Optim(), compile=True, **values)
    assert Recipe(method=Supervised(), optim=Optim(accumulate=2), compile=True, **values)


# fp16 ---------------------------------------------------------------------------------------------


def test_fp16_answers_in_float32_and_learns_almost_what_fp32_does():
    exact, rough = (Learner(Small(), PLAIN, precision=p) for p in ("fp32", "fp16"))
    assert rough(images()).dtype == torch.float32
    assert not torch.equal(exact(images()), rough(images()))
    before = weights(exact.module)
    for learner in (exact, rough):
        train(learner, range(6))
    for name, weight in rough.module.named_parameters():
        other = exact.module.get_parameter(name)
        assert torch.allclose(weight, other, rtol=0.02, atol=2e-4)
        assert not torch.equal(weight, before[name])


def test_gradients_too_small_for_fp16_arrive():
    learner = Learner(Small(), replace(PLAIN, lr=1e6), precision="fp16")
    before = weights(learner.module)
    learner.minimize(learner(images()).square().mean() * 1e-7, Clock(0, 1))
    moved = learner.module.first.weight - before["first.weight"]
    twin = Learner(Small(), replace(PLAIN, lr=1e6))
    twin.minimize(twin(images()).square().mean() * 1e-7, Clock(0, 1))
    assert moved.abs().max() > 0
    assert torch.allclose(learner.module.first.weight, twin.module.first.weight, atol=1e-3)


@pytest.mark.parametrize("name", ["sgd", "lamb"])
def test_a_step_whose_gradients_overflow_changes_nothing_but_the_scale(name):
    optim = Optim(name=name, lr=0.1, ema=0.5, clip=1.0)
    learner = Learner(Small(), optim, precision="fp16")
    train(learner, range(2))
    now, slow, scale = weights(learner.module), weights(learner.average), learner.scaler.get_scale()
    learner.minimize(learner(images()).square().mean() * 1e30, Clock(2, 12))
    assert_same(weights(learner.module), now)
    assert_same(weights(learner.average), slow)
    assert learner.scaler.get_scale() == scale / 2
    train(learner, [3])
    assert not torch.equal(learner.module.first.weight, now["first.weight"])
    assert not torch.equal(learner.average.first.weight, slow["first.weight"])


def test_clipping_in_fp16_is_of_the_gradient_without_its_scale():
    learner = Learner(Small(), replace(PLAIN, lr=1.0, clip=0.01), precision="fp16")
    before = weights(learner.module)
    train(learner, [0])
    moved = [(p - before[n]).norm() for n, p in learner.module.named_parameters()]
    assert torch.stack(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_two_learners_have_scales_of_their_own():
    one, other = (Learner(Small(), PLAIN, precision="fp16") for _ in range(2))
    one.minimize(one(images()).square().mean() * 1e30, Clock(0, 2))
    assert one.scaler.get_scale() == other.scaler.get_scale() / 2


def test_the_feedback_of_a_student_in_fp16_is_nearly_that_in_fp32():
    labeled = Labeled(images(1), torch.eye(5)[[0, 1, 2, 3]])
    given = torch.full((4, 5), 0.2)
    slopes = []
    for precision in ("fp32", "fp16"):
        student = Learner(Small(), PLAIN, precision=precision)
        lesson = teach(student, images(2), given, labeled, Clock(0, 1), estimator="exact")
        assert exam(student, labeled).dtype == torch.float32
        slopes.append(credit(student, lesson.start, lesson.images, lesson.after))
    assert torch.allclose(*slopes, rtol=0.01, atol=1e-5)
    assert slopes[0].abs().max() > 1e-3


def test_fp16_is_for_accelerators():
    assert choose_precision("fp16", torch.device("cuda")) == "fp16"
    with pytest.raises(UsageError, match="take bf16 or fp32"):
        choose_precision("fp16", torch.device("cpu"))


# Going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "rmsproptf", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_learner_goes_on_to_the_last_bit(name, precision, accumulate):
    optim = Optim(name=name, lr=0.01, ema=0.9, clip=1.0, accumulate=accumulate, layer_decay=0.8,
                  schedule="one-cycle", ema_warmup="timm")  # fmt: skip
    through = Learner(Small(), optim, precision=precision)
    if precision == "fp16":  # a scale that was lowered before
        through.scaler.scale(torch.ones(()))
        through.scaler.update(4.0)
    train(through, range(4))
    kept = reloaded(through)
    assert (kept["gradients"] is not None) == (accumulate > 1)
    train(through, range(4, 12))
    resumed = Learner(Small(seed=1), optim, precision=precision)
    resumed.load_state_dict(kept)
    train(resumed, range(4, 12))
    assert_same(weights(resumed.module), weights(through.module))
    assert_same(weights(resumed.graduate()), weights(through.graduate()))
    assert resumed.scaler.state_dict() == through.scaler.state_dict()


def loaded(learner, other):
    learner.load_state_dict(other.state_dict())
    return learner


def test_waiting_gradients_are_no_longer_shared_after_loading():
    optim = replace(PLAIN, accumulate=3)
    one = Learner(Small(), optim)
    train(one, range(1))
    other = loaded(Learner(Small(), optim), one)
    train(one, [1, 2])
    train(other, [1, 2])
    assert_same(weights(one.module), weights(other.module))


@pytest.mark.parametrize("name", ["adamw", "adamwlegacy", "sgd", "rmsproptf", "muon"])
def test_one_cycle_moves_momentum_down_and_up(name):
    learner = Learner(Small(), Optim(name=name, lr=0.01, schedule="one-cycle", ema=None))
    seen = []
    for step in (0, 3, 9):
        train(learner, [step], total=10)
        (group, *_) = learner.optimizer.param_groups
        seen.append(group["momentum"] if "momentum" in group else group["betas"][0])
    assert seen[:2] == pytest.approx([0.95, 0.85])
    assert 0.85 < seen[2] < 0.95


# Statistics computed again ------------------------------------------------------------------------


def training(tiny, *, steps=6, **optim):
    recipe = Recipe(
        net=tiny, method=Supervised(), stages=(Stage(steps=steps, size=16, magnitude=0.0),),
        optim=Optim(**{"lr": 0.05} | optim), noise=Noise(crop="pad"), batch=4,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    pixels = InMemory(torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8, generator=draw))
    labels = LabeledSet(pixels, torch.arange(9) % 3, 3)
    batches = Batches(
        labels, None, stages=recipe.stages, views=("weak", ()), batch=4, ratio=0,
        noise=recipe.noise, seed=0,
    )  # fmt: skip
    return recipe, batches


CPU = torch.device("cpu")


def test_what_is_kept_and_examined_is_recalibrated_and_training_is_not_disturbed(tiny, tmp_path):
    kept, seen = {}, []

    def exam(module, share):
        seen.append(module.net.conv1[1].running_mean.clone())
        return {}

    for buffers in ("copy", "recalibrate"):
        recipe, batches = training(tiny, ema_buffers=buffers)
        kept[buffers] = fit(recipe, batches, tmp_path / buffers, device=CPU, exam=exam)
    plain, again = kept["copy"], kept["recalibrate"]
    assert torch.equal(plain.net.conv1[0].weight, again.net.conv1[0].weight)
    assert torch.equal(plain.net.fc.weight, again.net.fc.weight)
    assert not torch.equal(plain.net.conv1[1].running_mean, again.net.conv1[1].running_mean)
    assert torch.equal(seen[-1], again.net.conv1[1].running_mean)
    inputs = [(batches.at(s).labeled.images - again.mean) / again.std for s in range(6)]
    means = torch.stack([again.net.conv1[0](x).mean((0, 2, 3)) for x in inputs]).mean(0)
    assert torch.allclose(again.net.conv1[1].running_mean, means, atol=1e-4)


def test_the_loop_tells_learners_their_batch(tiny):
    recipe, batches = training(tiny, scale="linear", accumulate=2)
    state = begin(recipe, batches, CPU)
    assert state.student.peak == pytest.approx(0.05 * 8 / 256)
