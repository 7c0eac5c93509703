"""What is known of an image once it was read, and of the images of a part."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.data.source import Images

MISSING = "FileNotFoundError"  # how the problem of an image begins whose file is not there


@dataclass(frozen=True, slots=True)
class Facts:
    """What reading an image told; `problem` is empty where it could be read."""

    content: str  # hash of size and pixels, so that copies in other files are found
    width: int
    height: int
    problem: str = ""
    mode: str = ""  # as the file has it, in Pillow's words: RGB, L, CMYK, I;16, …
    bytes: int = 0  # of the file, or of the pixels where there is none
    look: int = 0  # perceptual hash, 64 bits
    gray: bool = False  # no color in any pixel
    flat: bool = False  # all pixels alike
    animated: bool = False  # several frames, of which the first is used


@dataclass
class Part:
    """The labeled, validation, test or pool images, with what is known of each."""

    images: Images
    facts: list[Facts] = field(default_factory=list)

    def keep(self, rows: Sequence[int]) -> "Part":
        """These rows alone."""
        return Part(self.images.keep(rows), [self.facts[row] for row in rows])

    def without(self, rows: Sequence[int]) -> "Part":
        """All but these rows."""
        out = set(rows)
        return self.keep([row for row in range(len(self.images)) if row not in out])

    def copies(self) -> dict[str, list[int]]:
        """Content hash -> the rows that have it."""
        rows: dict[str, list[int]] = {}
        for row, fact in enumerate(self.facts):
            rows.setdefault(fact.content, []).append(row)
        return rows

    def together(self) -> list[list[int]]:
        """Rows that no split may part: copies, and groups, and whatever these two tie together."""
        parent = list(range(len(self.images)))

        def root(row: int) -> int:
            while parent[row] != row:
                parent[row] = row = parent[parent[row]]
            return row

        first: dict[tuple[str, str], int] = {}
        groups = self.images.groups or ("",) * len(parent)
        for row, (fact, group) in enumerate(zip(self.facts, groups, strict=True)):
            ties = [("content", fact.content)] + ([("group", group)] if group else [])
            for tie in ties:
                one, other = root(first.setdefault(tie, row)), root(row)
                parent[max(one, other)] = min(one, other)
        rows: dict[int, list[int]] = {}
        for row in range(len(parent)):
            rows.setdefault(root(row), []).append(row)
        return list(rows.values())

    def also_in(self, judged: "Part") -> tuple[list[int], list[int]]:
        """Rows whose pixels are also in that part, and others that share a group with it."""
        contents, groups = judged.copies(), set(judged.images.groups or ()) - {""}
        own = self.images.groups or ("",) * len(self.images)
        same = [row for row, fact in enumerate(self.facts) if fact.content in contents]
        seen = set(same)
        grouped = [row for row, group in enumerate(own) if group in groups and row not in seen]
        return same, grouped
