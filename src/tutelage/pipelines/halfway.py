"""The weights that a baseline had halfway, which a student begins with: both see as many images.

New weights know nothing of a pool, and what they answer about it teaches nothing; a student that
begins anew first has to learn from the labels what the baseline has learned already. Half of the
training, and no more, lies before: later weights would have seen images that nobody counts.
"""

import torch
from torch import nn

from tutelage.checkpoint import forget, saved_steps
from tutelage.errors import Damaged
from tutelage.pipelines.prepare import Prepared
from tutelage.recipe import Recipe
from tutelage.run import Run
from tutelage.weights import AGAIN, MIDDLE, WEIGHTS, load_weights


def halfway(name: str, recipe: Recipe, run: Run, device: torch.device) -> nn.Module:
    """The network as it was halfway through that round. Raises what `load_weights` raises."""
    return load_weights(run.path / "rounds" / name / MIDDLE, recipe.net, device)


def begin_anew_where_lost(name: str, recipe: Recipe, run: Run, prepared: Prepared) -> None:
    """Let a baseline be trained again that is past its middle, where its weights of then are
    damaged or gone."""
    folder = run.path / "rounds" / name
    if not run.is_done(name) and saved_steps(folder) < recipe.middle:
        return
    try:
        halfway(name, recipe, run, torch.device("cpu"))
    except Damaged as error:
        prepared.screen.say(f"  {str(error).removesuffix(f': {AGAIN}')}: {folder} is made again")
        forget(folder)
        (folder / WEIGHTS).unlink(missing_ok=True)
        run.reopen(name)
