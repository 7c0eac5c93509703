"""docs/commands.md: what `--help` says of each command's flags; python tests/commands_page.py."""

import contextlib
import io
import os
import re
from unittest import mock

from pages import DOCS

from tutelage.cli import VERBS, main

PAGE = DOCS / "commands.md"
GROUP = re.compile(r"^ (\S.*?) *\n -+ *\n(.*?)(?=^ \S|\Z)", flags=re.DOTALL | re.MULTILINE)
RULE = re.compile(r"^  -{9,} *\n", flags=re.MULTILINE)
ENTRY = re.compile(r"^  (\S.*?)(?:  +|\n {3,})(\S.*?)(?=^  \S|\Z)", flags=re.DOTALL | re.MULTILINE)
HEAD = """# Commands

What `tutelage VERB --help` says, in one place. A flag that several commands have stands where it
comes first; the others name it.
"""


def helped(verb: str) -> str:
    """What a terminal without color and signs shows."""
    said = io.StringIO()
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    with (
        mock.patch.dict(os.environ, plain),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        main([verb, "--help"])
    return said.getvalue()


def groups(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """The boxes of a help: title, what it says of itself, and each flag's words."""
    found = []
    for title, body in GROUP.findall(text):
        about, flags = RULE.split(body) if RULE.search(body) else ("", body)
        entries = {name.strip(): " ".join(words.split()) for name, words in ENTRY.findall(flags)}
        entries.pop("-h, --help", None)
        title = "" if title in ("options", "positional arguments") else title
        found.append((title, " ".join(about.split()), entries))
    return found


def spelled(name: str) -> str:
    """A flag and its value without signs that mean something in a table."""
    choices = re.sub(r"\{([^}]*)\}", lambda found: found[1].replace(",", ", "), name)
    return f"`{choices.replace('|', ' or ')}`"


def linked(words: str) -> str:
    """With links to the pages that they name."""
    return re.sub(r"docs/([\w-]+\.md)", r"[docs/\1](\1)", words)


def section(verb: str, first: dict[tuple[str, str], str]) -> str:
    """What the page says of a verb; `first` is where each flag comes first, and learns of more."""
    text = helped(verb)
    paragraphs = re.split(r"\n{2,}", text[: GROUP.search(text).start()].strip())
    usage, example = (next(p for p in paragraphs if p.startswith(w)) for w in ("usage", "Example"))
    said = [p for p in paragraphs if p not in (usage, example)]
    parts = [f"## {verb}", *said, f"```text\n{example.removeprefix('Example: ')}\n```"]
    for title, about, entries in groups(text):
        own = {name: words for name, words in entries.items() if (name, words) not in first}
        first |= dict.fromkeys(own.items(), verb)
        rows = [f"| {spelled(name)} | {linked(words)} |" for name, words in own.items()]
        others: dict[str, list[str]] = {}
        for name, words in entries.items():
            if name not in own:
                others.setdefault(first[name, words], []).append(f"`{name.split()[0].strip(',')}`")
        parts += [f"**{title.capitalize()}.** {about}"] if title else []
        parts += ["\n".join(["| flag | what |", "| --- | --- |", *rows])] if rows else []
        parts += [f"As of [{there}](#{there}): {', '.join(f)}." for there, f in others.items()]
    return "\n\n".join(parts)


def page() -> str:
    """All of docs/commands.md."""
    first: dict[tuple[str, str], str] = {}
    return "\n\n".join([HEAD.strip(), *(section(verb, first) for verb in VERBS)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
