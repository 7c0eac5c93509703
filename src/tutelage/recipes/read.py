"""Named settings: YAML files in this folder, which `--recipe NAME` puts below the flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import UsageError
from tutelage.values import load_yaml, merged, nearest

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """All recipes, from the files."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str, verb: str) -> dict[str, Any]:
    """A recipe's settings; raises UsageError for an unknown name, or one of another verb."""
    settings = _load(name)
    home = settings.pop("verb")
    if home != verb:
        raise UsageError(f"the recipe {name} is one of `tutelage {home}`, not of `{verb}`")
    return settings


def verb_of(name: str) -> str:
    """The verb that a recipe is for; raises UsageError for an unknown name."""
    return str(_load(name)["verb"])


def _load(name: str) -> dict[str, Any]:
    known = recipe_names()
    name = name.replace("-", "_")
    if name not in known:
        hint = nearest(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"there is no recipe {name!r}{hint}")
    return load_yaml(FOLDER / f"{name}.yaml")


def with_recipe(name: str | None, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, over the recipe of that name where there is one; a budget replaces the
    recipe's steps."""
    below = read_recipe(name, verb) if name else {}
    if given.get("budget") is not None:
        below.pop("steps", None)
    return merged(below, given)
