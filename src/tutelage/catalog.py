"""The methods there are: the files in methods/, by name, with what each says of itself.

Describing reads the files and imports nothing, so that listing is instant.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import UsageError
from tutelage.values import from_plain, nearest, parse_yaml

if TYPE_CHECKING:  # the class needs torch, and listing doesn't need the class
    from tutelage.methods.method import Method

FOLDER = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Described:
    """A method as its file describes it."""

    name: str  # as on the command line
    sentence: str  # the first of the file
    paper: str
    verb: str  # train, selftrain or distill
    options: tuple[tuple[str, str, str], ...]  # field, default, comment


def names() -> list[str]:
    """Names of all methods: noisy-student for noisy_student.py."""
    files = sorted(path.stem for path in FOLDER.glob("*.py"))
    return [stem.replace("_", "-") for stem in files if stem not in ("__init__", "method")]


def describe(name: str) -> Described:
    """What the file of a method says; raises UsageError for a name without a file."""
    text = _file(name).read_text()
    module = ast.parse(text)
    about = " ".join((ast.get_docstring(module) or "").split())
    paper = re.search(r"Paper: (.*?\)|none[^.]*)", about)
    kind = next(n for n in module.body if isinstance(n, ast.ClassDef) and _is_method(n))
    facts = {_target(node): node for node in kind.body if _target(node)}
    return Described(
        name=name,
        sentence=about.split(". ")[0].rstrip("."),
        paper=paper[1].removesuffix(".") if paper else "",
        verb=_verb(facts),
        options=tuple(_options(text, facts)),
    )


def _options(text: str, facts: Mapping[str, ast.stmt]) -> Iterator[tuple[str, str, str]]:
    """Name, default and comment of each field, as one would write them after --options."""
    for name, node in facts.items():
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            default = ast.literal_eval(node.value)
            shown = f"[{','.join(default)}]" if isinstance(default, tuple) else str(default)
            yield name, shown, _comment(text, node)


def _file(name: str) -> Path:
    """The file of a method; raises UsageError with the nearest names where there is none."""
    if name not in names():
        hint = nearest(name, names()) or ";"
        raise UsageError(f"there is no method {name!r}{hint} see `tutelage methods`")
    return FOLDER / f"{name.replace('-', '_')}.py"


def _is_method(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Method" for base in node.bases)


def _target(node: ast.stmt) -> str:
    """The name that a statement in a class gives a value to, or nothing."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return ""


def _comment(text: str, node: ast.stmt) -> str:
    """The comment behind a field."""
    last = text.splitlines()[(node.end_lineno or node.lineno) - 1]
    return last[node.end_col_offset or 0 :].strip().lstrip("# ")


def _verb(facts: Mapping[str, ast.stmt]) -> str:
    """Where a method is used: with a frozen teacher, with a pool, or on labels alone."""
    teacher = facts.get("teacher")
    if isinstance(teacher, ast.Assign) and ast.literal_eval(teacher.value) == "frozen":
        return "distill"
    return "selftrain" if "unlabeled_views" in facts else "train"


def kind_of(name: str) -> "type[Method]":
    """The class in a method's file; raises UsageError for a name without a file."""
    from tutelage.methods.method import Method

    module = importlib.import_module(f"tutelage.methods.{_file(name).stem}")
    found = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Method) and kind.__module__ == module.__name__
    ]
    return found[0]


def name_of(method: "Method") -> str:
    """The name of a method on the command line."""
    return type(method).__module__.rpartition(".")[2].replace("_", "-")


def make(
    name: str, options: tuple[str, ...] = (), usual: Mapping[str, Any] | None = None
) -> "Method":
    """A method by name with `options` such as "threshold=0.9" over what is `usual` in this run.

    Usual values for fields that the method doesn't have are left out; an option that it doesn't
    have raises UsageError with the nearest one.
    """
    kind = kind_of(name)
    known = {field.name for field in fields(kind)}
    values = {key: value for key, value in (usual or {}).items() if key in known}
    for option in options:
        key, sign, value = option.partition("=")
        if not sign:
            raise UsageError(f"--options {option}: write NAME=VALUE, such as threshold=0.9")
        try:
            values[key] = parse_yaml(value)
        except ValueError:
            raise UsageError(
                f"--options {option}: {value} is no value; write a number, true, or a list in "
                f"quotes, as in '{key}=[weak,strong]'"
            ) from None
    try:
        method = from_plain(kind, values)
    except UsageError as error:
        raise UsageError(f"--options of {name}: {error}" if options else str(error)) from None
    _check_views(method, kind())
    return method


def _check_views(method: "Method", default: "Method") -> None:
    """Raises UsageError for views that don't exist, or that are more or fewer than are used."""
    from tutelage.data.views import VIEWS

    wanted = len(default.unlabeled_views)
    odd = {method.labeled_view, *method.unlabeled_views} - set(VIEWS)
    if odd:
        raise UsageError(
            f"{name_of(method)} knows no view {min(odd)!r}{nearest(min(odd), VIEWS)}: there are "
            f"{', '.join(VIEWS)}"
        )
    if len(method.unlabeled_views) != wanted:
        raise UsageError(
            f"{name_of(method)} looks at {wanted} views of the pool: name as many, got "
            f"unlabeled_views=[{','.join(method.unlabeled_views)}]"
        )
