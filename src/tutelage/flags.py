"""Flags of a verb: settings or a function's arguments -> what tyro reads, and what was wrong."""

import ast
import inspect
import os
import re
import textwrap
import typing
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from tyro import MISSING as NOT_GIVEN
from tyro import cli, conf, constructors

from tutelage.errors import UsageError
from tutelage.values import NAMES, nearest, options_of

UNSAID = ("", "''", "None")  # defaults that the text of a flag explains where they mean something
PLACES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
SWITCHES = {"True": "on", "False": "off"}
MOST_DIGITS = 6  # of a default that is a number


@dataclass(frozen=True)
class Flag:
    """One flag or positional argument, as a person writes it."""

    name: str  # --noise.flip, or RUN
    hint: Any
    required: bool
    words: str  # what it is for

    @property
    def positional(self) -> bool:
        """Whether it stands without --."""
        return not self.name.startswith("--")


def parse(
    target: Any, arguments: Sequence[str], *, prog: str, about: str, example: str, default: Any
) -> Any:
    """Settings of the type `target`, or what the function `target` returns.

    Prints help and exits where that is asked for. Raises UsageError for a flag that there is not,
    that is missing, or whose value doesn't fit.
    """
    kind = target if is_dataclass(target) else _as_settings(target)
    registry = constructors.ConstructorRegistry()
    registry.struct_rule(_rule)
    asked = any(word in ("-h", "--help") for word in arguments)
    if asked and os.environ.get("NO_COLOR"):  # no-color.org, which tyro doesn't look for
        os.environ["TERM"] = "dumb"
    read = partial(
        cli, kind, prog=prog, description=about, args=arguments, registry=registry,
        **({} if default is None else {"default": default}),
    )  # fmt: skip
    try:
        with nullcontext() if asked else redirect_stderr(StringIO()):
            found = read()
    except SystemExit as stopped:
        if asked or not stopped.code:
            raise
        wrong = _wrong(flags_of(kind, default=default), arguments, prog, example)
        if wrong is not None:
            raise UsageError(wrong) from None
        found = read()  # which says what it is
    return found if kind is target else target(**vars(found))


def flags_of(kind: Any, prefix: str = "", default: Any = None) -> list[Flag]:
    """All flags of settings, those of settings in them included."""
    found = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        hint, extras = _bare(hints[one.name])
        name = one.name.replace("_", "-")
        if is_dataclass(hint):
            inner = prefix if conf.OmitArgPrefixes in extras else f"{prefix}{name}."
            found += flags_of(hint, inner)
            continue
        given = getattr(default, one.name) if isinstance(default, kind) else NOT_GIVEN
        required = one.default is one.default_factory is MISSING and given is NOT_GIVEN
        shown = name.upper() if conf.Positional in extras else f"--{prefix}{name}"
        found.append(Flag(shown, hints[one.name], required, words_of(kind).get(one.name, "")))
    return found


def words_of(kind: Any) -> dict[str, str]:
    """What stands below each field of settings, those of their parents included; of a function's
    argument below Args."""
    if not is_dataclass(kind):
        _, _, args = (inspect.getdoc(kind) or "").partition("Args:\n")
        entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", args, re.MULTILINE)
        return {name: _one_line(text) for name, text in entries}
    found: dict[str, str] = {}
    for one in reversed(inspect.getmro(typing.cast(type, kind))):
        if not is_dataclass(one):
            continue
        found |= {f.name: str(f.metadata["help"]) for f in fields(one) if "help" in f.metadata}
        if "made" in one.__dict__:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for named, after in pairwise(tree.body):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(named, ast.AnnAssign) and isinstance(text, ast.Constant):
                found[ast.unparse(named.target)] = _one_line(str(text.value))
    return found


def _one_line(text: str) -> str:
    """Without line ends, which are those of the code and not of the terminal."""
    return " ".join(text.split())


def _as_settings(function: Callable[..., object]) -> Any:
    """Settings with the arguments of a function."""
    hints = typing.get_type_hints(function, include_extras=True)
    words = words_of(function)
    given = []
    for name, argument in inspect.signature(function).parameters.items():
        has_default = argument.default is not argument.empty
        metadata = {"help": words.get(name, "")}
        one = field(default=argument.default if has_default else MISSING, metadata=metadata)
        given.append((name, hints[name], one))
    return make_dataclass(function.__name__, given, kw_only=True, namespace={"made": True})


