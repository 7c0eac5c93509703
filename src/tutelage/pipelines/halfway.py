"""A baseline's weights of halfway, which a student begins with: then both see as many images.

New weights know nothing of a pool, and what they answer about it teaches nothing; a student that
begins anew first has to learn from the labels what the baseline has learned already.
"""

from pathlib import Path

import torch
from torch import nn

from tutelage.checkpoint import LAST
from tutelage.errors import Damaged
from tutelage.loop import Exam
from tutelage.networks.build import Net
from tutelage.pipelines.prepare import Prepared
from tutelage.run import Run
from tutelage.weights import AGAIN, load_weights, save_weights

HALFWAY = "halfway.safetensors"
SHARE = 0.5  # of the baseline's steps


def keeping(exam: Exam | None, folder: Path) -> Exam:
    """The exam, at whose first half time the weights are kept in the training's folder."""

    def kept(module: nn.Module, done: float) -> dict[str, float]:
        if done >= SHARE and not (folder / HALFWAY).exists():
            save_weights(folder / HALFWAY, module)
        return {} if exam is None else exam(module, done)

    return kept


def halfway(folder: Path, net: Net, device: torch.device) -> nn.Module:
    """The network as it was halfway. Raises what `load_weights` raises."""
    return load_weights(folder / HALFWAY, net, device)


def reopen_damaged(baseline: str, net: Net, run: Run, prepared: Prepared) -> None:
    """Let a finished baseline be trained again where its weights of halfway are damaged."""
    folder = run.path / "rounds" / baseline
    if not run.is_done(baseline):
        return
    try:
        halfway(folder, net, torch.device("cpu"))
    except Damaged as error:
        prepared.screen.say(f"  {str(error).removesuffix(f': {AGAIN}')}: {folder} is made again")
        for name in (HALFWAY, "model.safetensors", LAST):
            (folder / name).unlink(missing_ok=True)
        run.reopen(baseline)
