"""What a network costs: turns that meet both alike, memory that runs out, and nothing kept."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
import toy

from tutelage.catalog import kind_of, make, names
from tutelage.errors import UsageError
from tutelage.jobs import TrainSettings
from tutelage.networks.build import Net, build, parameters
from tutelage.networks.freeze import Freeze
from tutelage.pipelines import trial_cost
from tutelage.pipelines.prepare import prepare
from tutelage.pipelines.rounds import recipe_for
from tutelage.pipelines.trial_cost import (
    Pace,
    Passes,
    Training,
    Yardstick,
    in_turns,
    too_large,
    within_memory,
)
from tutelage.progress import Screen
from tutelage.run import open_run
from tutelage.searching.trials import Cost, Infeasible
from tutelage.settings import Noise, Progressive
from tutelage.speed.timing import Protocol
from tutelage.speed.training_memory import least_bytes

CPU = torch.device("cpu")
QUICK = Pace(warmup=1, most_warmup=1, warmup_seconds=0, turns=3, most_turns=3, turn_seconds=0)
SHORT = Protocol(warmup=1, warmup_seconds=0, passes=3, seconds=0, turn_passes=3, turn_seconds=0)


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """What was there before the tests is not looked through again each time memory is freed."""
    gc.freeze()
    yield
    gc.unfreeze()


class Machine:
    """Networks whose passes take known times, on a clock of their own."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def tick(self):
        return self.now

    def passes(self, name, pace, seconds):
        """`seconds` of each pass in turn, the last one for ever."""
        times = list(seconds)

        def run():
            self.log.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return Passes(run, pace, tick=self.tick)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Settings and prepared images of a tiny training with a pool."""
    root = toy.write_toy(tmp_path_factory.mktemp("toy"))
    settings = TrainSettings(**toy.train_settings(root, root / "run"), unlabeled=root / "pool")
    settings = replace(settings, optim=settings.optim.resolved(batch_norm=True, pretrained=False))
    with open_run("train", settings, overwrite=False) as run:
        yield settings, prepare(settings, run, CPU, Screen(), pool=settings.unlabeled)


def recipe_with(prepared, method="supervised", *, model="test_resnet", ratio=0, steps=5, **changes):
    settings, images = prepared
    settings = replace(settings, **changes)
    return recipe_for(
        settings, images, model=model, method=make(method), number=0, steps=steps, ratio=ratio
    )


def test_turns_alternate_and_each_network_is_as_often_first():
    machine, pace = Machine(), Pace(most_warmup=3, turns=4, most_turns=4)
    one, other = (machine.passes(name, pace, [0.1]) for name in "ab")
    assert len(in_turns(one, other)) == 4
    assert "".join(machine.log) == "aaabbb" + "abbaabba"


def test_first_passes_are_not_counted():
    machine, pace = Machine(), Pace()
    one = machine.passes("a", pace, [60.0, 1.0, 1.0, 0.5])
    other = machine.passes("b", pace, [30.0, 1.0, 1.0, 0.25])
    assert set(in_turns(one, other)) == {(0.5, 0.25)}


def test_a_network_that_is_warm_takes_one_pass_to_be_so_again():
    machine, pace = Machine(), Pace(turns=1, most_turns=1)
    reference = machine.passes("r", pace, [0.5])
    for name in "ab":
        in_turns(machine.passes(name, pace, [0.5]), reference)
    assert "".join(machine.log) == "aaarrr" + "ar" + "bbbr" + "br"


def test_fast_networks_get_more_passes_a_turn_and_slow_ones_fewer_turns():
    machine, pace = Machine(), Pace()
    fast = in_turns(machine.passes("a", pace, [0.0045]), machine.passes("b", pace, [0.5]))
    assert len(fast) == pace.turns
    assert fast[0][0] == pytest.approx(0.0045)
    assert machine.log.count("a") == pace.most_warmup + 5 * pace.turns
    slow = in_turns(machine.passes("c", pace, [30.0]), machine.passes("d", pace, [0.5]))
    assert len(slow) == pace.slow_turns
    quick = in_turns(machine.passes("e", pace, [0.01]), machine.passes("f", pace, [0.01]))
    assert len(quick) == pace.most_turns


def test_one_slow_moment_and_a_slowing_machine_change_no_ratio(prepared, monkeypatch):
    turns = [(0.2, 0.1), (0.3, 0.15), (5.0, 0.15), (0.4, 0.2), (0.6, 0.3)]
    monkeypatch.setattr(trial_cost, "in_turns", lambda one, other: turns)
    recipe = recipe_with(prepared)
    cost = Yardstick(recipe, prepared[1]).cost_of(recipe)
    assert cost.relative_time == pytest.approx(2)
    assert cost.step_seconds == 0.4
    assert cost.relative_parameters == 1


def test_a_network_against_itself_takes_about_as_long(prepared):
    recipe = recipe_with(prepared)
    pace = Pace(most_warmup=3, turns=5, most_turns=5)
    cost = Yardstick(recipe, prepared[1], pace=pace).cost_of(recipe)
    assert 0.4 < cost.relative_time < 2.5
    assert cost.step_seconds > 0
    assert cost.latency is None


def test_weights_are_counted_and_latency_is_that_of_one_image(prepared, monkeypatch):
    batches = []
    monkeypatch.setattr(trial_cost, "LATENCY", SHORT)
    kept = trial_cost.time_in_turns
    monkeypatch.setattr(
        trial_cost, "time_in_turns",
        lambda runners, counts, protocol: (
            batches.append((counts, runners[""].module.training, runners[""].size))
            or kept(runners, counts, protocol)
        ),
    )  # fmt: skip
    recipe = recipe_with(prepared, model="test_efficientnet")
    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    cost = yardstick.cost_of(recipe, latency_limit=60.0)
    small, own = (parameters(build(one.net)) for one in (yardstick.training.recipe, recipe))
    assert (cost.parameters, cost.relative_parameters) == (own, own / small)
    assert cost.latency > 0
    assert batches == [({"": 1}, False, 16)]


def test_the_reference_is_built_once_for_a_search(prepared, monkeypatch):
    built = []
    begin = trial_cost.begin
    monkeypatch.setattr(
        trial_cost, "begin",
        lambda recipe, *rest, **more: built.append(recipe.net.name) or begin(recipe, *rest, **more),
    )  # fmt: skip
    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    for _ in range(2):
        recipe = recipe_with(prepared, model="test_efficientnet")
        assert isinstance(yardstick.cost_of(recipe), Cost)
    assert built == ["test_resnet", "test_efficientnet", "test_efficientnet"]


def test_steps_are_those_of_the_last_stage_with_all_of_the_method_on(prepared, monkeypatch):
    progressive = Progressive(stages=2, start_size=8)
    recipe = recipe_with(prepared, steps=40, progressive=progressive, noise=Noise(dropout=0.4))
    seen, step = [], type(recipe.method).step

    def spied(method, state, batch, clock):
        rates = {m.p for m in state.student.module.modules() if isinstance(m, torch.nn.Dropout)}
        seen.append((batch.labeled.images.shape[-1], clock.step, clock.total, rates))
        return step(method, state, batch, clock)

    monkeypatch.setattr(type(recipe.method), "step", spied)
    training = Training(recipe, prepared[1], teacher=None)
    training.update()
    training.update()
    assert [stage.size for stage in recipe.stages] == [8, 16]
    assert seen == 2 * [(16, 39, 40, seen[0][3])]
    assert recipe.stages[-1].dropout == 0.4


def test_an_update_of_averaged_gradients_counts_as_its_steps(prepared, monkeypatch):
    settings, images = prepared
    averaged = replace(settings.optim, accumulate=4)
    recipe = recipe_with(prepared, steps=10, optim=averaged)
    training = Training(recipe, images, teacher=None)
    before = {n: t.clone() for n, t in training.state.student.module.named_parameters()}
    training.update()
    assert not training.state.student.waiting
    assert any(
        not torch.equal(t, before[n]) for n, t in training.state.student.module.named_parameters()
    )
    monkeypatch.setattr(trial_cost, "in_turns", lambda one, other: [(0.4, 0.2)])
    cost = Yardstick(recipe_with(prepared), images).cost_of(recipe)
    assert (cost.step_seconds, cost.relative_time) == (0.1, 0.5)


@pytest.mark.parametrize("name", names())
def test_every_method_can_be_measured_on_one_batch_that_stays_as_it_is(prepared, name):
    kind = kind_of(name)
    recipe = recipe_with(prepared, name, ratio=2 if make(name).unlabeled_views else 0)
    teacher = build(replace(recipe.net, two_heads=False)) if kind.teacher == "frozen" else None
    training = Training(recipe, prepared[1], teacher=teacher)
    images = training.batch.labeled.images.clone()
    pool = training.batch.unlabeled
    views = {} if pool is None else {name: view.clone() for name, view in pool.views.items()}
    for _ in range(2):
        training.update()
    assert torch.equal(training.batch.labeled.images, images)
    assert all(torch.equal(pool.views[name], view) for name, view in views.items())


def test_memory_that_runs_out_makes_a_network_infeasible_and_holds_nothing(prepared, monkeypatch):
    held = []

    def greedy(training):
        held.append(weakref.ref(training.state.student.module))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    recipe = recipe_with(prepared, model="test_efficientnet")
    monkeypatch.setattr(Training, "update", greedy)
    with pytest.raises(Infeasible, match="out of memory") as caught:
        yardstick.cost_of(recipe)
    assert held[0]() is None
    assert caught.value.__context__ is None
    monkeypatch.undo()
    assert yardstick.cost_of(recipe).step_seconds > 0


def test_nothing_is_held_of_a_network_that_was_measured(prepared, monkeypatch):
    held, update = [], Training.update

    def watched(training):
        held.append(weakref.ref(training.state.student.module))
        update(training)

    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    monkeypatch.setattr(Training, "update", watched)
    monkeypatch.setattr(trial_cost, "LATENCY", SHORT)
    yardstick.cost_of(recipe_with(prepared, model="test_efficientnet"), latency_limit=60.0)
    assert held
    assert not any(ref() for ref in held)


def test_other_errors_of_a_step_are_raised_as_they_are(prepared, monkeypatch):
    def broken(training):
        raise RuntimeError("a bug")

    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    monkeypatch.setattr(Training, "update", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        yardstick.cost_of(recipe_with(prepared))


def test_a_network_that_cannot_take_the_images_is_infeasible(prepared):
    recipe = recipe_with(prepared)
    recipe = replace(recipe, net=Net(name="test_coatnet", num_classes=4, img_size=40))
    yardstick = Yardstick(recipe_with(prepared), prepared[1], pace=QUICK)
    with pytest.raises(Infeasible, match="test_coatnet can't take images of 16 pixels"):
        yardstick.cost_of(recipe)


def test_a_network_that_cannot_answer_is_infeasible(prepared, monkeypatch):
    monkeypatch.setattr(trial_cost, "LATENCY", SHORT)

    class Silent(torch.nn.Linear):
        def forward(self, images):
            raise MemoryError("bad_alloc")

    with pytest.raises(Infeasible, match="can't answer one image: out of memory"):
        trial_cost.latency_of(Silent(1, 1), recipe_with(prepared), CPU)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "out of memory"),
        (RuntimeError("shape mismatch"), None),
        (UsageError("another flag"), None),
    ],
)
def test_errors_that_say_that_memory_ran_out_are_known(error, words):
    assert too_large(error) == words


def test_the_processors_own_refusal_to_allocate_is_known():
    with pytest.raises(Infeasible, match="out of memory"):
        within_memory(lambda: torch.empty(2**60, dtype=torch.uint8), CPU)


def test_a_step_that_surely_needs_more_memory_than_there_is_is_not_tried(prepared, monkeypatch):
    monkeypatch.setattr(trial_cost, "free_bytes", lambda: 10**6)
    recipe = recipe_with(prepared)
    with pytest.raises(Infeasible, match=r"out of memory: a step needs 0.0 GB or more, 0.0 are"):
        trial_cost.check(recipe, CPU)
    trial_cost.check(recipe, torch.device("meta"))  # accelerators say so themselves
    monkeypatch.setattr(trial_cost, "free_bytes", lambda: None)
    trial_cost.check(recipe, CPU)


def test_least_memory_is_that_of_what_the_backward_pass_really_keeps(prepared):
    recipe = recipe_with(prepared, batch=32)
    module, images = build(recipe.net).train(), torch.rand(32, 3, 16, 16)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(images)
    own = {one.untyped_storage()._cdata for one in (*module.parameters(), *module.buffers())}
    really = sum(one.untyped_storage().nbytes() for key, one in kept.items() if key not in own)
    weights = 8 * parameters(module)
    assert least_bytes(recipe) == pytest.approx(really + weights, rel=0.02)
    half = least_bytes(replace(recipe, batch=16)) - weights
    assert half == pytest.approx(really / 2, rel=0.02)
    assert least_bytes(replace(recipe, freeze=Freeze(part="body"))) < 0.3 * (really + weights)
    assert least_bytes(replace(recipe, compile=True)) == 0
