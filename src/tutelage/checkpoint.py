"""Checkpoints of a training: everything that changes, bound to the recipe it belongs to."""

from pathlib import Path

import torch

from tutelage.errors import RunMismatch
from tutelage.files import write_with
from tutelage.methods.method import State


def save(path: Path, state: State, *, step: int, recipe: str) -> None:
    """Write the state after `step` steps, whole or not at all."""
    content = {"recipe": recipe, "step": step, "state": state.state_dict()}
    write_with(path, lambda part: torch.save(content, part))


def resume(path: Path, state: State, *, recipe: str) -> int:
    """Load the state and return the steps done; 0 where there is no checkpoint.

    Raises RunMismatch where the checkpoint belongs to another recipe.
    """
    if not path.exists():
        return 0
    content = torch.load(path, map_location=state.student.device, weights_only=True)
    if content["recipe"] != recipe:
        raise RunMismatch(
            f"{path} belongs to another recipe ({content['recipe']}, not {recipe}): "
            "choose another --out, or --overwrite to start anew"
        )
    state.load_state_dict(content["state"])
    return int(content["step"])
