"""Frozen dataclasses to and from plain values: YAML, comparison, digests."""

import difflib
import hashlib
import json
import types
import typing
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tutelage.errors import UsageError

T = TypeVar("T")

MERGE = "tag:yaml.org,2002:merge"
NUMBERS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
LARGEST_YAML = 2**20  # bytes
DEEPEST = 64  # levels: the parser's time grows with the square of them
LONGEST_NUMBER = 100  # signs of a number or date: the time grows with the square of some
MOST_VALUES = 10_000  # of a file, where each reference to what stands above is written out

STEERING = frozenset(["Cc", "Cs", "Zl", "Zp"])  # of Unicode: controls, halves of signs, line ends
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

NAMES: dict[Any, str] = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path",
    type(None): "nothing",
}  # fmt: skip


def to_plain(value: Any) -> Any:
    """Dataclasses, paths and tuples as dicts, strings and lists, ready for YAML and JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], plain: Mapping[str, Any], where: str = "") -> T:
    """A dataclass from a mapping; raises UsageError for unknown keys and values that don't fit."""
    hints = typing.get_type_hints(kind)
    for key in plain:
        if key not in hints:
            raise UsageError(f"unknown setting {where}{key}{nearest(str(key), hints)}")
    given = {key: _convert(hints[key], value, where + key) for key, value in plain.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(str(error).replace(f"{kind.__name__}.__init__()", kind.__name__)) from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    """The value as the hint wants it, or a UsageError."""
    options = options_of(hint)
    for option in options:
        if is_dataclass(option) and isinstance(value, Mapping):
            return from_plain(typing.cast(type, option), value, f"{where}.")
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            return tuple(_convert(inner, item, where) for item in value)
        if typing.get_origin(option) is tuple and isinstance(value, str):
            return (value,)  # one word where several may stand
        if option in (Path, str) and isinstance(value, str | Path):
            return option(value)
        if option is float and _is_number(value):
            return float(value)
        if typing.get_origin(option) is typing.Literal and value in typing.get_args(option):
            return value
        if isinstance(option, type) and type(value) is option:
            return value
    raise UsageError(f"{where}: {value!r} does not fit {_words(options)}")


def _is_number(value: Any) -> bool:
    """A number, also as text: YAML reads 1e-3 as a string."""
    try:
        return not isinstance(value, bool) and isinstance(float(value), float)
    except (TypeError, ValueError, OverflowError):
        return False


def options_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type; without what else is said of them."""
    if typing.get_origin(hint) is typing.Annotated:
        return options_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(o for part in typing.get_args(hint) for o in options_of(part))
    return (hint,)


def _words(options: tuple[Any, ...]) -> str:
    """Types as a user would say them."""
    words = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            words += [repr(v) for v in typing.get_args(option)]
        else:
            words.append(NAMES.get(option, "a list of values"))
    return " or ".join(words)


def visible(text: str) -> str:
    """Text for a terminal: signs that would steer it, or turn the order of letters, as escapes.

    Names of files and classes come from others; one may hold the codes that clear the screen.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign.encode("unicode_escape").decode() if _steers(sign) else sign
                   for sign in text)  # fmt: skip


def _steers(sign: str) -> bool:
    """Whether a terminal would do something else than show it."""
    if sign in "\n\t":
        return False
    return unicodedata.category(sign) in STEERING or sign in TURNING


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """'; did you mean x?' for the nearest known names, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def percent(share: float) -> str:
    """A share as it stands in a sentence: 0.831 as '83.1 %'."""
    return f"{100 * share:.1f} %"


def flag(name: str) -> str:
    """A setting as it is written on the command line: noise.min_area -> --noise.min-area."""
    return f"--{name.replace('_', '-')}"


def belongs(name: str, other: str) -> UsageError:
    """A setting was given without the one, or the value, that it is for."""
    return UsageError(f"{flag(name)} is for {other}: give both, or leave out {flag(name)}")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested plain values, with those of `above` over those of `below`."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = merged(inner, value)
        both[key] = value
    return both


def flat(value: Any, where: str = "") -> dict[str, Any]:
    """Nested plain values as dotted keys."""
    if not isinstance(value, Mapping):
        return {where: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in flat(inner, f"{where}.{name}" if where else str(name)).items()
    }


def differences(before: Any, after: Any) -> list[str]:
    """One line for each setting that is not the same in both."""
    old, new = flat(to_plain(before)), flat(to_plain(after))
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def digest(value: Any) -> str:
    """A short hash of the plain value."""
    text = json.dumps(to_plain(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_yaml(text: str) -> Any:
    """The plain value that a YAML text stands for; raises ValueError, with why, where it can't."""
    try:
        loaded = yaml.load(text, Loader=_PlainLoader)
        if num_values(loaded, MOST_VALUES) > MOST_VALUES:
            raise ValueError("it refers by * to itself, or so often that it has no end")
        return loaded
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        # the last three: of the parser, at a date or a number that is none
        raise ValueError(f"is no valid YAML: {error}") from None


def num_values(value: Any, most: int) -> int:
    """How many values lists and mappings hold when written out; above `most` any such number."""
    known: dict[int, int] = {}

    def count(one: Any) -> int:
        if not isinstance(one, dict | list | tuple | set):
            return 1
        if id(one) not in known:
            known[id(one)] = most  # which counts where it holds itself
            known[id(one)] = 1 + sum(map(count, one.values() if isinstance(one, dict) else one))
        return known[id(one)]

    return count(value)


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone, no deeper and with no more taken over by << than a person would write."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Refuses brackets in too many others."""
        if self.flow_level >= DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        """Refuses lists and mappings that are indented too often."""
        if len(self.indents) >= DEEPEST:
            raise RecursionError
        return super().add_indent(column)

    def construct_scalar(self, node: Any) -> Any:
        """Refuses numbers that nobody would write."""
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"it has a number of {len(node.value):,} signs")
        return super().construct_scalar(node)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses mappings that grow with each reference."""
        for key, value in node.value:
            several = key.tag == MERGE and isinstance(value, yaml.SequenceNode)
            if several and len(value.value) > MOST_VALUES // 100:
                raise yaml.YAMLError("it takes over too many settings by <<")
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise yaml.YAMLError("it takes over too many settings by <<")


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises UsageError where the file is missing or holds something else."""
    try:
        if path.stat().st_size > LARGEST_YAML:
            raise UsageError(
                f"{path} has {path.stat().st_size:,} bytes: no settings file has so many"
            )
        loaded = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: give the path of a YAML file") from None
    except OSError as error:
        raise UsageError(
            f"{path} can't be read ({error.strerror}): give the path of a YAML file"
        ) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8: save it as such") from None
    except ValueError as error:
        raise UsageError(f"{path} {error}") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds no settings: write `name: value` lines")
    return loaded
