"""Self-contained HTML pages, from the templates in this folder."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, UndefinedError
from markupsafe import Markup

from tutelage.files import write_text


def render(template: str, contents: Mapping[str, Any]) -> str:
    """The template of that file name with these contents; raises what `filled` raises."""
    here = resources.files("tutelage.reports")
    return filled((here / template).read_text(encoding="utf-8"), contents)


def filled(template: str, contents: Mapping[str, Any]) -> str:
    """The template with the style of all pages and these contents, of which all but Markup is
    escaped.

    Raises LookupError where they lack something.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = resources.files("tutelage.reports") / "page.css"
    css = Markup(style.read_text(encoding="utf-8"))
    try:
        return environment.from_string(template).render({"css": css, **contents})
    except UndefinedError as error:
        raise LookupError(str(error)) from error


def write_page(path: Path, text: str) -> Path:
    """Write a page, and return its path."""
    # a path that is no Unicode is shown with ?, for it can't be written
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"), shared=True)
    return path
