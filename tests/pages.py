"""The README, the pages of docs/ and what stands in their fenced blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str  # docs/data.md
    number: int  # among the page's blocks of its language, from 0
    language: str
    text: str

    @property
    def name(self) -> str:
        """To tell it by."""
        return f"{self.page}-{self.number}"


def blocks(language: str, page: str = "") -> list[Block]:
    """All blocks of a language, of one page or of all."""
    found = []
    for path in PAGES:
        name = str(path.relative_to(ROOT))
        texts = [text for kind, text in FENCE.findall(path.read_text()) if kind == language]
        found += [Block(name, i, language, text) for i, text in enumerate(texts)]
    return [one for one in found if page in ("", one.page)]


def languages() -> dict[str, set[str]]:
    """Which languages each page's blocks are said to be in; "" is none."""
    return {
        str(path.relative_to(ROOT)): {kind for kind, _ in FENCE.findall(path.read_text())}
        for path in PAGES
    }


def lines(text: str) -> list[str]:
    """The commands of a bash block: without comments, continued lines in one."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", path.read_text())


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower().strip())
    return re.sub(r" +", "-", kept)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    return {slug(title) for title in re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)}
