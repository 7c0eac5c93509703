"""Damaged settings, weights, checkpoints and models: valid ones, and how they are read."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from tutelage import checkpoint
from tutelage.deploy.model_folder import Model, load_model, save_model
from tutelage.deploy.teacher_sources import read_weights
from tutelage.errors import TutelageError
from tutelage.jobs import SelftrainSettings
from tutelage.learner import Learner
from tutelage.methods.method import State
from tutelage.networks.build import Net, build
from tutelage.networks.names import name_in
from tutelage.networks.published import architecture_of
from tutelage.settings import Optim
from tutelage.values import digest, from_plain, load_yaml, to_plain

Reader = Callable[[bytes, Path], bool]
NET = Net(name="test_resnet", num_classes=3, img_size=32, small_stem=True)
OPEN = {"data": "a", "unlabeled": "b", "model": "resnet18", "out": "c"}  # of a recipe


def yaml_seeds(folder: Path) -> list[bytes]:
    """The recipes, settings of a self-training, and an EfficientNet by its stages."""
    ready = Path(checkpoint.__file__).with_name("recipes")
    some = "data: a\nunlabeled: b\nmodel: resnet18\nout: c\nsteps: 10\noptim:\n  lr: 1e-3\n"
    stages = yaml.safe_dump(to_plain(architecture_of("efficientnetv2_b0")))
    recipes = [path.read_bytes() for path in sorted(ready.glob("*.yaml"))]
    return [*recipes, some.encode(), stages.encode()]


def read_yaml(data: bytes, folder: Path) -> bool:
    """As settings, of which those that a recipe leaves open are given, or as an EfficientNet."""
    file, read = folder / "settings.yaml", False
    file.write_bytes(data)
    try:
        given = {key: value for key, value in load_yaml(file).items() if key != "verb"}
        digest(from_plain(SelftrainSettings, OPEN | given))
        read = True
    except TutelageError:
        pass
    try:
        name_in(str(file))
    except TutelageError:
        return read
    return True


def _state(steps: int) -> State:
    """A small training's state after so many steps."""
    torch.manual_seed(steps)
    learner = Learner(torch.nn.Linear(3, 2), Optim(ema=0.9))
    return State(learner, memory={"steps": torch.tensor(steps), "seen": torch.rand(5)})


def checkpoint_seeds(folder: Path) -> list[bytes]:
    """A checkpoint."""
    file = folder / "last.pt"
    checkpoint.save(file, _state(3), step=3, recipe="r")
    return [file.read_bytes()]


def checkpoint_sum(data: bytes) -> bytes:
    """A checkpoint with the checksum that it should have."""
    head = checkpoint.HEAD.match(data)
    if head is None:
        return data
    unknown = data.replace(head[3], checkpoint.UNKNOWN.encode(), 1)
    return data.replace(head[3], sha256(unknown).hexdigest().encode(), 1)


def read_checkpoint(data: bytes, folder: Path) -> bool:
    """Go on from it, once as the last one beside a whole one before, and once alone."""
    read = False
    for beside in (True, False):
        checkpoint.forget(folder)
        if beside:
            checkpoint.save(folder / "before.pt", _state(2), step=2, recipe="r")
        (folder / "last.pt").write_bytes(data)
        state, said = _state(9), list[str]()
        try:
            step = checkpoint.resume(folder / "last.pt", state, recipe="r", say=said.append)
        except TutelageError:
            continue
        if said:
            assert step == 2 * beside
            assert int(state.memory["steps"]) == (step or 9), "what is said is not what is loaded"
        read = read or not said
    return read


def weight_seeds(folder: Path) -> list[bytes]:
    """State dicts as torch saves them: now, before version 1.6, and inside a wrapper."""
    small, found = torch.nn.Linear(3, 2).state_dict(), []
    for content, new in ((small, True), (small, False), ({"state_dict": small}, True)):
        torch.save(content, folder / "w.pt", _use_new_zipfile_serialization=new)
        found.append((folder / "w.pt").read_bytes())
    return found


def read_weights_as(name: str) -> Reader:
    """How a weights file of that name is read."""

    def read(data: bytes, folder: Path) -> bool:
        (folder / name).write_bytes(data)
        try:
            read_weights(folder / name)
        except TutelageError:
            return False
        return True

    return read


def safetensors_seeds(folder: Path) -> list[bytes]:
    """The weights of a layer, and of a network."""
    return [save(torch.nn.Linear(3, 2).state_dict()), save(build(NET).state_dict())]


def _model() -> Model:
    torch.manual_seed(0)  # the same weights, hence the same digest, in every process
    return Model(build(NET), NET, ("a", "b", "c"), 36)


def model_seeds(folder: Path) -> list[bytes]:
    """A model folder's config.json."""
    save_model(folder, _model(), "card")
    return [(folder / "config.json").read_bytes()]


def read_model(data: bytes, folder: Path) -> bool:
    """A model folder whose config.json is damaged."""
    if not (folder / "model.safetensors").exists():
        model_seeds(folder)
    (folder / "config.json").write_bytes(data)
    try:
        load_model(folder)
    except TutelageError:
        return False
    return True


def own_weight_seeds(folder: Path) -> list[bytes]:
    """The weights of a model folder."""
    save_model(folder, _model(), "card")
    return [(folder / "model.safetensors").read_bytes()]


def read_own_weights(data: bytes, folder: Path) -> bool:
    """A model folder whose weights are damaged."""
    if not (folder / "config.json").exists():
        save_model(folder, _model(), "card")
    (folder / "model.safetensors").write_bytes(data)
    try:
        load_model(folder)
    except TutelageError:
        return False
    return True
