"""The state of a training before its first step, in one process or in all that train together."""

from copy import deepcopy

import torch
from torch import nn

from tutelage.catalog import name_of
from tutelage.core import Dice, Stage, fold
from tutelage.data.loader import Batches
from tutelage.distributed.collectives import rank, world
from tutelage.distributed.words import from_leader
from tutelage.errors import UsageError
from tutelage.frozen import Frozen
from tutelage.learner import Learner
from tutelage.methods.method import State
from tutelage.networks.build import Normalized, build
from tutelage.networks.freeze import Freeze, freeze
from tutelage.networks.noise import set_noise
from tutelage.recipe import Recipe
from tutelage.training_settings import Part


def begin(
    recipe: Recipe,
    batches: Batches,
    device: torch.device,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
) -> State:
    """The state before the first step, with networks that are to be sharded in the CPU's memory.

    Raises UsageError where the method asks a frozen teacher and none is given.
    """
    module = build(recipe.net, seed=recipe.seed) if student is None else _copy(student)
    freeze(module, recipe.freeze)
    pool_size = 0 if batches.pool is None else len(batches.pool)
    memory = recipe.method.memory(recipe.net.num_classes, pool_size)
    return State(
        _learner(recipe, module.to(_home(recipe, "student", device))),
        _teacher(recipe, device, teacher),
        memory={name: tensor.to(device) for name, tensor in memory.items()},
    )


def _teacher(
    recipe: Recipe, device: torch.device, given: nn.Module | None
) -> Learner | Frozen | None:
    """The teacher in the role that the method gives it."""
    role = recipe.method.teacher
    if role == "none":
        return None
    if role == "frozen":
        if given is None:
            name = name_of(recipe.method)
            raise UsageError(f"{name} learns from a trained teacher: give one")
        shared = not recipe.spread.shards("teacher") and _is_frozen(given, device)
        module = given if shared else _copy(given).to(_home(recipe, "teacher", device))
        return Frozen(module, precision=recipe.precision, compile=recipe.compile)
    if given is None:
        seed = fold(recipe.seed, Dice.TEACHER, 0)
        given = recipe.method.make_teacher(recipe.net, seed=seed)
    module = _copy(given)
    if isinstance(module, Normalized):
        freeze(module, Freeze(norms=recipe.freeze.norms))
    return _learner(recipe, module.to(_home(recipe, "teacher", device)))


def _home(recipe: Recipe, part: Part, device: torch.device) -> torch.device:
    """Where the student or the teacher is before processes spread it."""
    return torch.device("cpu") if world() > 1 and recipe.spread.shards(part) else device


def _learner(recipe: Recipe, module: nn.Module) -> Learner:
    """A learner with the recipe's settings."""
    return Learner(
        module,
        recipe.optim,
        precision=recipe.precision,
        batch=recipe.batch,
        compile=recipe.compile,
    )


def _is_frozen(module: nn.Module, device: torch.device) -> bool:
    """Whether it answers as it is on this device, where a copy would only take room."""
    device = torch.empty(0, device=device).device  # cuda is cuda:0
    here = all(not one.requires_grad and one.device == device for one in module.parameters())
    return here and not any(part.training for part in module.modules())


def _copy(module: nn.Module) -> nn.Module:
    """A copy that can learn; the caller's network stays as it is."""
    return deepcopy(module).requires_grad_(True)


def enter(stage: Stage, state: State) -> None:
    """Give the networks that learn the stage's dropout, stochastic depth and DropBlock; a teacher
    that is a small network of the method's own has none of these."""
    rates = stage.network_noise()
    if set(rates.values()) == {None}:
        return
    for learner in (state.student, state.teacher):
        if isinstance(learner, Learner):
            for module in learner.noised():
                if learner is state.student or isinstance(module, Normalized):
                    set_noise(module, **rates)


def spread_out(state: State, first: int, recipe: Recipe, device: torch.device) -> int:
    """Let all processes go on together from the leader's state, after `first` steps by its word,
    each on its device; returns those steps."""
    if world() == 1:
        return first
    first, content = from_leader((first, state.state_dict()))
    if rank():
        state.load_state_dict(content)
    del content  # which may be as large as the state
    state.dice = torch.Generator()
    state.memory = {name: tensor.to(device) for name, tensor in state.memory.items()}
    state.sums = {name: tensor.to(device) for name, tensor in state.sums.items()}
    _spread(state.student, recipe, "student", device)
    if state.teacher is not None:
        _spread(state.teacher, recipe, "teacher", device)
    return first


def _spread(network: Learner | Frozen, recipe: Recipe, part: Part, device: torch.device) -> None:
    """Share a network among all processes, each with a part of its weights or with all of them."""
    size, sync_bn = recipe.net.img_size, recipe.spread.sync_bn
    if isinstance(network, Frozen):
        if recipe.spread.shards(part):
            network.shard(device, size=size)
    elif recipe.spread.shards(part):
        network.shard(device, size=size, sync_bn=sync_bn)
    else:
        images = torch.zeros(2, 3, size, size, device=device)
        known = isinstance(network.module, Normalized)
        network.replicate(images if known else None, sync_bn=sync_bn)