def _rule(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
    """Settings for tyro: those that are required first, and their words."""
    if not is_dataclass(info.type):
        return None
    hints = typing.get_type_hints(info.type, include_extras=True)
    found = []
    for one in fields(info.type):
        default = one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        if isinstance(info.default, info.type):
            default = getattr(info.default, one.name)
        if default is MISSING:
            default = NOT_GIVEN
        found.append(
            constructors.StructFieldSpec(
                name=one.name,
                type=_worded(hints[one.name], one.name),
                default=default,
                helptext=partial(_said, info.type, one.name),
            )
        )
    found.sort(key=lambda spec: spec.default is not NOT_GIVEN)
    return constructors.StructConstructorSpec(instantiate=info.type, fields=tuple(found))


def _said(kind: Any, name: str) -> str | None:
    """The words of a field, when help is asked for."""
    return words_of(kind).get(name)


def _worded(hint: Any, name: str) -> Any:
    """A type with the sign for its value, and its default where it says something."""
    bare, extras = _bare(hint)
    if is_dataclass(bare):
        return hint
    options = [one for one in options_of(hint) if one is not type(None)]
    several = typing.get_origin(bare) is tuple
    kind = typing.get_args(bare)[0] if several else options[0]
    place = None if len(options) > 1 or _stands_alone(hint) else PLACES.get(kind)
    if conf.Positional in extras:
        place = name.upper()
    if several and place is not None:
        place += "..."
    return Annotated[hint, conf.arg(metavar=place, help_behavior_hint=_default)]


def _default(label: str) -> str:
    """What the help says of a default."""
    if label in UNSAID:
        return ""
    label = SWITCHES.get(label, label)
    if len(label) > MOST_DIGITS and re.fullmatch(r"0\.\d+", label):
        label = f"{float(label):.3g}"
    return f"(default: {label})"


def _wrong(flags: list[Flag], arguments: Sequence[str], prog: str, example: str) -> str | None:
    """What is wrong with the arguments: an unknown flag, a value, or what is missing."""
    known = {spelled: flag for flag in flags for spelled in _spellings(flag)}
    positional = [flag for flag in flags if flag.positional]
    given: set[str] = set()
    last: Flag | None = None  # flag, whose value the next word is
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if not name.startswith("--"):
            if last is None and positional:
                given.add(positional.pop(0).name)
            last = last if last is not None and _is_several(last) else None
            continue
        if name not in known:
            return f"there is no flag {name}, see {prog} --help{nearest(name, known)}"
        flag = known[name]
        given.add(flag.name)
        after = [one for one in arguments[place + 1 : place + 2] if not one.startswith("--")]
        wrong = _wrong_value(flag, name, [value] if equals else after)
        if wrong is not None:
            return wrong
        last = None if equals or bool in options_of(flag.hint) else flag
    missing = [one for one in flags if one.required and one.name not in given]
    if missing:
        width = max(len(one.name) for one in missing)
        lines = [f"  {one.name:<{width}}  {one.words}" for one in missing]
        return "\n".join(["this is missing:", *lines, f"as in: {example}"])
    return None


def _wrong_value(flag: Flag, name: str, values: list[str]) -> str | None:
    """What is wrong with a flag's value."""
    options = options_of(flag.hint)
    if bool in options or _is_several(flag):
        return None
    if values and not any(_fits(values[0], option) for option in options):
        words = [str(value) for option in options for value in typing.get_args(option)]
        return f"{name} takes {_takes(options)}, got {values[0]!r}{nearest(values[0], words)}"
    if not values and not _stands_alone(flag.hint):
        return f"{name} needs {_takes(options)} behind it: {flag.words}"
    return None


def _is_several(flag: Flag) -> bool:
    """Whether any number of values may follow."""
    return any(typing.get_origin(one) is tuple for one in options_of(flag.hint))


def _spellings(flag: Flag) -> list[str]:
    """The flag, and where it is a switch what turns it off."""
    start, dot, last = flag.name.removeprefix("--").rpartition(".")
    return [flag.name] + ([f"--{start}{dot}no-{last}"] if bool in options_of(flag.hint) else [])


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without what tyro is told about it, and that."""
    if typing.get_origin(hint) is Annotated:
        return typing.get_args(hint)[0], hint.__metadata__
    return hint, ()


def _stands_alone(hint: Any) -> bool:
    """Whether a flag may stand without a value."""
    return any(isinstance(one, constructors.PrimitiveConstructorSpec) for one in _bare(hint)[1])


def _fits(word: str, option: Any) -> bool:
    """Whether tyro makes such a value of the word."""
    if typing.get_origin(option) is typing.Literal:
        return word in map(str, typing.get_args(option))
    if option is type(None):
        return word == "None"
    if option in (int, float):
        try:
            option(word)
        except ValueError:
            return False
    return True


def _takes(options: tuple[Any, ...]) -> str:
    """The values of a flag in words."""
    words = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            words += [str(value) for value in typing.get_args(option)]
        else:
            words.append("None" if option is type(None) else NAMES.get(option, "a value"))
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
