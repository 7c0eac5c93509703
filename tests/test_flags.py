"""The command line's flags: what help says, and what a wrong word is answered."""

import shlex
from dataclasses import dataclass, field
from typing import Literal

import pytest
from tyro.conf import Positional

from tutelage import cli, flags
from tutelage.cli import VERBS, main
from tutelage.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    flip: bool = True
    """Mirror it."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """The whole."""

    steps: int | Literal["auto"] = "auto"
    """A text whose first line is long enough to be broken, and whose second
    line goes on `here`."""
    share: float = 1 / 3
    """Of it."""
    out: str | None = None
    """Where to."""
    most: float | None = 2.0
    """At most."""
    inner: Inner = field(default_factory=Inner)
    name: str
    """Who."""


def double(count: Positional[int], *, again: bool = False) -> int:
    """Twice.

    Args:
        count: How often, in words that take more than one line of the code, which is
            none of the reader's business.
        again: Once more.
    """
    return count * (4 if again else 2)


def read(target, *words):
    return flags.parse(
        target, words, prog="tool verb", about="About.", example="tool verb 3", default=None
    )


def helped(target, capsys):
    with pytest.raises(SystemExit):
        read(target, "--help")
    return capsys.readouterr().out


def test_words_become_settings_and_arguments():
    assert read(Outer, "--name", "x", "--inner.no-flip") == Outer(name="x", inner=Inner(flip=False))
    assert read(double, "4", "--again") == 16


def test_help_wraps_at_the_terminal_and_not_where_the_code_does(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    assert "whose second line goes on `here`." in helped(Outer, capsys)
    assert "which is none of the reader's business" in helped(double, capsys)


def test_help_says_what_is_required_first_and_leaves_out_defaults_that_say_nothing(capsys):
    said = helped(Outer, capsys)
    assert said.index("--name") < said.index("--steps")
    assert "None" not in said
    assert "(default: 0.333)" in said
    assert "(default: on)" in said


@pytest.mark.parametrize(("words", "said"), [
    (["--nmae", "x"], "there is no flag --nmae, see tool verb --help; did you mean --name"),
    (["--name", "x", "--inner.flp"], "no flag --inner.flp, .*did you mean --inner.flip"),
    (["--name", "x", "--most", "none"], "^--most takes a number or None, got 'none'$"),
    (["--name", "x", "--steps", "ten"], "^--steps takes a whole number or auto, got 'ten'$"),
    (["--name", "x", "--steps=auot"], "got 'auot'; did you mean auto"),
    (["--name", "x", "--share"], "--share needs a number behind it: Of it"),
    ([], "this is missing:\n  --name  Who.\nas in: tool verb 3$"),
])  # fmt: skip
def test_a_wrong_flag_is_answered_in_a_line_of_our_own(words, said, capsys):
    with pytest.raises(UsageError, match=said):
        read(Outer, *words)
    assert capsys.readouterr().err == ""


def test_a_missing_argument_is_named():
    with pytest.raises(UsageError, match="missing:\n  COUNT  How often"):
        read(double)


def test_what_has_no_words_of_its_own_is_said_by_the_parser(capsys):
    with pytest.raises(SystemExit) as stopped:
        read(double, "1", "2")
    assert stopped.value.code == 2
    assert "2" in capsys.readouterr().err


@pytest.mark.parametrize("verb", list(VERBS))
def test_each_example_is_made_of_flags_that_there_are(verb, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "_call", lambda name, words: asked.append((name, words)) or 0)
    assert main(shlex.split(f"{verb} {VERBS[verb][1]}")) == 0
    monkeypatch.undo()
    target = {}
    monkeypatch.setattr(
        flags, "parse", lambda kind, words, **rest: target.update(kind=kind) or _Stop.at_once()
    )
    with pytest.raises(_Stop):
        cli._call(*asked[0])
    monkeypatch.undo()
    kind = target["kind"]
    settings = kind if isinstance(kind, type) else flags._as_settings(kind)
    assert read(settings, *asked[0][1]) is not None


class _Stop(Exception):
    @classmethod
    def at_once(cls):
        raise cls
